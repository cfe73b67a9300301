"""Looking at a relay: what it finds out, in which words it fails, and that it never sends anything."""

from __future__ import annotations

import asyncio
import datetime
import json
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import example, given
from hypothesis import strategies as st

from bulkmail.checks.relay_trouble import RelayTrouble, explain, trouble_with
from bulkmail.cli.relay_table import WIDTH, as_table, to_json
from bulkmail.model.outcome import Breakage, Fault, Reply, Stage
from bulkmail.model.recipient import Address, has_control
from bulkmail.model.relay import Relay, Secret
from bulkmail.probe.certificate import read_certificate
from bulkmail.probe.relay_probe import Clue, Login, Obstacle, RelayFacts, guess, look_at
from bulkmail.settings.presets import known_feedback
from bulkmail.smtp.credentials import Credentials
from bulkmail.smtp.dialling import Tried
from bulkmail.smtp.opening import Timeouts
from bulkmail.smtp.peer_policy import Mode
from bulkmail.testing import Drop, Hang, ScriptedRelay
from tests.servers.kept import UNKNOWN, MailServer

PASSWORD = "Canary-7"
ANN = Credentials("ann", Secret(PASSWORD))
SHOP = Address.parse("shop@example.com")
BOB = Address.parse("bob@example.net")
FEEDBACK = known_feedback()  # read before any loop runs
HASTY = Timeouts(connect=2, greeting=0.2, ehlo=1, mail=1, quit=1)
PIPED = ("PIPELINING", "SIZE 1000000", "", "8BITMIME", "limits RCPTMAX=5 MAILMAX XYZ=1")

AUTHORITY = trustme.CA()


@pytest.fixture(scope="module")
def ca_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(str(path))
    return path


def secure(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def trouble_of(facts: RelayFacts) -> RelayTrouble:
    found = trouble_with(facts)
    assert found is not None
    return found


async def look(
    relay: ScriptedRelay, query: str = "tls=off", *, user: str = "", scheme: str = "smtp", **asked: Any
) -> RelayFacts:
    where = Relay.parse(f"{scheme}://{user}localhost:{relay.port}?{query}")
    return await look_at(where, asked.pop("credentials", None), **{"timeouts": HASTY, "feedback": FEEDBACK, **asked})


def never_sends(relay: ScriptedRelay) -> bool:
    return not relay.messages and not {"DATA", "BDAT"} & {command.split(" ")[0] for command in relay.commands}


# What is found out


async def test_relay_that_is_fine(ca_file: Path) -> None:
    context = secure(AUTHORITY.issue_cert("localhost"))
    async with ScriptedRelay(tls=context, auth={"ann": PASSWORD}, extensions=PIPED) as relay:
        facts = await look(relay, f"ca_file={ca_file}", user="ann@", credentials=ANN, sender=SHOP, recipient=BOB)
        assert relay.auth_attempts == 1
        assert never_sends(relay)
        assert relay.violations == []
        assert relay.commands[-4:] == ["MAIL FROM:<shop@example.com>", "RCPT TO:<bob@example.net>", "RSET", "QUIT"]
    assert facts.is_usable and facts.obstacle is None
    assert [tried.address for tried in facts.addresses if not tried.error] == ["127.0.0.1"] == [facts.connected_to]
    assert facts.tls_version in ("TLSv1.2", "TLSv1.3") and facts.cipher
    assert facts.certificate is not None and facts.certificate.names == ("localhost",)
    assert not facts.certificate.is_self_signed
    assert (facts.server, facts.mechanism, facts.login) == ("relay.test", "PLAIN", Login.WORKS)
    assert facts.limits == (("RCPTMAX", "5"), ("XYZ", "1"))
    assert facts.mode is Mode.PIPELINING and facts.probe_passed is None
    assert facts.round_trip is not None and 0 < facts.round_trip < 1
    assert facts.sender == Reply(Stage.MAIL, 250, "2.1.0", "sender ok")
    assert facts.recipient == Reply(Stage.RCPT, 250, "2.1.5", "recipient ok")
    for reported in (repr(facts), as_table(facts), to_json(facts)):
        assert PASSWORD not in reported


@pytest.mark.slow
@pytest.mark.parametrize("server", ["postfix", "exim"])
async def test_real_server(server: str, request: pytest.FixtureRequest) -> None:
    real: MailServer = request.getfixturevalue(server)
    facts = await look_at(Relay.parse(real.url), None, feedback=FEEDBACK, sender=SHOP, recipient=BOB)
    assert facts.is_usable, facts.obstacle
    assert facts.mode is Mode.DEEP and facts.probe_passed
    assert facts.recipient is not None and facts.recipient.is_positive
    facts = await look_at(
        Relay.parse(real.url),
        None,
        feedback=FEEDBACK,
        sender=SHOP,
        recipient=Address.parse(f"{UNKNOWN}@example.net"),
    )
    assert facts.recipient is not None and facts.recipient.code == 550
    assert trouble_of(facts).what == "The server does not deliver to the recipient."
    assert trouble_of(facts).words.startswith("550 ")
    assert real.count() == 0


async def test_server_that_takes_a_chunk_for_commands_fails_the_probe() -> None:
    """The scripted relay knows no BDAT, so it answers 500, 500 and 250."""
    async with ScriptedRelay(extensions=("PIPELINING", "CHUNKING")) as relay:
        facts = await look(relay)
    assert facts.is_usable
    assert (facts.mode, facts.probe_passed) == (Mode.PIPELINING, False)


async def test_late_greeting_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from bulkmail.testing import Late

    monkeypatch.setattr("bulkmail.probe.relay_probe._FIRST_PATIENCE", 0.05)
    monkeypatch.setattr("bulkmail.probe.relay_probe._GLANCE", 0.05)
    async with ScriptedRelay(greeting=lambda _: Late(0.3, "220 at last")) as relay:
        facts = await look(relay, timeouts=Timeouts(greeting=5))
    assert facts.is_usable, facts.obstacle


# What stands in the way


async def test_no_password_is_found() -> None:
    async with ScriptedRelay(auth={"ann": PASSWORD}) as relay:
        facts = await look(relay, "tls=off&auth=plaintext", user="ann@")
        assert relay.auth_attempts == 0
    assert (facts.login, facts.mechanism) == (Login.NO_PASSWORD, "PLAIN")
    assert trouble_with(facts) == RelayTrouble(
        "No password was found, so the login was not tried.",
        "Set BULKMAIL_PASSWORD, or write password_file or password_command into [relay].",
    )


WRONG = "The server refused the login."
APP = "The server wants an app password here, not the password of the account."
MICROSOFT = "The server has switched off logins with a password for this account."


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        ("535 5.7.8 wrong user or password", WRONG),
        ("534-5.7.9 Application-specific password required. Learn more at\n534 5.7.9 https://support.example", APP),
        ("535-5.7.8 Username and Password not accepted.\n535 5.7.8 https://x.example/?p=BadCredentials", APP),
        ("534 5.7.14 Please log in via your web browser", "The server wants you to sign in with a browser first."),
        ("535 5.7.139 Authentication unsuccessful, basic authentication is disabled.", MICROSOFT),
        ("535 5.7.139 SmtpClientAuthentication is disabled for the Mailbox.", MICROSOFT),
        (
            "535 5.7.139 Authentication unsuccessful, the user credentials were incorrect.",
            WRONG,
        ),
        ("454 4.7.0 Temporary authentication failure", "The server cannot check the password at the moment."),
        (
            "454 4.7.0 Too many login attempts",
            "The server has seen too many logins and takes none for now.",
        ),
    ],
)
async def test_login_is_refused(answer: str, what: str) -> None:
    async with ScriptedRelay(auth={"ann": PASSWORD}, login=answer) as relay:
        facts = await look(relay, "tls=off&auth=plaintext", user="ann@", credentials=ANN, sender=SHOP)
        assert relay.auth_attempts == 1
    assert facts.login is Login.REFUSED
    assert trouble_of(facts).what == what
    assert trouble_of(facts).fix and trouble_of(facts).words.startswith(answer[:3])


async def test_nothing_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        facts = await look_at(Relay.parse(f"smtp://127.0.0.1:{port}"), None, feedback=FEEDBACK, timeouts=HASTY)
    assert facts.addresses == (Tried("127.0.0.1", kind=Breakage.REFUSED, error="connection refused"),)
    assert trouble_with(facts) == RelayTrouble(
        f"Nothing is listening at 127.0.0.1 port {port}: there is a machine, but no mail server at this port.",
        "Check the port: 587 and 465 are usual.",
    )


async def test_every_address_is_shown_and_one_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    async def both(host: str, port: int) -> list[Any]:
        return [
            (family, socket.SOCK_STREAM, 6, "", (name, port, *more))
            for family, name, more in ((socket.AF_INET6, "::1", (0, 0)), (socket.AF_INET, "127.0.0.1", ()))
        ]

    monkeypatch.setattr("bulkmail.smtp.dialling.look_up", both)
    async with ScriptedRelay() as relay:
        facts = await look(relay)
    assert facts.is_usable
    assert [(tried.address, tried.kind is None) for tried in facts.addresses] == [("::1", False), ("127.0.0.1", True)]
    assert "Address      ::1: connection refused\n             127.0.0.1 answered in " in as_table(facts)


async def test_name_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(host: str, port: int) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("bulkmail.smtp.dialling.look_up", fail)
    facts = await look_at(Relay.parse("smtp://mail.exmaple.com"), None, feedback=FEEDBACK)
    assert as_table(facts) == (
        "smtp://mail.exmaple.com:587\n\nNot usable: There is no host of the name mail.exmaple.com.\n"
        "  Check the spelling; the provider's help page names its SMTP server.\n"
    )


async def test_tls_where_it_begins_in_clear_text() -> None:
    async with ScriptedRelay(tls=secure(AUTHORITY.issue_cert("localhost"))) as relay:
        facts = await look(relay, "", scheme="smtps", user="ann@", credentials=ANN)
        assert relay.auth_attempts == 0
    assert trouble_with(facts) == RelayTrouble(
        f"localhost port {relay.port} begins without TLS, and was spoken to with TLS from the first byte.",
        f"Write smtp://ann@localhost:{relay.port}, which goes over to TLS before anything is said.",
    )


async def test_clear_text_where_tls_is_spoken_from_the_first_byte() -> None:
    async with ScriptedRelay(tls=secure(AUTHORITY.issue_cert("localhost")), implicit=True) as relay:
        facts = await look(relay, "")
    assert trouble_with(facts) == RelayTrouble(
        f"localhost port {relay.port} speaks TLS from the first byte, and was spoken to without.",
        f"Write smtps://localhost:{relay.port}",
    )


@pytest.mark.parametrize(
    ("first", "name"), [(b"* OK ready\r\n", "IMAP"), (b"+OK ready\r\n", "POP3"), (b"SSH-2.0-x\r\n", "SSH")]
)
async def test_port_of_another_service(first: bytes, name: str) -> None:
    async with ScriptedRelay(greeting=lambda _: first) as relay:
        facts = await look(relay, "")
    assert trouble_of(facts).what == f"localhost port {relay.port} is not a mail relay: it speaks {name}."


async def test_server_without_starttls() -> None:
    async with ScriptedRelay() as relay:
        facts = await look(relay, "", user="ann@", credentials=ANN)
        assert relay.commands == [relay.commands[0]] and relay.commands[0].startswith("EHLO")
    assert trouble_of(facts).what == (
        f"localhost port {relay.port} offers no encryption (STARTTLS), so everything would go in clear text."
    )
    assert "smtps://ann@localhost:465" in trouble_of(facts).fix


YESTERDAY = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)


@pytest.mark.parametrize(
    ("certificate", "what"),
    [
        pytest.param(
            AUTHORITY.issue_cert("mail.provider.example"),
            "The certificate that localhost shows is for mail.provider.example, not for localhost.",
            id="another name",
        ),
        pytest.param(
            AUTHORITY.issue_cert("localhost", not_after=YESTERDAY),
            f"The certificate of localhost expired on {YESTERDAY:%Y-%m-%d}.",
            id="expired",
        ),
        pytest.param(
            trustme.CA(organization_name="Own House").issue_cert("localhost"),
            "The certificate of localhost is from Own House, which is unknown on this computer.",
            id="unknown issuer",
        ),
    ],
)
@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
async def test_certificate_that_is_not_good(
    certificate: trustme.LeafCert, what: str, scheme: str, ca_file: Path
) -> None:
    async with ScriptedRelay(tls=secure(certificate), implicit=scheme == "smtps", auth={"ann": PASSWORD}) as relay:
        facts = await look(relay, f"ca_file={ca_file}", scheme=scheme, user="ann@", credentials=ANN, sender=SHOP)
        assert relay.auth_attempts == 0
        assert not any(command.startswith("MAIL") for command in relay.commands)
    assert trouble_of(facts).what == what
    assert facts.certificate is not None


async def test_certificate_vouched_for_by_itself(tmp_path: Path, ca_file: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*self_signed(tmp_path))
    async with ScriptedRelay(tls=context) as relay:
        facts = await look(relay, f"ca_file={ca_file}")
    assert facts.certificate is not None and facts.certificate.is_self_signed
    assert trouble_with(facts) == RelayTrouble(
        "The certificate of localhost is self-signed.",
        "If the server is yours, name its certificate: add ?ca_file=FILE to the URL; else do not use it.",
    )


def self_signed(folder: Path) -> tuple[Path, Path]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=9))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.mark.parametrize(
    ("scripts", "what"),
    [
        ({"mail": "553 5.7.1 not yours"}, "The server refuses the sender."),
        ({"mail": "530 5.7.0 log in first"}, "The server takes mail only after a login or TLS."),
        ({"rcpt": "550 5.7.1 relaying denied"}, "The server does not deliver to the recipient."),
        ({"rcpt": "450 4.2.0 greylisted"}, "The server does not deliver to the recipient just now."),
        ({"greeting": "554 5.3.2 no service"}, "localhost answers, but refuses to talk to us."),
        ({"greeting": "421 4.3.2 too busy"}, "localhost is there, but takes no mail at the moment."),
    ],
)
async def test_server_refuses(scripts: dict[str, str], what: str) -> None:
    async with ScriptedRelay(**scripts) as relay:  # type: ignore[arg-type]
        facts = await look(relay, sender=SHOP, recipient=BOB)
        assert never_sends(relay)
    (answer,) = scripts.values()
    assert (trouble_of(facts).what, trouble_of(facts).words) == (what, answer)


async def test_refusal_in_words_of_one_provider_gets_the_advice_that_a_run_gives() -> None:
    async with ScriptedRelay(rcpt="554 smtpport check error.") as relay:
        facts = await look(relay, sender=SHOP, recipient=BOB)
    assert "reverse DNS name" in trouble_of(facts).fix


@pytest.mark.parametrize("step", ["greeting", "ehlo", "mail", "rset"])
@pytest.mark.parametrize("behaviour", [Drop(), Hang(), b"\x1b[2J\xff\r\n"], ids=["drop", "hang", "rubbish"])
async def test_server_that_breaks_is_reported_and_not_raised(step: str, behaviour: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("bulkmail.probe.relay_probe._GLANCE", 0.1)
    scripts: dict[str, Any] = {step: (lambda _: behaviour)}
    async with ScriptedRelay(**scripts) as relay:
        facts = await look(relay, sender=SHOP, timeouts=Timeouts(greeting=0.1, ehlo=0.1, mail=0.1, quit=0.1))
        await asyncio.sleep(0.01)
    assert f"localhost port {relay.port}" in trouble_of(facts).what
    assert trouble_of(facts).fix


@pytest.mark.parametrize(
    ("fault", "port", "trouble"),
    [
        (
            Fault(Stage.CONNECT, Breakage.TIMEOUT, "x"),
            25,
            RelayTrouble(
                "m.example port 25 does not answer.  Most internet providers block port 25 for their customers.",
                "Use port 587: smtp://m.example:587",
            ),
        ),
        (
            Fault(Stage.CONNECT, Breakage.TIMEOUT, "x"),
            587,
            RelayTrouble(
                "m.example port 587 does not answer.",
                "Check host and port, and whether a firewall is in between; 587 and 465 are the usual ports.",
            ),
        ),
        (
            Fault(Stage.CONNECT, Breakage.NO_SUCH_HOST, "x"),
            587,
            RelayTrouble(
                "There is no host of the name m.example.",
                "Check the spelling; the provider's help page names its SMTP server.",
            ),
        ),
        (
            Fault(Stage.CONNECT, Breakage.UNREACHABLE, "x"),
            587,
            RelayTrouble(
                "m.example port 587 cannot be reached from here.",
                "Check this computer's network, and whether a firewall is in between.",
            ),
        ),
    ],
)
def test_no_one_answers(fault: Fault, port: int, trouble: RelayTrouble) -> None:
    assert (
        explain(fault, Relay.parse(f"smtp://m.example:{port}"), reason=FEEDBACK.decide(fault).verdict.reason) == trouble
    )


@pytest.mark.parametrize(
    ("first", "clue"),
    [
        (b"220 hello", Clue.CLEAR),
        (b"\x15\x03\x01\x00\x02\x02\x46", Clue.TLS),
        (b"", Clue.NOTHING),
        (b"HTTP/1.1 400", Clue.OTHER),
    ],
)
def test_first_bytes_report_what_is_spoken(first: bytes, clue: Clue) -> None:
    assert guess(first) is clue


@given(st.binary(max_size=400))
def test_certificate_of_any_bytes_is_read_or_none(der: bytes) -> None:
    assert read_certificate(der) is None


# How it is shown


@pytest.mark.slow
@given(st.lists(st.text(max_size=120), max_size=5), st.text(max_size=200), st.integers(0, 10**18))
@example([], "0" * 79, 0)
def test_table_is_printable_and_80_columns_wide_whatever_the_server_says(
    lines: list[str], words: str, size: int
) -> None:
    from bulkmail.model.outcome import make_reply
    from bulkmail.smtp.replies import parse_capabilities
    from bulkmail.text import printable

    reply = make_reply(Stage.MAIL, 550, [words])
    relay = Relay.parse("smtp://ann@mail.example.com:587")
    facts = RelayFacts(
        relay,
        addresses=(Tried("127.0.0.1", 0.01), Tried("::1", kind=Breakage.UNREACHABLE, error="no route to host")),
        server=printable(words),
        extensions=tuple(printable(line, 100) for line in lines),
        capabilities=parse_capabilities(["x", *lines, f"SIZE {size}"]),
        mode=Mode.DEEP,
        round_trip=0.0123,
        sender=reply,
        obstacle=Obstacle(
            reply, FEEDBACK.decide(reply).verdict.reason, Clue.NOTHING, datetime.datetime.now(datetime.UTC)
        ),
    )
    shown = as_table(facts)
    assert all(not has_control(line) and len(line) <= WIDTH for line in shown.splitlines())
    assert json.loads(to_json(facts))["sender"]["code"] == 550
