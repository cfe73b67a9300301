"""No window of time holds more messages than the rate and its burst."""

from __future__ import annotations

import asyncio
import time

import anyio
import pytest

from bulkmail.model.pace import Pace
from bulkmail.model.rate import Rate
from bulkmail.model.tally import Status
from bulkmail.sandbox.lines import NullLine
from bulkmail.testing import ManualClock, ScriptedRelay


@pytest.mark.slow
@pytest.mark.parametrize("burst", [1, 5])
async def test_no_window_exceeds_the_rate(people, make_engine, outbox, burst):
    people(120)
    times = []

    def note(path):
        times.append(time.monotonic())

    async with ScriptedRelay(mail=note) as relay:
        await make_engine(relay, connections=10, pace=Pace(rate=Rate(100.0, burst))).run()
    assert outbox.tally().by_status == {Status.ACCEPTED: 120}
    most = max(sum(begin <= t < begin + 0.5 for t in times) for begin in times)
    # The server sees the commands a little later than they leave, some later than others.
    assert most <= 50 + burst + 2


@pytest.mark.slow
async def test_burst_makes_up_for_timers_that_wake_late(people, make_engine):
    people(120)
    clock, times = ManualClock(), []

    async def wake_late():
        while True:
            await asyncio.sleep(0.001)
            if (nap := clock.next_wake) is not None and nap < 0.1:  # not what waits for something that never happens
                clock.advance(nap + 0.004)

    relay = ScriptedRelay(mail=lambda path: times.append(clock.monotonic()))
    async with relay, anyio.create_task_group() as group:
        group.start_soon(wake_late)
        await make_engine(relay, connections=10, pace=Pace(rate=Rate(100.0, 5)), clock=clock).run()
        group.cancel_scope.cancel()
    assert times[-1] - times[0] == pytest.approx((120 - 5) / 100, rel=0.05)


async def test_rate_opens_no_more_sessions_than_it_keeps_busy(people, make_engine):
    people(8)
    async with ScriptedRelay() as relay:
        await make_engine(relay, connections=10, pace=Pace(rate=Rate(0.5, burst=8))).run()
    assert relay.peak_sessions <= 8


class IdleLine(NullLine):
    """Hung up on after 10 s without a message."""

    def __init__(self, clock):
        self._clock = clock
        self._used_at = clock.monotonic()
        self._is_over = False
        super().__init__()

    @property
    def usable(self):
        return not self._is_over and self._clock.monotonic() - self._used_at < 10

    @usable.setter
    def usable(self, value):
        self._is_over = not value

    async def carry(self, more):
        await super().carry(more)
        self._used_at = self._clock.monotonic()


@pytest.mark.parametrize("seconds", [8.0, 60.0])
async def test_slot_is_not_spent_on_a_session_that_was_closed_while_it_waited(people, make_engine, outbox, seconds):
    people(6)
    clock = ManualClock(1_000.0)

    async def connect():
        return IdleLine(clock)

    engine = make_engine(connect, connections=10, pace=Pace(rate=Rate(1 / seconds)), clock=clock)
    running = asyncio.create_task(engine.run())
    while not running.done():
        for _ in range(20):
            await asyncio.sleep(0)
        if (wake := clock.next_wake) is not None and not running.done():
            clock.advance(max(wake, 0.001))
    assert outbox.tally().by_status == {Status.ACCEPTED: 6}
    assert clock.monotonic() - 1_000.0 < 5 * seconds + 10.0
