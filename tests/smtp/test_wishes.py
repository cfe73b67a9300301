"""What is asked of a server beside taking the message: reports (RFC 3461), and TLS all the way (RFC 8689)."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bulkmail.model.delivery import Envelope, Message
from bulkmail.model.outcome import Breakage, Fault, Outcome, Reply, Scope, Stage
from bulkmail.model.relay import Dsn, Relay
from bulkmail.model.verdict import judge
from bulkmail.smtp.peer_policy import PeerPolicy
from bulkmail.smtp.replies import Capabilities, SessionRefused, parse_capabilities
from bulkmail.smtp.transaction import Done, Wishes, joined, mail_command, rcpt_command
from bulkmail.testing import ScriptedRelay
from tests.connections import Single

MakeMessage = Callable[..., Message]

DSN = Dsn(("failure", "delay"))
OFFERED = ("SIZE 33554432", "8BITMIME", "SMTPUTF8", "DSN")


def at_once(done: Done) -> None:
    done(None)


# --- the commands ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dsn", "mail", "rcpt"),
    [
        pytest.param(DSN, "RET=HDRS", "NOTIFY=FAILURE,DELAY", id="some"),
        pytest.param(Dsn((), returns_full=True), "RET=FULL", "NOTIFY=NEVER", id="never"),
    ],
)
def test_reports_are_asked_for(make_message: MakeMessage, dsn: Dsn, mail: str, rcpt: str) -> None:
    message = make_message(b"a: b\r\n\r\n")
    command = mail_command(message, Capabilities(), Wishes(dsn))
    assert command == f"MAIL FROM:<news@example.org> {mail} ENVID=1@example.org\r\n".encode()
    expected = f"RCPT TO:<ann+x@example.com> {rcpt} ORCPT=rfc822;ann+2Bx@example.com\r\n".encode()
    assert rcpt_command("ann+x@example.com", dsn) == expected


def test_original_recipient_outside_ascii_is_written_in_ascii() -> None:
    command = rcpt_command("Ольга+a@пример.example", DSN).decode()
    assert command.endswith(
        r" ORCPT=utf-8;\x{41E}\x{43B}\x{44C}\x{433}\x{430}\x{2B}a@\x{43F}\x{440}\x{438}\x{43C}\x{435}\x{440}.example"
        "\r\n"
    )


def test_endless_original_recipient_is_left_out() -> None:
    assert b"ORCPT" not in rcpt_command("佐" * 80 + "@example.com", DSN)


@given(st.text(min_size=1, max_size=120))
def test_any_message_id_makes_an_envelope_id_of_at_most_100_characters(text: str) -> None:
    message = Message(Envelope("s@example.org", "a@example.com"), f"<{text}>", (b"a: b\r\n\r\n",))
    found = re.fullmatch(
        rb"MAIL FROM:<s@example.org> RET=HDRS ENVID=((?:[!-*,-<>-~]|\+[0-9A-F]{2}){1,100})\r\n",
        mail_command(message, Capabilities(), Wishes(DSN)),
    )
    assert found and len(found[1]) <= 100


@given(st.text(st.characters(exclude_characters="<>", exclude_categories=("C", "Z")), min_size=1, max_size=60))
def test_any_original_recipient_can_be_read_back(path: str) -> None:
    command = rcpt_command(path, DSN).decode()
    written = command.partition(" ORCPT=")[2].removesuffix("\r\n")
    if not written:
        return
    kind, _, text = written.partition(";")
    pattern = r"\+([0-9A-F]{2})" if kind == "rfc822" else r"\\x\{([0-9A-F]+)\}"
    assert text.isascii() and " " not in text
    assert re.sub(pattern, lambda found: chr(int(found[1], 16)), text) == path


def test_requiretls_goes_with_mail(make_message: MakeMessage) -> None:
    command = mail_command(make_message(), Capabilities(), Wishes(requires_tls=True))
    assert command == b"MAIL FROM:<news@example.org> REQUIRETLS\r\n"
    assert parse_capabilities(["host", "REQUIRETLS"]).requiretls


@pytest.mark.parametrize(
    ("changes", "is_joined"),
    [
        pytest.param({}, True, id="the same"),
        pytest.param({"buffers": (b"Subject: hello\r\n\r\nDear Bob\r\n",)}, False, id="other content"),
        pytest.param({"envelope": Envelope("bounces@example.org", "bob@example.com")}, False, id="other sender"),
        pytest.param({"envelope": Envelope("news@example.org", "b ob@example.com")}, False, id="unwritable"),
        pytest.param({"envelope": Envelope("news@example.org", "")}, False, id="nobody"),
        pytest.param({"needs_smtputf8": True}, False, id="SMTPUTF8"),
    ],
)
def test_messages_are_joined_when_one_transaction_carries_both(
    make_message: MakeMessage, changes: dict[str, object], is_joined: bool
) -> None:
    other = replace(make_message(to="bob@example.com"), **changes)  # type: ignore[arg-type]
    both = joined(make_message(), other)
    assert (both is not None) == is_joined
    if both is not None:
        assert both.envelope.forward_paths == ("ann@example.com", "bob@example.com")


# --- the servers -----------------------------------------------------------------------------------------------------


async def sent(relay: ScriptedRelay, policy: PeerPolicy, message: Message, query: str) -> Reply | Fault:
    where = Relay.parse(f"smtp://{relay.host}:{relay.port}?tls=off&{query}")
    session = await Single.to(where, None, tls_context=None, policy=policy)
    try:
        return await session.transact(message, at_once)
    finally:
        await session.quit()


async def test_server_that_offers_reports_is_asked(make_message: MakeMessage) -> None:
    notices: list[str] = []
    async with ScriptedRelay(extensions=OFFERED) as relay:
        await sent(relay, PeerPolicy(notify=notices.append), make_message(), "dsn=success&dsn_return=full")
    assert relay.messages[0].parameters[1:] == ("RET=FULL", "ENVID=1@example.org")
    assert "RCPT TO:<ann@example.com> NOTIFY=SUCCESS ORCPT=rfc822;ann@example.com" in relay.commands
    assert notices == []


async def test_server_that_offers_no_reports_is_named_once_and_gets_the_message(make_message: MakeMessage) -> None:
    notices: list[str] = []
    policy = PeerPolicy(notify=notices.append)
    async with ScriptedRelay() as relay:
        for _ in range(2):
            await sent(relay, policy, make_message(), "dsn=failure")
    assert len(relay.messages) == 2
    assert not any("NOTIFY" in command or "RET=" in command for command in relay.commands)
    assert notices == [
        "127.0.0.1 does not offer DSN, so the reports that dsn asks for will not come; messages are sent without asking"
    ]


@pytest.mark.parametrize(
    ("step", "refusal"),
    [("mail", "555 5.5.4 ENVID what?"), ("rcpt", "501 5.5.4 bad NOTIFY"), ("rcpt", "504 5.5.4 no")],
)
async def test_refused_parameter_is_no_refusal_of_the_message(
    make_message: MakeMessage, step: str, refusal: str
) -> None:
    notices: list[str] = []
    policy = PeerPolicy(notify=notices.append)
    async with ScriptedRelay(extensions=OFFERED, **{step: [refusal]}) as relay:  # type: ignore[arg-type]
        first = await sent(relay, policy, make_message(), "dsn=failure")
        second = await sent(relay, policy, make_message(), "dsn=failure")
    verdict = judge(first)
    assert (verdict.outcome, verdict.scope, verdict.counts) == (Outcome.DEFERRED, Scope.SESSION, False)
    assert isinstance(second, Reply) and second.is_positive
    assert "NOTIFY" not in "".join(relay.commands[relay.commands.index("QUIT") :])
    assert len(notices) == 1 and f"refused a parameter of DSN, {refusal}" in notices[0]


async def test_unknown_user_is_refused_also_where_reports_are_asked_for(make_message: MakeMessage) -> None:
    policy = PeerPolicy()
    async with ScriptedRelay(extensions=OFFERED, rcpt=["501 5.1.3 bad address"]) as relay:
        event = await sent(relay, policy, make_message(), "dsn=failure")
    assert judge(event).outcome is Outcome.REJECTED


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
@pytest.mark.parametrize("offers", [True, False], ids=["offered", "not offered"])
async def test_requiretls_is_asked_or_the_relay_is_refused(
    make_message: MakeMessage, scheme: str, offers: bool
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    ours = ssl.create_default_context()
    authority.configure_trust(ours)
    extensions = ("REQUIRETLS",) if offers else ()
    async with ScriptedRelay(extensions=extensions, tls=context, implicit=scheme == "smtps") as relay:
        where = Relay.parse(f"{scheme}://localhost:{relay.port}?requiretls=yes")
        if offers:
            session = await Single.to(where, None, tls_context=ours)
            assert isinstance(await session.transact(make_message(), at_once), Reply)
            await session.quit()
            assert relay.messages[0].parameters == ("REQUIRETLS",)
        else:
            with pytest.raises(SessionRefused) as raised:
                await Single.to(where, None, tls_context=ours)
            event = raised.value.event
            assert isinstance(event, Fault) and (event.stage, event.kind) == (Stage.EHLO, Breakage.NO_REQUIRETLS)
            assert f"localhost port {relay.port} does not offer REQUIRETLS" in event.what
            assert judge(event).stops
            assert not any(command.startswith("MAIL") for command in relay.commands)
            await asyncio.sleep(0.02)
            assert relay.open_sessions == 0
