"""A relay that fails is left alone for as long as someone wrote, or it asks for, and then tried again."""

from __future__ import annotations

import asyncio

import pytest

from bulkmail.model.errors import RelayError, SendingPaused
from bulkmail.model.outcome import Breakage, Fault, Reply, Stage
from bulkmail.model.pace import Pace
from bulkmail.model.retry import Backoff
from bulkmail.model.tally import Status
from bulkmail.model.timing import Hold
from bulkmail.sandbox.lines import NullLine
from bulkmail.settings.presets import known_feedback
from bulkmail.smtp.replies import SessionRefused
from bulkmail.testing import ManualClock

FEEDBACK = known_feedback()
DOWN = Fault(Stage.GREETING, Breakage.LOST, "it hung up")
WRITTEN = Backoff(1.0, 300.0, (30.0, 60.0, 300.0))


@pytest.fixture
def trial(people, make_engine, outbox):
    """Runs until the end by a clock that it turns; says how it ended and when sessions were asked for."""
    people(3)
    clock = ManualClock(1_000.0)
    asked = []

    async def run(answer, **pace):
        async def connect():
            asked.append(clock.monotonic() - 1_000.0)
            if (event := answer(len(asked))) is not None:
                raise SessionRefused(event)
            return NullLine()

        engine = make_engine(connect, pace=Pace(**pace), clock=clock, feedback=FEEDBACK)
        running = asyncio.create_task(engine.run())
        while not running.done():
            for _ in range(12):
                await asyncio.sleep(0)
            if (wake := clock.next_wake) is not None and not running.done():
                clock.advance(wake)
        return running.result(), asked

    return run


async def test_relay_is_tried_as_the_schedule_says_and_given_up_at_its_end(trial, outbox, events):
    ending, asked = await trial(lambda number: DOWN, relay_backoff=WRITTEN, patience=390.0)
    assert asked == [0.0, 30.0, 90.0, 390.0]
    assert isinstance(ending.error, RelayError) and "this has lasted for 6 min 30 s" in str(ending.error)
    waits = [event for event in events if isinstance(event, Hold)]
    assert [wait.until - 1_000.0 for wait in waits] == [30.0, 90.0, 390.0]
    assert "the relay fails, and is tried again then: it hung up" in waits[0].why
    assert not any(wait.is_planned for wait in waits)
    assert outbox.tally()[Status.PENDING] == 3


async def test_last_step_of_a_schedule_is_repeated_while_patience_lasts(trial, outbox):
    steps = Backoff(1.0, 300.0, (10.0, 20.0))
    ending, asked = await trial(lambda number: DOWN if number < 6 else None, relay_backoff=steps, patience=1_000.0)
    assert asked[:6] == [0.0, 10.0, 30.0, 50.0, 70.0, 90.0]
    assert ending.error is None and outbox.tally()[Status.ACCEPTED] == 3


async def test_relay_that_asks_for_longer_gets_longer(trial, outbox):
    busy = Reply(Stage.GREETING, 421, "", "closing, try again in 5 minutes")
    ending, asked = await trial(lambda number: busy if number == 1 else None)
    assert asked[:2] == [0.0, 300.0]
    assert ending.error is None and outbox.tally()[Status.ACCEPTED] == 3


async def test_run_does_not_wait_for_a_relay_that_asks_for_longer_than_it_may(trial, outbox):
    busy = Reply(Stage.GREETING, 421, "", "closing, try again in 30 minutes")
    ending, asked = await trial(lambda number: busy)
    assert asked == [0.0]
    assert isinstance(ending.error, SendingPaused) and ending.error.until == 1_000.0 + 1_800.0
    assert outbox.tally()[Status.PENDING] == 3
