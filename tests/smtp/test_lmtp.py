"""LMTP and Unix sockets: a greeting of its own, a reply for each recipient, no TLS where no one can listen."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from bulkmail.model.delivery import Envelope, Message
from bulkmail.model.outcome import Breakage, Fault, Outcome, Reply, Stage
from bulkmail.model.relay import Relay
from bulkmail.model.verdict import judge
from bulkmail.smtp.peer_policy import PeerPolicy
from bulkmail.smtp.replies import SessionRefused
from bulkmail.smtp.transaction import Done, Transfer
from bulkmail.testing import Drop, ScriptedRelay, Split
from tests.connections import Single

MakeMessage = Callable[..., Message]
Event = Reply | Fault

PATHS = ("ann@example.com", "bob@example.com", "cy@example.com")
PIPED = ("PIPELINING", "8BITMIME", "CHUNKING", "ENHANCEDSTATUSCODES")

pytestmark = pytest.mark.parametrize("extensions", [(), PIPED], ids=["plain", "pipelining"])


def url_of(relay: ScriptedRelay) -> str:
    return f"lmtp://{relay.host}:{relay.port}"


@asynccontextmanager
async def session_over(url: str) -> AsyncIterator[Single]:
    session = await Single.to(Relay.parse(url), None, tls_context=None, policy=PeerPolicy())
    try:
        yield session
    finally:
        session.abort()
        await asyncio.sleep(0)


async def sent(session: Single, *messages: Message) -> list[tuple[Event, ...]]:
    """What each forward path of each message came to."""
    outcomes: list[tuple[Event, ...]] = []

    def at_once(done: Done) -> None:
        done(None)

    def transfer(message: Message) -> Transfer:
        def decided(event: Event) -> None:
            outcomes.append(tuple(made.own.get(number, event) for number in range(len(made.paths))))

        made = Transfer(message, at_once, decided)
        return made

    waiting = iter([transfer(message) for message in messages])
    await session.carry(lambda: next(waiting, None))
    return outcomes


def to_all(message: Message, paths: tuple[str, ...] = PATHS) -> Message:
    return replace(message, envelope=Envelope(message.envelope.reverse_path, paths[0], paths[1:]))


def verdicts(events: tuple[Event, ...]) -> list[Outcome]:
    return [judge(event).outcome for event in events]


async def test_each_recipient_has_a_reply_of_its_own(make_message: MakeMessage, extensions: tuple[str, ...]) -> None:
    def end(path: str) -> str | None:
        return {"bob@example.com": "452 4.2.2 mailbox full", "cy@example.com": "550 5.2.1 closed"}.get(path)

    async with ScriptedRelay(is_lmtp=True, end=end, extensions=extensions) as relay:
        async with session_over(url_of(relay)) as session:
            outcomes = await sent(session, to_all(make_message()), to_all(make_message(), PATHS[:1]))
            await session.quit()
        assert [verdicts(events) for events in outcomes] == [
            [Outcome.ACCEPTED, Outcome.DEFERRED, Outcome.REJECTED],
            [Outcome.ACCEPTED],
        ]
        assert [message.forward_paths for message in relay.messages] == [PATHS[:1], PATHS[:1]]
        assert relay.commands[0].startswith("LHLO ")
        assert not any(command.startswith("BDAT") for command in relay.commands)
        assert relay.violations == []


async def test_refused_recipient_has_no_reply_to_the_end(
    make_message: MakeMessage, extensions: tuple[str, ...]
) -> None:
    def rcpt(path: str) -> str | None:
        return "550 5.1.1 who?" if path.startswith("ann@") else None

    async with ScriptedRelay(is_lmtp=True, rcpt=rcpt, end=Split("250 2.0.0 ok"), extensions=extensions) as relay:
        async with session_over(url_of(relay)) as session:
            outcomes = await sent(session, to_all(make_message()), to_all(make_message(), PATHS[1:]))
        assert [verdicts(events) for events in outcomes] == [
            [Outcome.REJECTED, Outcome.ACCEPTED, Outcome.ACCEPTED],
            [Outcome.ACCEPTED, Outcome.ACCEPTED],
        ]
        assert relay.violations == []


async def test_session_goes_on_when_no_one_was_accepted(make_message: MakeMessage, extensions: tuple[str, ...]) -> None:
    answers = ["550 5.1.1 who?", "550 5.1.1 who?", "451 4.3.0 later"]
    async with ScriptedRelay(is_lmtp=True, rcpt=answers, extensions=extensions) as relay:
        async with session_over(url_of(relay)) as session:
            outcomes = await sent(session, to_all(make_message()), make_message())
        assert [verdicts(events) for events in outcomes] == [
            [Outcome.REJECTED, Outcome.REJECTED, Outcome.DEFERRED],
            [Outcome.ACCEPTED],
        ]
        assert relay.violations == []
        assert relay.sessions == 1


@pytest.mark.parametrize("last", [Drop(), "250-half"], ids=["silence", "half a reply"])
async def test_loss_between_the_replies_is_in_doubt_for_the_rest_alone(
    make_message: MakeMessage, extensions: tuple[str, ...], last: Drop | str
) -> None:
    end = [None, last, Drop()]
    async with ScriptedRelay(is_lmtp=True, end=end, extensions=extensions) as relay:
        async with session_over(url_of(relay)) as session:
            [events] = await sent(session, to_all(make_message()))
        assert verdicts(events) == [Outcome.ACCEPTED, Outcome.IN_DOUBT, Outcome.IN_DOUBT]
        assert relay.messages[0].forward_paths[0] == PATHS[0]


async def test_421_between_the_replies_decides_its_own_recipient(
    make_message: MakeMessage, extensions: tuple[str, ...]
) -> None:
    end = [None, "421 4.3.2 closing"]
    async with ScriptedRelay(is_lmtp=True, end=end, extensions=extensions) as relay:
        async with session_over(url_of(relay)) as session:
            [events] = await sent(session, to_all(make_message(), PATHS[:2]))
        assert verdicts(events) == [Outcome.ACCEPTED, Outcome.DEFERRED]
        assert isinstance(events[1], Reply) and (events[1].code, events[1].stage) == (421, Stage.END)


async def test_server_that_knows_no_lmtp_is_reported_apart(extensions: tuple[str, ...]) -> None:
    async with ScriptedRelay(extensions=extensions) as relay:
        with pytest.raises(SessionRefused) as raised:
            await Single.to(Relay.parse(url_of(relay)), None, tls_context=None)
        assert isinstance(raised.value.event, Reply)
        assert (raised.value.event.stage, raised.value.event.code) == (Stage.EHLO, 500)
        assert [command.split()[0] for command in relay.commands] == ["LHLO"]  # HELO would not fix it


@pytest.mark.skipif(sys.platform == "win32", reason="asyncio has no Unix sockets on Windows")
@pytest.mark.parametrize("is_lmtp", [True, False], ids=["lmtp", "smtp"])
async def test_messages_go_over_a_unix_socket(
    make_message: MakeMessage, extensions: tuple[str, ...], is_lmtp: bool, short_path: Path
) -> None:
    path = str(short_path / "a socket")
    scheme = "lmtp" if is_lmtp else "smtp"
    offered = [name for name in extensions if is_lmtp or name != "CHUNKING"]  # the scripted relay knows no BDAT
    async with ScriptedRelay(is_lmtp=is_lmtp, socket_path=path, extensions=offered) as relay:
        async with session_over(f"{scheme}+unix://{path.replace(' ', '%20')}") as session:
            outcomes = await sent(session, make_message(), make_message())
            await session.quit()
        assert [verdicts(events) for events in outcomes] == [[Outcome.ACCEPTED]] * 2
        assert relay.violations == []
        assert relay.commands[-1] == "QUIT"


@pytest.mark.skipif(sys.platform == "win32", reason="asyncio has no Unix sockets on Windows")
async def test_socket_that_cannot_be_reached_is_reported(extensions: tuple[str, ...], short_path: Path) -> None:
    (short_path / "file").touch()
    (short_path / "left").touch()
    async with ScriptedRelay(socket_path=str(short_path / "stale"), extensions=extensions):
        pass
    reported = {}
    for name in ("none", "file", "stale"):
        with pytest.raises(SessionRefused) as raised:
            await Single.to(Relay.parse(f"lmtp://{short_path / name}"), None, tls_context=None)
        event = raised.value.event
        assert isinstance(event, Fault) and event.stage is Stage.CONNECT
        reported[name] = event.kind
        assert str(short_path / name) in event.what
    assert reported["none"] is Breakage.UNREACHABLE
    assert reported["file"] is Breakage.REFUSED
