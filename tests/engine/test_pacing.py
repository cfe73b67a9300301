"""No window of time holds more messages than the rate and its burst."""

from __future__ import annotations

import time

import pytest

from bulkmail.model.delivery import Status
from bulkmail.model.pace import Pace
from bulkmail.model.rate import Rate
from bulkmail.testing import ScriptedRelay


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
    if burst > 1:  # a burst of one leaves nothing to make up for timers that wake late
        assert times[-1] - times[0] == pytest.approx((120 - burst) / 100, rel=0.05)


async def test_rate_opens_no_more_sessions_than_it_keeps_busy(people, make_engine):
    people(8)
    async with ScriptedRelay() as relay:
        await make_engine(relay, connections=10, pace=Pace(rate=Rate(0.5, burst=8))).run()
    assert relay.peak_sessions <= 8
