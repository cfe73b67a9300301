"""Opening a session: what is said, what is not, and in which words it fails."""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkmail.model.delivery import Message
from bulkmail.model.errors import ConfigError
from bulkmail.model.outcome import Breakage, Fault, Reply, Stage
from bulkmail.model.recipient import has_control
from bulkmail.model.relay import Relay, Secret
from bulkmail.model.verdict import judge
from bulkmail.smtp.credentials import Credentials
from bulkmail.smtp.opening import Timeouts, make_tls_context, tls_breakage
from bulkmail.smtp.replies import SessionRefused
from bulkmail.testing import Drop, Hang, Late, Reset, ScriptedRelay
from bulkmail.testing.answers import Script
from tests.connections import Single

PATIENT = Timeouts()
PASSWORD = "correct horse battery staple"
ANN = Credentials("ann", Secret(PASSWORD))


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@pytest.fixture
def good_tls(authority: trustme.CA) -> ssl.SSLContext:
    return server_context(authority.issue_cert("localhost", "127.0.0.1"))


def url(relay: ScriptedRelay, query: str = "", *, scheme: str = "smtp", host: str = "localhost") -> str:
    return f"{scheme}://{host}:{relay.port}?{query}"


@asynccontextmanager
async def opened(
    where: str, credentials: Credentials | None = None, *, timeouts: Timeouts = PATIENT
) -> AsyncIterator[Single]:
    session = await Single.to(Relay.parse(where), credentials, tls_context=None, timeouts=timeouts)
    try:
        yield session
    finally:
        session.abort()
        await asyncio.sleep(0.01)


async def refused(where: str, credentials: Credentials | None = None, *, timeouts: Timeouts = PATIENT) -> Reply | Fault:
    with pytest.raises(SessionRefused) as caught:
        await Single.to(Relay.parse(where), credentials, tls_context=None, timeouts=timeouts)
    assert str(caught.value) == str(caught.value.event)
    await asyncio.sleep(0.01)
    return caught.value.event


# Clear text


async def test_opening_in_clear_text_says_only_hello() -> None:
    async with ScriptedRelay() as relay, opened(url(relay, "tls=off&ehlo=mail.example.org")) as session:
        assert session.usable
        assert session.capabilities.size_limit == 33_554_432
        assert session.capabilities.smtputf8
        assert not session.capabilities.pipelining
    assert relay.commands == ["EHLO mail.example.org"]
    assert relay.violations == []


async def test_old_server_is_greeted_with_helo() -> None:
    async with ScriptedRelay(ehlo="502 5.5.1 what") as relay, opened(url(relay, "tls=off")) as session:
        assert session.usable
        assert session.capabilities.size_limit is None
    assert [command[:4] for command in relay.commands] == ["EHLO", "HELO"]


@pytest.mark.parametrize(
    ("hostname", "expected"),
    [
        ("box.example.org", "box.example.org"),
        ("box", "[127.0.0.1]"),
        ("my box.example.org", "[127.0.0.1]"),
        ("-.-", "[127.0.0.1]"),
        ("box.example.org\r\nMAIL", "[127.0.0.1]"),
    ],
)
async def test_ehlo_name_is_ours_or_our_address(hostname: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: hostname)
    async with ScriptedRelay() as relay, opened(url(relay, "tls=off", host="127.0.0.1")):
        pass
    assert relay.commands == [f"EHLO {expected}"]


async def test_ehlo_name_that_is_none_is_refused_by_name() -> None:
    async with ScriptedRelay() as relay:
        with pytest.raises(ConfigError, match="ehlo='a b' is not the name of a host"):
            await Single.to(Relay.parse(url(relay, "tls=off&ehlo=a%20b")), None, tls_context=None)
        await asyncio.sleep(0.01)
    assert relay.commands == []


# No one there


@contextmanager
def unused_port() -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield probe.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_nothing_listens(host: str) -> None:
    with unused_port() as port:
        event = await refused(f"smtp://{host}:{port}?tls=off")
    assert event == Fault(Stage.CONNECT, Breakage.REFUSED, f"nothing is listening at {host} port {port}")


async def test_no_such_host(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_lookups_with(socket.gaierror(socket.EAI_NONAME, "Name or service not known"), monkeypatch)
    event = await refused("smtp://mail.exmaple.com?tls=off")
    assert event == Fault(Stage.CONNECT, Breakage.NO_SUCH_HOST, "there is no host of the name mail.exmaple.com")


async def test_name_lookup_out_of_order(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_lookups_with(socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), monkeypatch)
    event = await refused("smtp://mail.example.com?tls=off")
    assert isinstance(event, Fault)
    assert event.kind is Breakage.UNREACHABLE
    assert "mail.example.com cannot be looked up at the moment" in event.what


async def test_name_that_cannot_be_looked_up() -> None:
    event = await refused(f"smtp://{'a' * 64}.example?tls=off")
    assert isinstance(event, Fault)
    assert event.kind is Breakage.NO_SUCH_HOST


async def test_host_without_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(host: str, port: int) -> None:
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr("bulkmail.smtp.dialling.look_up", never)
    event = await refused("smtp://mail.example.com:25?tls=off", timeouts=Timeouts(connect=0.05))
    assert event == Fault(Stage.CONNECT, Breakage.TIMEOUT, "mail.example.com port 25 did not answer within 0.05 s")


def answer_lookups_with(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(host: str, port: int) -> list[object]:
        raise error

    monkeypatch.setattr("bulkmail.smtp.dialling.look_up", fail)


# Servers that do not behave


@pytest.mark.parametrize(
    ("greeting", "code"),
    [
        ("554 5.3.2 no service", 554),
        ("421 4.3.2 too many connections", 421),
        ("521 we take no mail", 521),
        ("450-4.3.2 not\n450 4.3.2 now", 450),
    ],
)
async def test_greeting_that_refuses(greeting: str, code: int) -> None:
    async with ScriptedRelay(greeting=greeting) as relay:
        event = await refused(url(relay, "tls=off"))
    assert isinstance(event, Reply)
    assert (event.stage, event.code) == (Stage.GREETING, code)
    assert relay.commands == []


@pytest.mark.parametrize(
    "greeting",
    [
        pytest.param("250 not a greeting", id="wrong 2xx"),
        pytest.param("354 hello", id="3xx"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="another protocol"),
        pytest.param(b"2_5 hello\r\n", id="malformed code"),
        pytest.param(b"220 hello\r\n250 and more\r\n", id="two replies"),
        pytest.param(b"220 hello\r\n25", id="a reply and a piece"),
        pytest.param(b"x" * 40_000, id="no end"),
    ],
)
async def test_greeting_that_is_none(greeting: Script) -> None:
    async with ScriptedRelay(greeting=greeting) as relay:
        event = await refused(url(relay, "tls=off"), timeouts=Timeouts(greeting=2))
    assert isinstance(event, Fault)
    assert (event.stage, event.kind) == (Stage.GREETING, Breakage.DESYNC)
    assert relay.commands == []


@pytest.mark.parametrize(("step", "stage"), [("greeting", Stage.GREETING), ("ehlo", Stage.EHLO), ("auth", Stage.AUTH)])
@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        pytest.param(Drop(), Breakage.LOST, id="drop"),
        pytest.param(Reset(), Breakage.LOST, id="reset"),
        pytest.param(Hang(), Breakage.TIMEOUT, id="hang"),
    ],
)
async def test_opening_breaks(step: str, stage: Stage, behaviour: Script, kind: Breakage) -> None:
    scripts: dict[str, Any] = {"login" if step == "auth" else step: behaviour}
    async with ScriptedRelay(auth={"ann": PASSWORD}, **scripts) as relay:
        event = await refused(url(relay, "tls=off&auth=plaintext"), ANN, timeouts=Timeouts(greeting=0.1, ehlo=0.1))
    assert isinstance(event, Fault)
    assert (event.stage, event.kind) == (stage, kind)
    assert f"localhost port {relay.port}" in event.what
    assert PASSWORD not in event.what


@pytest.mark.parametrize(("answer", "code"), [("421 4.3.2 closing", 421), ("450 4.7.1 not now", 450)])
async def test_ehlo_refused_for_now(answer: str, code: int) -> None:
    async with ScriptedRelay(ehlo=answer) as relay:
        event = await refused(url(relay, "tls=off"))
    assert isinstance(event, Reply)
    assert (event.stage, event.code) == (Stage.EHLO, code)


async def test_helo_refused_too() -> None:
    async with ScriptedRelay(ehlo="502 what", helo="550 5.7.1 no") as relay:
        event = await refused(url(relay, "tls=off"))
    assert event == Reply(Stage.EHLO, 550, "5.7.1", "no")


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"250 ok\r\n250 ok\r\n", id="two replies"),
        pytest.param(b"250 ok\r\n2", id="a reply and a piece"),
        pytest.param(b"250-a\r\n251 b\r\n", id="mixed codes"),
        pytest.param(b"354 go on\r\n", id="3xx"),
        pytest.param(b"299 odd\r\n", id="odd 2xx"),
        pytest.param(b"2_50 ok\r\n", id="malformed"),
    ],
)
async def test_ehlo_answer_out_of_order(answer: bytes) -> None:
    async with ScriptedRelay(ehlo=answer) as relay:
        event = await refused(url(relay, "tls=off"))
    assert isinstance(event, Fault)
    assert (event.stage, event.kind) == (Stage.EHLO, Breakage.DESYNC)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"250-here\r\n\r\n250-SIZE 1000\r\n250 8BITMIME\r\n", id="empty-line"),
        pytest.param(b"250-here\r\n251-SIZE 1000\r\n250 8BITMIME\r\n", id="mixed-codes"),
    ],
)
async def test_ehlo_answer_that_is_untidy_is_read(answer: bytes) -> None:
    async with ScriptedRelay(ehlo=answer) as relay, opened(url(relay, "tls=off")) as session:
        assert session.capabilities.size_limit == 1000
        assert session.capabilities.eight_bit_mime


@pytest.mark.parametrize(
    "greeting",
    [
        pytest.param(b"220-hello\r\n\r\n220-no spam here\r\n220 ESMTP\r\n", id="empty-line"),
        pytest.param(b"220-hello\n\n220 ESMTP\n", id="bare-line-ends"),
        pytest.param(b"220\r\n", id="no-text"),
    ],
)
async def test_greeting_that_is_untidy_is_read(greeting: bytes) -> None:
    async with ScriptedRelay(greeting=greeting) as relay, opened(url(relay, "tls=off")) as session:
        assert session.usable


_PIECES = st.lists(
    st.sampled_from(
        [b"220 hi\r\n", b"250-a\r\n", b"250 AUTH PLAIN\r\n", b"334 \r\n", b"235 in\r\n", b"421 bye\r\n", b"\xff\0"]
    )
    | st.binary(max_size=12),
    max_size=4,
).map(b"".join)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(_PIECES, _PIECES, _PIECES)
async def test_any_server_is_refused_or_opened(greeting: bytes, hello: bytes, login: bytes) -> None:
    async with ScriptedRelay(greeting=greeting, ehlo=hello, login=login, auth={"ann": PASSWORD}) as relay:
        where = Relay.parse(url(relay, "tls=off&auth=plaintext", host="127.0.0.1"))
        try:
            session = await Single.to(where, ANN, tls_context=None, timeouts=Timeouts(greeting=0.02, ehlo=0.02))
        except SessionRefused as refusal:
            assert not has_control(str(refusal))
        else:
            assert greeting.startswith(b"220")
            session.abort()
        await asyncio.sleep(0)


# TLS


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
async def test_session_over_tls(
    scheme: str, good_tls: ssl.SSLContext, ca_file: Path, make_message: Callable[..., Message]
) -> None:
    content = (b"x" * 76 + b"\r\n") * 20_000
    async with (
        ScriptedRelay(tls=good_tls, implicit=scheme == "smtps", auth={"ann": PASSWORD}) as relay,
        opened(url(relay, f"ca_file={ca_file}", scheme=scheme), ANN) as session,
    ):
        for _ in range(3):
            event = await session.transact(make_message(content), lambda done: done(None))
            assert isinstance(event, Reply)
            assert event.is_positive
        await session.quit()
    assert [taken.content for taken in relay.messages] == [content] * 3
    verbs = [command.split()[0] for command in relay.commands]
    opening = ["EHLO", "STARTTLS", "EHLO", "AUTH"] if scheme == "smtp" else ["EHLO", "AUTH"]
    assert verbs[: len(opening)] == opening
    assert verbs[-1] == "QUIT"
    assert relay.violations == []


async def test_context_is_made_once_and_shared(good_tls: ssl.SSLContext, ca_file: Path) -> None:
    async with ScriptedRelay(tls=good_tls) as server:
        relay = Relay.parse(url(server, f"ca_file={ca_file}"))
        context = make_tls_context(relay)
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        for _ in range(2):
            session = await Single.to(relay, None, tls_context=context)
            await session.quit()
    assert server.sessions == 2


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
@pytest.mark.parametrize(
    ("flaw", "words"),
    [
        ("wrong name", "is for another name"),
        ("unknown issuer", "from an issuer unknown here"),
        ("self-signed", "vouched for only by itself"),
        ("expired", "has expired"),
        ("not yet valid", "is not valid yet"),
    ],
)
async def test_untrusted_certificate(
    scheme: str, flaw: str, words: str, authority: trustme.CA, ca_file: Path, tmp_path: Path
) -> None:
    context = flawed_context(flaw, authority, tmp_path)
    async with ScriptedRelay(tls=context, implicit=scheme == "smtps", auth={"ann": PASSWORD}) as relay:
        event = await refused(url(relay, f"ca_file={ca_file}", scheme=scheme), ANN)
    assert isinstance(event, Fault)
    assert event.kind is (Breakage.WRONG_NAME if flaw == "wrong name" else Breakage.UNTRUSTED)
    assert event.stage is (Stage.STARTTLS if scheme == "smtp" else Stage.CONNECT)
    assert "localhost" in event.what
    assert words in event.what
    assert relay.auth_attempts == 0
    assert [command for command in relay.commands if command.startswith(("AUTH", "MAIL"))] == []


def flawed_context(flaw: str, authority: trustme.CA, folder: Path) -> ssl.SSLContext:
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    match flaw:
        case "wrong name":
            return server_context(authority.issue_cert("mail.example.com"))
        case "unknown issuer":
            return server_context(trustme.CA().issue_cert("localhost"))
        case "expired":
            return server_context(authority.issue_cert("localhost", not_after=now - day, not_before=now - 2 * day))
        case "not yet valid":
            return server_context(authority.issue_cert("localhost", not_before=now + day, not_after=now + 2 * day))
        case _:
            return self_signed_context(folder)


def self_signed_context(folder: Path) -> ssl.SSLContext:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "self.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


async def test_starttls_stripped_gives_nothing_away() -> None:
    async with ScriptedRelay(auth={"ann": PASSWORD}) as relay:
        event = await refused(url(relay), ANN)
    assert isinstance(event, Fault)
    assert (event.stage, event.kind) == (Stage.STARTTLS, Breakage.NO_TLS)
    assert "does not offer STARTTLS" in event.what
    assert [command.split()[0] for command in relay.commands] == ["EHLO"]


async def test_old_server_without_tls_is_refused() -> None:
    async with ScriptedRelay(ehlo="502 what") as relay:
        event = await refused(url(relay))
    assert isinstance(event, Fault)
    assert event.kind is Breakage.NO_TLS


@pytest.mark.parametrize("query", ["tls=opportunistic&", ""])
@pytest.mark.parametrize("answer", ["454 4.7.0 TLS not available now", "501 5.5.4 no"])
async def test_refused_starttls_is_not_followed_by_clear_text(
    query: str, answer: str, good_tls: ssl.SSLContext, ca_file: Path
) -> None:
    async with ScriptedRelay(tls=good_tls, starttls=answer) as relay:
        event = await refused(url(relay, f"{query}ca_file={ca_file}"))
    assert isinstance(event, Reply)
    assert (event.stage, event.code) == (Stage.STARTTLS, int(answer[:3]))
    assert [command.split()[0] for command in relay.commands] == ["EHLO", "STARTTLS"]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"220 go\r\n250 injected\r\n", id="a whole reply"),
        pytest.param(b"220 go\r\n250-", id="a piece"),
        pytest.param(b"220 go\r\n\r\n", id="an empty line"),
    ],
)
async def test_bytes_after_the_220_of_starttls_abort(answer: bytes, good_tls: ssl.SSLContext, ca_file: Path) -> None:
    async with ScriptedRelay(tls=good_tls, starttls=answer) as relay:
        event = await refused(url(relay, f"ca_file={ca_file}"))
    assert isinstance(event, Fault)
    assert (event.stage, event.kind) == (Stage.STARTTLS, Breakage.DESYNC)
    assert [command.split()[0] for command in relay.commands] == ["EHLO", "STARTTLS"]


@pytest.mark.parametrize("behaviour", [Drop(), Reset()])
async def test_connection_lost_at_starttls(behaviour: Script, good_tls: ssl.SSLContext, ca_file: Path) -> None:
    async with ScriptedRelay(tls=good_tls, starttls=behaviour) as relay:
        event = await refused(url(relay, f"ca_file={ca_file}"))
    assert isinstance(event, Fault)
    assert (event.stage, event.kind) == (Stage.STARTTLS, Breakage.LOST)


async def test_what_was_offered_in_clear_text_is_forgotten(good_tls: ssl.SSLContext, ca_file: Path) -> None:
    clear = "250-relay.test\n250-STARTTLS\n250-SIZE 5\n250 SMTPUTF8"
    secured = "250-relay.test\n250 SIZE 7"
    async with (
        ScriptedRelay(tls=good_tls, ehlo=[clear, secured]) as relay,
        opened(url(relay, f"ca_file={ca_file}")) as session,
    ):
        assert session.capabilities.size_limit == 7
        assert not session.capabilities.smtputf8


async def test_opportunistic_tls_is_used_and_verified(good_tls: ssl.SSLContext, ca_file: Path) -> None:
    async with ScriptedRelay(tls=good_tls) as relay:
        async with opened(url(relay, f"tls=opportunistic&ca_file={ca_file}")):
            pass
        event = await refused(url(relay, "tls=opportunistic"))
    assert isinstance(event, Fault)
    assert event.kind is Breakage.UNTRUSTED


@pytest.mark.slow
async def test_opportunistic_without_tls_goes_on_but_not_with_a_password() -> None:
    async with ScriptedRelay(auth={"ann": PASSWORD}) as relay:
        async with opened(url(relay, "tls=opportunistic")) as session:
            assert session.usable
        event = await refused(url(relay, "tls=opportunistic"), ANN)
    assert isinstance(event, Fault)
    assert event.kind is Breakage.NO_LOGIN
    assert relay.auth_attempts == 0


async def test_implicit_tls_at_a_port_that_does_not_speak_it() -> None:
    async with ScriptedRelay() as relay:
        event = await refused(url(relay, scheme="smtps"))
    assert isinstance(event, Fault)
    assert (event.stage, event.kind) == (Stage.CONNECT, Breakage.WRONG_TLS)
    assert event.what == (
        f"localhost port {relay.port} begins without TLS, and was spoken to with TLS from the first byte;"
        f" write smtp://localhost:{relay.port}, which goes over to TLS before anything is said"
    )
    assert judge(event).stops


async def test_port_that_waits_for_tls_to_begin(good_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bulkmail.smtp.opening.QUIET", 0.2)
    async with ScriptedRelay(tls=good_tls, implicit=True) as relay:
        event = await refused(url(relay))
    assert isinstance(event, Fault)
    assert (event.stage, event.kind) == (Stage.GREETING, Breakage.WRONG_TLS)
    assert event.what.endswith(f"and was spoken to without; write smtps://localhost:{relay.port}")
    assert judge(event).stops


async def test_server_that_greets_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bulkmail.smtp.opening.QUIET", 0.1)
    async with ScriptedRelay(greeting=Late(0.5, "220 at last")) as relay:
        async with opened(url(relay, "tls=off")) as session:
            assert session.usable
        assert relay.sessions == 2  # one of them was a look


async def test_old_tls_is_refused(authority: trustme.CA, ca_file: Path) -> None:
    context = server_context(authority.issue_cert("localhost"))
    with pytest.warns(DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with ScriptedRelay(tls=context, implicit=True) as relay:
        event = await refused(url(relay, f"ca_file={ca_file}", scheme="smtps"))
    assert isinstance(event, Fault)
    # The server of asyncio closes without the alert that would say why.
    assert (event.stage, event.kind) == (Stage.CONNECT, Breakage.LOST)
    assert "closed the connection in the TLS handshake" in event.what
    assert relay.commands == []


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("TLSV1_ALERT_PROTOCOL_VERSION", "no TLS version in common"),
        ("UNSUPPORTED_PROTOCOL", "no TLS version in common"),
        ("WRONG_VERSION_NUMBER", "does not speak TLS from the first byte"),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", "failed: SSLV3_ALERT_HANDSHAKE_FAILURE"),
        ("", "failed: no reason given"),
    ],
)
def test_words_for_a_failed_handshake(reason: str, words: str) -> None:
    error = ssl.SSLError("broken")
    error.reason = reason
    kind, what = tls_breakage(error, host="mail.example.com", port=465)
    assert kind is (Breakage.WRONG_TLS if reason == "WRONG_VERSION_NUMBER" else Breakage.TLS)
    assert "mail.example.com port 465" in what
    assert words in what


@pytest.mark.parametrize("behaviour", [Drop(), Hang(), "421 4.3.2 busy"])
async def test_implicit_tls_and_then_no_greeting(behaviour: Script, good_tls: ssl.SSLContext, ca_file: Path) -> None:
    async with ScriptedRelay(tls=good_tls, implicit=True, greeting=behaviour) as relay:
        event = await refused(url(relay, f"ca_file={ca_file}", scheme="smtps"), timeouts=Timeouts(greeting=0.5))
    assert event.stage is Stage.GREETING


@pytest.mark.parametrize(
    ("content", "words"), [(None, "cannot be read: No such file"), ("nothing", "holds no certificate")]
)
def test_ca_file_that_cannot_be_used(content: str | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=words) as caught:
        make_tls_context(Relay.parse(f"smtps://mail.example.com?ca_file={path}"))
    assert str(path) in str(caught.value)
    assert caught.value.hint


# Login


@pytest.mark.parametrize(
    ("mechanisms", "chosen"),
    [
        (["CRAM-MD5", "LOGIN", "PLAIN"], "PLAIN"),
        (["CRAM-MD5", "LOGIN"], "LOGIN"),
        (["XOAUTH2", "CRAM-MD5"], "CRAM-MD5"),
    ],
)
@pytest.mark.parametrize("password", [PASSWORD, "wrong"])
async def test_one_login_with_one_mechanism(
    mechanisms: list[str], chosen: str, password: str, good_tls: ssl.SSLContext, ca_file: Path
) -> None:
    async with ScriptedRelay(tls=good_tls, auth={"ann": PASSWORD}, mechanisms=mechanisms) as relay:
        where = url(relay, f"ca_file={ca_file}")
        credentials = Credentials("ann", Secret(password))
        if password == PASSWORD:
            async with opened(where, credentials) as session:
                assert session.usable
        else:
            event = await refused(where, credentials)
            assert event == Reply(Stage.AUTH, 535, "5.7.8", "wrong user or password")
    assert relay.auth_attempts == 1
    assert [command for command in relay.commands if command.startswith("AUTH")] == [f"AUTH {chosen}"]
    assert relay.violations == []


@pytest.mark.parametrize("answer", ["454 4.7.0 temporary", "534 5.7.9 weak", "421 4.7.0 too many logins"])
async def test_refused_login_is_reported_as_it_was_said(answer: str) -> None:
    async with ScriptedRelay(auth={"ann": PASSWORD}, login=answer) as relay:
        event = await refused(url(relay, "tls=off&auth=plaintext"), ANN)
    assert isinstance(event, Reply)
    assert event.stage is Stage.AUTH
    assert str(event) == answer
    assert relay.auth_attempts == 1


async def test_server_that_repeats_the_login_is_quoted_without_it() -> None:
    said = b64encode(f"\0ann\0{PASSWORD}".encode()).decode()
    async with ScriptedRelay(
        auth={"ann": PASSWORD}, mechanisms=["PLAIN"], login=f"535 5.7.8 {said}: {PASSWORD} is wrong"
    ) as relay:
        event = await refused(url(relay, "tls=off&auth=plaintext"), ANN)
    assert str(event) == "535 5.7.8 ***: *** is wrong"


@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "end"])
async def test_no_later_reply_repeats_the_login(make_message: Callable[..., Message], step: str) -> None:
    said = b64encode(f"\0ann\0{PASSWORD}".encode()).decode()
    answers: dict[str, Any] = {step: f"550 5.7.1 {said}: {PASSWORD} may not send"}
    async with (
        ScriptedRelay(auth={"ann": PASSWORD}, mechanisms=["PLAIN"], **answers) as relay,
        opened(url(relay, "tls=off&auth=plaintext"), ANN) as session,
    ):
        event = await session.transact(make_message(), lambda done: done(None))
    assert str(event) == "550 5.7.1 ***: *** may not send"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"235 ok\r\n250 ok\r\n", id="surplus"),
        pytest.param("354 go on", id="3xx"),
    ],
)
async def test_login_answer_out_of_order(answer: Script) -> None:
    async with ScriptedRelay(auth={"ann": PASSWORD}, login=answer) as relay:
        event = await refused(url(relay, "tls=off&auth=plaintext"), ANN)
    assert isinstance(event, Fault)
    assert (event.stage, event.kind) == (Stage.AUTH, Breakage.DESYNC)


async def test_challenge_that_is_not_base64_is_not_asked_for_again() -> None:
    async with ScriptedRelay(auth={"ann": PASSWORD}, login="334 Username:") as relay:
        event = await refused(url(relay, "tls=off&auth=plaintext"), ANN)
    assert isinstance(event, Fault) and event.stage is Stage.AUTH
    assert "not base64" in event.what and judge(event).stops


async def test_no_login_without_credentials() -> None:
    async with ScriptedRelay(auth={"ann": PASSWORD}) as relay, opened(url(relay, "tls=off")) as session:
        assert session.usable
    assert relay.auth_attempts == 0


async def test_no_known_mechanism(good_tls: ssl.SSLContext, ca_file: Path) -> None:
    async with ScriptedRelay(tls=good_tls, auth={"ann": PASSWORD}, mechanisms=["XOAUTH2", "NTLM"]) as relay:
        event = await refused(url(relay, f"ca_file={ca_file}"), ANN)
    assert isinstance(event, Fault)
    assert (event.stage, event.kind) == (Stage.AUTH, Breakage.NO_LOGIN)
    assert "only XOAUTH2, NTLM" in event.what
    assert relay.auth_attempts == 0


async def test_password_and_no_login_offered(good_tls: ssl.SSLContext, ca_file: Path) -> None:
    async with ScriptedRelay(tls=good_tls) as relay:
        event = await refused(url(relay, f"ca_file={ca_file}"), ANN)
    assert isinstance(event, Fault)
    assert event.kind is Breakage.NO_LOGIN
    assert "offers no login" in event.what


async def test_password_never_goes_in_clear_text_unless_reported_so() -> None:
    async with ScriptedRelay(auth={"ann": PASSWORD}) as relay:
        event = await refused(url(relay, "tls=off"), ANN)
        assert isinstance(event, Fault)
        assert (event.stage, event.kind) == (Stage.AUTH, Breakage.NO_LOGIN)
        assert relay.auth_attempts == 0
        async with opened(url(relay, "tls=off&auth=plaintext"), ANN) as session:
            assert session.usable
        assert relay.auth_attempts == 1


async def test_password_never_goes_in_clear_text_off_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bulkmail.smtp.opening.is_loopback", lambda connection: False)
    async with ScriptedRelay(auth={"ann": PASSWORD}) as relay:
        event = await refused(url(relay, "tls=off&auth=plaintext"), ANN)
    assert isinstance(event, Fault)
    assert event.kind is Breakage.NO_LOGIN
    assert relay.auth_attempts == 0


@pytest.mark.parametrize("password", ["pass\ud800word", "pass\0word"], ids=["surrogate", "NUL"])
async def test_password_that_cannot_be_sent(password: str) -> None:
    async with ScriptedRelay(auth={"ann": PASSWORD}) as relay:
        with pytest.raises(SessionRefused) as caught:
            await Single.to(
                Relay.parse(url(relay, "tls=off&auth=plaintext")),
                Credentials("ann", Secret(password)),
                tls_context=None,
            )
        await asyncio.sleep(0.01)
    assert isinstance(caught.value.event, Fault)
    assert caught.value.event.kind is Breakage.NO_LOGIN
    assert "word" not in caught.value.event.what.replace("password", "")
    assert caught.value.__cause__ is None
    assert relay.auth_attempts == 0


async def test_secret_is_in_no_exception() -> None:
    async with ScriptedRelay(auth={"ann": PASSWORD}, login="535 5.7.8 no") as relay:
        with pytest.raises(SessionRefused) as caught:
            await Single.to(Relay.parse(url(relay, "tls=off&auth=plaintext")), ANN, tls_context=None)
        await asyncio.sleep(0.01)
    assert PASSWORD not in repr(caught.value) + str(caught.value) + repr(caught.value.__cause__) + repr(ANN)


# Cancellation


@pytest.mark.parametrize("step", ["greeting", "ehlo", "starttls", "login"])
async def test_cancelled_opening_leaves_no_connection(step: str, good_tls: ssl.SSLContext, ca_file: Path) -> None:
    scripts: dict[str, Any] = {step: Hang()}
    async with ScriptedRelay(tls=good_tls, auth={"ann": PASSWORD}, **scripts) as relay:
        where = Relay.parse(url(relay, f"ca_file={ca_file}"))
        task = asyncio.create_task(Single.to(where, ANN, tls_context=None))
        await asyncio.sleep(0.15)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.05)
        assert relay.sessions == 1
        assert relay.open_sessions == 0


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts descriptors by /proc")
async def test_refused_openings_leave_no_descriptor(good_tls: ssl.SSLContext, ca_file: Path) -> None:
    async def descriptors() -> int:
        await asyncio.sleep(0.05)
        return len(os.listdir("/proc/self/fd"))

    quick = Timeouts(greeting=0.05, ehlo=0.05)
    async with ScriptedRelay(greeting="554 no") as relay:
        await refused(url(relay, "tls=off"))  # what loop and resolver keep open for themselves is open now
    before = await descriptors()
    async with (
        ScriptedRelay(tls=good_tls, auth={"ann": PASSWORD}) as relay,
        ScriptedRelay(greeting=Hang()) as silent,
        ScriptedRelay(greeting="554 no") as unwilling,
    ):
        listening = await descriptors()
        await refused(url(relay), ANN)  # untrusted
        await refused(url(relay, f"ca_file={ca_file}"), Credentials("ann", Secret("wrong")))
        await refused(url(silent, "tls=off"), timeouts=quick)
        await refused(url(silent, scheme="smtps"), timeouts=quick)
        await refused(url(unwilling, "tls=off"))
        await refused(url(unwilling, scheme="smtps"))
        assert await descriptors() <= listening
    assert await descriptors() <= before
