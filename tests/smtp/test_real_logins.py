"""TLS and login with a real Postfix that asks a real Dovecot, and with a real Exim; what a man in the middle sees."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

import bulkmail
from bulkmail.model.delivery import Message
from bulkmail.model.outcome import Fault, Reply, Stage
from bulkmail.model.relay import Relay, Secret
from bulkmail.smtp.credentials import AccessToken, Credentials, Tokens
from bulkmail.smtp.replies import SessionRefused
from tests.connections import Single
from tests.servers.certificates import Authority, authority
from tests.servers.dovecot_sasl import MECHANISMS, DovecotSasl, run_dovecot_sasl
from tests.servers.exim import run_exim
from tests.servers.forwarder import forwarding
from tests.servers.kept import MailServer
from tests.servers.postfix import run_postfix

pytestmark = pytest.mark.real

USER = "ann@example.com"
PASSWORD = "correct horse, battery=staple é"
ANN = Credentials(USER, Secret(PASSWORD))

EXIM_LOGINS = """\
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and{{{{eq{{$auth2}}{{{user}}}}}{{eq{{$auth3}}{{{password}}}}}}}}}
  server_advertise_condition = ${{if def:tls_in_cipher}}
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = <| Username: | Password:
  server_condition = ${{if and{{{{eq{{$auth1}}{{{user}}}}}{{eq{{$auth2}}{{{password}}}}}}}}}
  server_advertise_condition = ${{if def:tls_in_cipher}}
cram:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = ${{if eq{{$auth1}}{{{user}}}{{{password}}}fail}}
  server_advertise_condition = ${{if def:tls_in_cipher}}
"""


@pytest.fixture(scope="module")
def certificates() -> Iterator[Authority]:
    with authority() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def dovecot() -> Iterator[DovecotSasl]:
    with run_dovecot_sasl({USER: PASSWORD}) as server:
        yield server


Start = Callable[..., MailServer]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Starts servers as they are wanted, each kind once; they end with the module."""
    running: dict[str, MailServer] = {}
    with ExitStack() as stack:

        def get(name: str, run: Callable[[], object]) -> MailServer:
            if name not in running:
                running[name] = stack.enter_context(run())  # type: ignore[arg-type]
            return running[name]

        yield get


@pytest.fixture(scope="module")
def postfix_with(start: Start, dovecot: DovecotSasl, certificates: Authority) -> Callable[..., MailServer]:
    """A Postfix that offers STARTTLS, and logins over it; with a flawed certificate, or further settings."""

    def get(flaw: str = "", **settings: str) -> MailServer:
        certificate, key = certificates.issue(flaw)
        chosen = {
            **dovecot.settings,
            "smtpd_tls_security_level": "may",
            "smtpd_tls_cert_file": str(certificate),
            "smtpd_tls_key_file": str(key),
            **settings,
        }
        return start(f"postfix {flaw} {sorted(settings.items())}", lambda: run_postfix(chosen))

    return get


@pytest.fixture(scope="module")
def exim_with(start: Start, certificates: Authority) -> Callable[..., MailServer]:
    """An Exim that offers STARTTLS, and logins over it."""

    def get(**settings: str) -> MailServer:
        certificate, key = certificates.issue()
        chosen = {
            "tls_advertise_hosts": "*",
            "tls_certificate": str(certificate),
            "tls_privatekey": str(key),
            **settings,
        }
        logins = EXIM_LOGINS.format(user=USER, password=PASSWORD.replace(",", r"\,"))
        return start(f"exim {sorted(settings.items())}", lambda: run_exim(chosen, authenticators=logins))

    return get


def relay_at(port: int, certificates: Authority, *, scheme: str = "smtp", query: str = "") -> Relay:
    return Relay.parse(f"{scheme}://localhost:{port}?ca_file={certificates.ca_file}{query}")


async def refusal(relay: Relay, credentials: Credentials | None) -> Reply | Fault:
    with pytest.raises(SessionRefused) as caught:
        await Single.to(relay, credentials, tls_context=None)
    return caught.value.event


async def send_one(
    relay: Relay, credentials: Credentials | None, message: Message, monkeypatch: pytest.MonkeyPatch, only: str = ""
) -> None:
    """Opens a session, where `only` this mechanism counts as offered, and sends a message."""
    if only:
        from bulkmail.smtp import opening

        def parse(lines: list[str]) -> object:
            capabilities = parse_capabilities(lines)
            assert not capabilities.auth_mechanisms or only in capabilities.auth_mechanisms
            return replace(capabilities, auth_mechanisms=(only,) if capabilities.auth_mechanisms else ())

        parse_capabilities = opening.parse_capabilities
        monkeypatch.setattr(opening, "parse_capabilities", parse)
    session = await Single.to(relay, credentials, tls_context=None)
    try:
        event = await session.transact(message, lambda done: done(None))
        assert isinstance(event, Reply)
        assert event.is_positive, event
        await session.quit()
    finally:
        session.abort()


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_postfix_with_dovecot_takes_each_login(
    mechanism: str,
    postfix_with: Callable[..., MailServer],
    dovecot: DovecotSasl,
    certificates: Authority,
    make_message: Callable[..., Message],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = postfix_with(smtpd_client_restrictions="permit_sasl_authenticated, reject")
    who = ANN
    if mechanism in ("XOAUTH2", "OAUTHBEARER"):
        token = AccessToken(Secret(dovecot.token(USER)))
        who = Credentials(USER, tokens=Tokens(lambda: token))
    await send_one(relay_at(server.port, certificates), who, make_message(), monkeypatch, only=mechanism)
    assert f"sasl_method={mechanism}, sasl_username={USER}" in server.tail(100)


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_postfix_with_dovecot_refuses_each_wrong_login(
    mechanism: str,
    postfix_with: Callable[..., MailServer],
    dovecot: DovecotSasl,
    certificates: Authority,
    make_message: Callable[..., Message],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetched = []

    def fetch() -> AccessToken:
        fetched.append(1)
        return AccessToken(Secret(dovecot.token(USER, lifetime=-60 * len(fetched))))

    wrong = Credentials(USER, Secret("wrong"))
    if mechanism in ("XOAUTH2", "OAUTHBEARER"):
        wrong = Credentials(USER, tokens=Tokens(fetch))
    server = postfix_with(smtpd_client_restrictions="permit_sasl_authenticated, reject")
    with pytest.raises(SessionRefused) as caught:
        await send_one(relay_at(server.port, certificates), wrong, make_message(), monkeypatch, only=mechanism)
    assert isinstance(caught.value.event, Reply)
    assert (caught.value.event.stage, caught.value.event.code) == (Stage.AUTH, 535)
    assert len(fetched) in (0, 2)  # a refused token is renewed once


async def test_expired_token_is_renewed_and_taken(
    postfix_with: Callable[..., MailServer], dovecot: DovecotSasl, certificates: Authority
) -> None:
    answers = [dovecot.token(USER), dovecot.token(USER, lifetime=-60)]
    tokens = Tokens(lambda: AccessToken(Secret(answers.pop())))
    relay = relay_at(postfix_with().port, certificates)
    session = await Single.to(relay, Credentials(USER, tokens=tokens), tls_context=None)
    await session.quit()
    assert answers == []


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
async def test_exim_takes_each_login(
    mechanism: str,
    scheme: str,
    exim_with: Callable[..., MailServer],
    certificates: Authority,
    make_message: Callable[..., Message],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = exim_with(**({"tls_on_connect_ports": "PORT"} if scheme == "smtps" else {}))
    relay = relay_at(server.port, certificates, scheme=scheme)
    await send_one(relay, ANN, make_message(), monkeypatch, only=mechanism)
    who = {"PLAIN": "plain", "LOGIN": "login", "CRAM-MD5": "cram"}[mechanism]
    assert f"A={who}" in server.tail(100)


async def test_exim_refuses_a_wrong_password(exim_with: Callable[..., MailServer], certificates: Authority) -> None:
    event = await refusal(relay_at(exim_with().port, certificates), Credentials(USER, Secret("wrong")))
    assert isinstance(event, Reply)
    assert (event.stage, event.code) == (Stage.AUTH, 535)


async def test_postfix_over_implicit_tls(
    postfix_with: Callable[..., MailServer],
    certificates: Authority,
    make_message: Callable[..., Message],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = postfix_with(smtpd_tls_wrappermode="yes")
    relay = relay_at(server.port, certificates, scheme="smtps")
    await send_one(relay, ANN, make_message(), monkeypatch)
    assert "sasl_method=SCRAM-SHA-256" in server.tail(100)


# Certificates of ours


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
@pytest.mark.parametrize("name", ["postfix", "exim"])
async def test_server_that_wants_a_certificate_is_shown_one(
    name: str,
    scheme: str,
    postfix_with: Callable[..., MailServer],
    exim_with: Callable[..., MailServer],
    certificates: Authority,
    make_message: Callable[..., Message],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if name == "postfix":
        wanting = {
            "smtpd_tls_security_level": "encrypt",
            "smtpd_tls_CAfile": str(certificates.ca_file),
            "smtpd_tls_req_ccert": "yes",
        }
        server = postfix_with(**wanting, **({"smtpd_tls_wrappermode": "yes"} if scheme == "smtps" else {}))
    else:
        wanting = {"tls_verify_certificates": str(certificates.ca_file), "tls_verify_hosts": "*"}
        server = exim_with(**wanting, **({"tls_on_connect_ports": "PORT"} if scheme == "smtps" else {}))
    certificate, key = certificates.issue_for("shop@example.com")
    query = f"&client_certificate={certificate}&client_key={key}"
    relay = relay_at(server.port, certificates, scheme=scheme)
    shown = relay_at(server.port, certificates, scheme=scheme, query=query)
    await send_one(shown, ANN, make_message(), monkeypatch)
    event = await refusal(relay, ANN)
    if name == "exim":
        assert isinstance(event, Fault)
        assert "wants a certificate of ours and was shown none" in event.what
    else:
        assert str(event) == "421 4.7.1 postfix.test Error: No client certificate presented"


# Who is in between


@pytest.mark.parametrize("flaw", ["wrong name", "expired", "self-signed"])
@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
async def test_nothing_leaves_for_a_server_that_cannot_be_trusted(
    flaw: str, scheme: str, postfix_with: Callable[..., MailServer], certificates: Authority
) -> None:
    server = postfix_with(flaw, **({"smtpd_tls_wrappermode": "yes"} if scheme == "smtps" else {}))
    async with forwarding(server.port) as recording:
        words = await send_campaign(recording.port, certificates, scheme)
    expected = {"wrong name": "is for another name", "expired": "has expired", "self-signed": "from an issuer unknown"}
    assert expected[flaw] in words
    assert_nothing_left(bytes(recording.from_client))


@pytest.mark.parametrize("answer", ["stripped", "refused", "hidden"])
async def test_nothing_leaves_where_starttls_is_stripped(
    answer: str, postfix_with: Callable[..., MailServer], certificates: Authority
) -> None:
    def change(data: bytes) -> bytes:
        if answer == "stripped":
            return data.replace(b"250-STARTTLS\r\n", b"250-AUTH PLAIN LOGIN\r\n")
        if answer == "hidden":
            return data.replace(b"250-STARTTLS\r\n", b"250-XXXXXXXA\r\n")
        return data.replace(b"220 2.0.0 Ready to start TLS", b"454 4.7.0 TLS not available")

    async with forwarding(postfix_with().port, change=change) as recording:
        words = await send_campaign(recording.port, certificates, "smtp")
    assert "STARTTLS" in words or "TLS not available" in words
    assert_nothing_left(bytes(recording.from_client))
    assert b"STARTTLS" in recording.from_server


async def test_forwarder_shows_what_leaves_where_nothing_hides_it(
    postfix_with: Callable[..., MailServer], certificates: Authority
) -> None:
    """That the two tests above could fail."""
    async with forwarding(postfix_with().port) as recording:
        await bulkmail.send(
            MESSAGE, PEOPLE, relay=f"smtp://localhost:{recording.port}?tls=off", pace=bulkmail.Pace(wait=0.0)
        )
    with pytest.raises(AssertionError):
        assert_nothing_left(bytes(recording.from_client))


MESSAGE = bulkmail.compose(from_="Shop <shop@sender.example>", subject="Hello", text="We are open.")
PEOPLE = [{"email": "bob@recipient.example"}]


async def send_campaign(port: int, certificates: Authority, scheme: str) -> str:
    """Sends a message with a password through `port`; the words with which that stops."""
    url = f"{scheme}://ann%40login.example@localhost:{port}?ca_file={certificates.ca_file}"
    with pytest.raises(bulkmail.BulkmailError) as caught:
        await bulkmail.send(MESSAGE, PEOPLE, relay=url, password=PASSWORD, pace=bulkmail.Pace(patience=0.0, wait=0.0))
    assert PASSWORD not in str(caught.value)
    return str(caught.value)


def assert_nothing_left(seen: bytes) -> None:
    """No word of login or envelope, in clear text or in base64; TLS begins with a record and hides nothing here."""
    assert seen
    lines = re.match(rb"(?:[A-Z]+(?: [^\r\n]*)?\r\n)*", seen)
    assert lines is not None
    verbs = [line.split()[0] for line in lines[0].split(b"\r\n") if line]
    assert set(verbs) <= {b"EHLO", b"STARTTLS", b"QUIT"}
    texts = [PASSWORD, "ann@login.example", "login.example", "sender.example", "recipient.example", "We are open"]
    for text in texts:
        raw = text.encode()
        assert raw not in seen
        for shift in range(3):  # where it may stand within groups of three bytes
            inner = base64.b64encode(b"\0" * shift + raw)[4:-4]
            assert inner not in seen
    assert b"AUTH" not in seen
