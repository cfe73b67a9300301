"""How sessions are opened with a relay that refuses them, ends them, or wants few."""

from __future__ import annotations

import pytest

from bulkmail.engine.contracts import Notice
from bulkmail.model.pace import Pace
from bulkmail.model.retry import RetryPolicy
from bulkmail.model.tally import Status
from bulkmail.settings.presets import known_feedback
from bulkmail.testing import Drop, Late, ScriptedRelay
from bulkmail.testing.answers import Lines

FEEDBACK = known_feedback()
SOON = Pace(retry=RetryPolicy(schedule=(0.05, 0.05, 0.05)))


def crowded(relay, most, answer):
    """Refuses every session beyond this many at the greeting; those that it refuses do not count."""
    greeted = 0

    def greet(_):
        nonlocal greeted
        greeted += 1
        return None if greeted <= most else answer

    relay._part.scripts["greeting"] = Lines(greet)


@pytest.mark.parametrize("most", [1, 2, 4])
@pytest.mark.parametrize(
    "answer",
    [
        "421 4.7.0 Rate limit exceeded, slow down",
        "421 4.4.5 Server busy, try again later.",
        "450 4.7.1 Error: too much mail from 192.0.2.1",
        "421 Throttling failure: Too many open connection from Account",
        "421 4.7.0 Too many connections",
        "421 Sorry, not now",
        "554 5.7.1 no more of you",
        pytest.param(Drop(), id="hangs up"),
        pytest.param(b"nonsense\r\n", id="nonsense"),
    ],
)
async def test_refused_session_costs_no_other_and_no_speed(people, make_engine, outbox, events, most, answer):
    addresses = people(200)  # enough that the last session has some to carry, too
    async with ScriptedRelay(end=lambda path: Late(0.01, "250 ok")) as relay:
        crowded(relay, most, answer)
        engine = make_engine(relay, connections=10, pace=SOON, feedback=FEEDBACK)
        await engine.run()
    assert outbox.tally().by_status == {Status.ACCEPTED: 200}
    assert sorted(message.forward_paths[0] for message in relay.messages) == sorted(addresses)
    assert len({message.session for message in relay.messages}) == most
    assert relay.sessions <= 10
    assert engine._run.shaper.slowdown("the relay", "", engine._run.clock.monotonic()).speed is None
    assert engine._run.shaper.connections("the relay") == most


async def test_refused_session_is_announced_in_the_words_of_the_relay(people, make_engine, events):
    people(40)
    async with ScriptedRelay(end=lambda path: Late(0.01, "250 ok")) as relay:
        crowded(relay, 2, "421 Sorry, not now")
        await make_engine(relay, connections=10, pace=SOON).run()
    notices = [event.text for event in events if isinstance(event, Notice)]
    assert notices == ["the relay is limited to 2 connections: 421 Sorry, not now"]
