"""What one session with a relay teaches all the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bulkmail.model.delivery import Message
from bulkmail.model.outcome import Fault, Reply
from bulkmail.model.relay import Relay
from bulkmail.smtp.peer_policy import PeerPolicy
from bulkmail.smtp.transaction import Transfer
from bulkmail.testing import Drop, ScriptedRelay
from tests.connections import Single

MakeMessage = Callable[..., Message]
Event = Reply | Fault
PIPED = ("PIPELINING", "8BITMIME")


async def sent(relay: ScriptedRelay, policy: PeerPolicy, messages: list[Message]) -> tuple[list[Event], Single]:
    """Sends over one session as many as it takes."""
    where = Relay.parse(f"smtp://{relay.host}:{relay.port}?tls=off")
    session = await Single.to(where, None, tls_context=None, policy=policy)
    events: list[Event] = []
    waiting = iter([Transfer(message, lambda done: done(None), events.append) for message in messages])
    await session.carry(lambda: next(waiting, None))
    return events, session


class ShowsOut:
    """Ends a session with 421 at the first RCPT behind this many refused ones; only `ann` has a mailbox."""

    def __init__(self, most: int, *, refusal: str) -> None:
        self.most, self.refusal, self.refused = most, refusal, 0

    def greeting(self, _: str) -> None:
        self.refused = 0

    def rcpt(self, path: str) -> str | None:
        if self.refused >= self.most:
            return "421 4.7.0 Error: too many errors"
        self.refused = 0 if path.startswith("ann") else self.refused + 1
        return self.refusal if self.refused else None


@pytest.mark.parametrize("extensions", [(), PIPED], ids=["plain", "pipelining"])
@pytest.mark.parametrize("refusal", ["550 5.1.1 who?", "450 4.7.1 greylisted"])
async def test_server_that_ends_sessions_after_refusals_is_left_before(
    make_message: MakeMessage, extensions: tuple[str, ...], refusal: str
) -> None:
    people = [make_message(to=f"nobody{n}@example.com") for n in range(4)] + [make_message(to="ann@example.com")]
    script = ShowsOut(4, refusal=refusal)
    policy = PeerPolicy()
    async with ScriptedRelay(greeting=script.greeting, rcpt=script.rcpt, extensions=extensions) as relay:
        first, session = await sent(relay, policy, people)
        assert [event.code for event in first if isinstance(event, Reply)] == [int(refusal[:3])] * 4 + [421]
        assert not session.usable
        second, session = await sent(relay, policy, people)
        assert [event.code for event in second if isinstance(event, Reply)] == [int(refusal[:3])] * 3
        assert not session.usable  # it was left before it could strike someone
        assert relay.commands[-1] == "QUIT"
        third, session = await sent(relay, policy, people[3:])
        assert [event.code for event in third if isinstance(event, Reply)] == [int(refusal[:3]), 250]
        assert session.usable
        await session.quit()
    assert relay.violations == []


async def test_accepted_message_begins_the_count_again(make_message: MakeMessage) -> None:
    script = ShowsOut(3, refusal="550 5.1.1 who?")
    policy = PeerPolicy()
    bad, good = make_message(to="nobody@example.com"), make_message(to="ann@example.com")
    async with ScriptedRelay(greeting=script.greeting, rcpt=script.rcpt) as relay:
        await sent(relay, policy, [bad] * 4)
        events, session = await sent(relay, policy, [bad, good] * 5)
        assert len(events) == 10 and session.usable
        await session.quit()


@pytest.mark.parametrize(
    "misbehaviour",
    [
        pytest.param({"mail": [Drop()]}, id="hangs up"),
        pytest.param({"mail": [b"nonsense\r\n"]}, id="no reply"),
        pytest.param({"rcpt": ["354 what"]}, id="354 to RCPT"),
        pytest.param({"data": ["250 ok"]}, id="250 to DATA"),
    ],
)
async def test_server_that_accepts_no_pipelining_is_spoken_to_plainly_and_the_notice_says_so(
    make_message: MakeMessage, misbehaviour: dict[str, Any]
) -> None:
    notices: list[str] = []
    policy = PeerPolicy(notify=notices.append)
    async with ScriptedRelay(extensions=PIPED, **misbehaviour) as relay:
        first, _ = await sent(relay, policy, [make_message()])
        assert isinstance(first[0], Fault)
        second, session = await sent(relay, policy, [make_message()] * 2)
        assert all(isinstance(event, Reply) and event.is_positive for event in second)
        await session.quit()
    assert len(notices) == 1
    assert notices[0].endswith("; from now on it gets one command at a time, which is slower")
    assert policy.is_plain
    assert len(relay.messages) == 2
