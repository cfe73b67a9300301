"""Yielding and coming back: rates, sessions, suspensions and what is measured of them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.rate import BOUNDLESS, FLOOR, AdaptiveRate, ComplaintShare, ConcurrencyLimit, Meter, Rate
from bulkmail.model.timing import LONGEST_SUSPENSION, NO_HOLD, Hold

COMPLAINTS = st.lists(st.tuples(st.floats(0, 600), st.floats(0, 1e4)), max_size=30)
KINDS = st.sampled_from(["refuse", "halve", "take"])


def shares(*taken: int) -> ComplaintShare:
    """After a complaint behind each of this many messages taken, 10 s apart."""
    share = ComplaintShare()
    for number, many in enumerate(taken, 1):
        for _ in range(many):
            share = share.take()
        share = share.complain(number * 10.0)
    return share


def test_share_is_in_vain_when_a_lower_rate_changes_nothing() -> None:
    assert shares(3, 3, 3).is_in_vain  # every fourth is refused, whatever the rate
    assert not shares(3, 3).is_in_vain
    assert not shares(1, 4, 20).is_in_vain  # it gets better
    assert not shares(0, 0, 0, 0).is_in_vain  # it takes nothing
    assert not shares(50, 60, 55, 60).is_in_vain  # a limit that is tried now and then
    assert not shares(3, 3, 3, 0).is_in_vain


def test_share_takes_complaints_of_one_moment_for_one() -> None:
    share = shares(3, 3, 3)
    assert share.complain(30.5).in_vain == share.in_vain


# --- rates -----------------------------------------------------------------------------------------------------------


def test_speed_is_free_until_someone_complains() -> None:
    assert AdaptiveRate().now(5.0) is None
    assert AdaptiveRate().rate(5.0) is None
    assert AdaptiveRate(50.0).rate(5.0, burst=3) == Rate(50.0, 3)
    assert not AdaptiveRate(50.0).is_lowered(5.0)


def test_speed_falls_below_what_the_server_took_and_feels_its_way_up() -> None:
    speed = AdaptiveRate().lowered(100.0, seen=14.0)
    assert speed.now(100.0) == pytest.approx(12.6)
    assert speed.now(105.0) == pytest.approx(25.2)
    assert speed.now(110.0) == pytest.approx(50.4)
    assert speed.rate(100.0, burst=7) == Rate(speed.now(100.0) or 0.0, 1)
    assert speed.is_lowered(100.0)


def test_speed_that_was_too_high_when_kept_evenly_is_neared_slowly() -> None:
    speed = AdaptiveRate().lowered(100.0, seen=14.0).lowered(105.0, seen=20.0)
    assert speed.now(105.0) == pytest.approx(18.0)
    near, peak = 0.9 * 25.2, 25.2
    feeling = 5.0 * math.log2(near / 18.0)
    assert speed.now(105.0 + feeling) == pytest.approx(near)
    assert speed.now(105.0 + feeling + 10.0) == pytest.approx((near + peak) / 2)
    assert speed.now(105.0 + feeling + 20.0) == pytest.approx(peak)
    assert speed.now(105.0 + feeling + 320.0) == pytest.approx(2 * peak)


def test_speed_falls_to_next_to_nothing_while_nothing_is_taken_and_waits_for_the_first() -> None:
    assert AdaptiveRate(10.0).lowered(0.0, seen=0.0).now(0.0) == 0.5
    blocked = AdaptiveRate().lowered(0.0, seen=0.0)
    assert blocked.now(0.0) == blocked.now(1000.0) == 0.35
    again = blocked.lowered(3.0, seen=0.0)
    assert again.now(3.0) == pytest.approx(0.245)
    opened = again.opened(60.0, sustained=1.0)
    assert not opened.is_blocked
    assert opened.now(60.0) == pytest.approx(0.245)
    assert opened.now(65.0) == pytest.approx(0.49)
    assert 0.9 < (opened.now(80.0) or 0.0) < 1.0  # what it tolerated in the long run
    assert opened.now(1e6) is None


def test_speed_is_not_raised_by_what_was_measured() -> None:
    assert AdaptiveRate(10.0).lowered(0.0, seen=500.0).now(0.0) == pytest.approx(7.0)


def test_speed_takes_complaints_about_what_was_under_way_as_one() -> None:
    once = AdaptiveRate(10.0).lowered(50.0, seen=0.0)
    assert once.lowered(51.9, seen=0.0) is once
    assert once.lowered(52.0, seen=0.0) != once


def test_speed_ends_at_its_limit_and_is_free_again_far_above() -> None:
    assert AdaptiveRate(10.0).lowered(0.0, seen=5.0).now(1e9) == 10.0
    assert not AdaptiveRate(10.0).lowered(0.0, seen=5.0).is_lowered(1e9)
    assert AdaptiveRate().lowered(0.0, seen=5.0).now(1e9) is None


@given(st.one_of(st.none(), st.floats(0.001, 1e4)), COMPLAINTS)
def test_speed_stays_between_its_floor_and_its_limit(
    limit: float | None, complaints: list[tuple[float, float]]
) -> None:
    speed, now = AdaptiveRate(limit), 0.0
    for nap, seen in complaints:
        now += nap
        before = speed.now(now)
        speed = speed.lowered(now, seen=seen)
        after = speed.now(now)
        assert after is not None
        assert after <= (limit or BOUNDLESS) * (1 + 1e-9)
        assert after >= min(FLOOR, limit or FLOOR) * (1 - 1e-9)
        floor = min(FLOOR, limit or FLOOR)
        assert before is None or after <= max(before, floor) * (1 + 1e-9)


@given(st.floats(0.1, 1000), st.floats(0, 1000), st.floats(0, 1e5), st.floats(0, 1e5))
def test_speed_never_falls_without_a_complaint(limit: float, seen: float, one: float, other: float) -> None:
    speed = AdaptiveRate(limit).lowered(0.0, seen=seen)
    sooner, later = sorted((one, other))
    assert (speed.now(sooner) or 0.0) <= (speed.now(later) or 0.0) * (1 + 1e-9)


class Bucket:
    """A server that takes this many a second, and a burst."""

    def __init__(self, per_second: float, burst: float) -> None:
        self.per_second, self.burst, self.tokens, self.at = per_second, burst, burst, 0.0

    def takes(self, now: float) -> bool:
        self.tokens, self.at = min(self.burst, self.tokens + (now - self.at) * self.per_second), now
        takes = self.tokens >= 1.0
        self.tokens -= takes
        return takes


class ByTheMinute:
    """A server that takes this many each minute of its clock."""

    def __init__(self, most: int) -> None:
        self.most, self.minute, self.count = most, -1, 0

    def takes(self, now: float) -> bool:
        if now // 60.0 != self.minute:
            self.minute, self.count = int(now // 60.0), 0
        self.count += 1
        return self.count <= self.most


@pytest.mark.slow
@pytest.mark.parametrize(
    ("server", "bears", "share", "refused"),
    [
        pytest.param(Bucket(14.0, 14.0), 14.0, 0.95, 0.01, id="14/s"),
        pytest.param(Bucket(14.0, 2.0), 14.0, 0.8, 0.01, id="14/s-without-bursts"),
        pytest.param(Bucket(250.0, 12.0), 250.0, 0.9, 0.005, id="250/s-after-a-burst"),
        pytest.param(Bucket(0.5, 5.0), 0.5, 0.9, 0.05, id="30-a-minute-evenly"),
        pytest.param(ByTheMinute(60), 1.0, 0.75, 0.06, id="60-by-the-minute"),
        pytest.param(ByTheMinute(300), 5.0, 0.75, 0.06, id="300-by-the-minute"),
    ],
)
def test_speed_finds_what_a_server_accepts(
    server: Bucket | ByTheMinute, bears: float, share: float, refused: float
) -> None:
    """Of 10 minutes' messages, so much of what it tolerates is sent, and so few are refused after the first 10 s."""
    speed, lately, long = AdaptiveRate(), Meter(), Meter(60.0)
    step, credit, taken, complaints = 0.005, 0.0, 0, 0
    for tick in range(120_000):
        now = tick * step
        credit = min(2.0, credit + min(speed.now(now) or 400.0, 400.0) * step)
        while credit >= 1.0:
            credit -= 1.0
            if server.takes(now):
                taken += 1
                if speed.is_blocked:
                    speed = speed.opened(now, sustained=long.per_second(now))
                lately.take(now)
                long.take(now)
            else:
                complaints += now >= 10.0
                speed = speed.lowered(now, seen=lately.per_second(now))
    assert taken / 600.0 > bears * share
    assert complaints < taken * refused


# --- sessions --------------------------------------------------------------------------------------------------------


def test_crowd_stays_below_what_was_refused_and_tries_it_again_ever_later() -> None:
    sessions = ConcurrencyLimit(10).refuse(0.0, open=3)
    assert sessions.size == 3
    assert sessions.take(59.0, 100).size == 3
    assert sessions.take(60.0, 100).size == 4
    again = sessions.take(60.0, 100).refuse(61.0, open=3)
    assert again.size == 3
    assert again.take(180.0, 1000).size == 3
    assert again.take(181.0, 1000).size == 4


def test_crowd_takes_several_refusals_at_once_as_one_answer() -> None:
    sessions = ConcurrencyLimit(10).refuse(0.0, open=3)
    assert sessions.refuse(0.1, open=3).retry_at == sessions.retry_at


def test_crowd_halves_on_other_complaints_and_grows_by_one_in_100_messages() -> None:
    sessions = ConcurrencyLimit(10).halve(0.0)
    assert sessions.size == 5
    assert sessions.halve(1.0).size == 5
    assert sessions.halve(2.0).size == 2
    assert sessions.take(3.0, 99).size == 5
    assert sessions.take(3.0, 99).take(3.0).size == 6


def test_crowd_that_is_whole_counts_nothing() -> None:
    sessions = ConcurrencyLimit(10)
    assert sessions.take(0.0) is sessions


@pytest.mark.slow
@given(st.integers(1, 100), st.lists(st.tuples(st.floats(0, 100), KINDS, st.integers(0, 100)), max_size=60))
def test_crowd_stays_between_one_and_its_limit(limit: int, events: list[tuple[float, str, int]]) -> None:
    sessions, now = ConcurrencyLimit(limit), 0.0
    for nap, kind, number in events:
        now += nap
        before = sessions.size
        if kind == "refuse":
            sessions = sessions.refuse(now, open=number)
            assert sessions.size <= max(1, before)
        elif kind == "halve":
            sessions = sessions.halve(now)
            assert sessions.size <= before
        else:
            sessions = sessions.take(now, number)
            assert before <= sessions.size <= before + 1
        assert 1 <= sessions.size <= limit


# --- suspensions -----------------------------------------------------------------------------------------------------


def test_suspension_has_an_end() -> None:
    suspension = NO_HOLD.extended(100.0, 60.0, "busy")
    assert suspension == Hold(160.0, "busy")
    assert suspension.lasts(159.9)
    assert not suspension.lasts(160.0)
    assert not NO_HOLD.lasts(0.0)


def test_suspension_that_is_longer_stays() -> None:
    suspension = NO_HOLD.extended(100.0, 60.0, "busy")
    assert suspension.extended(110.0, 5.0, "again") is suspension
    assert suspension.extended(110.0, 90.0, "again") == Hold(200.0, "again")


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.floats(-1e6, 1e6))
def test_suspension_never_holds_for_more_than_a_day(now: float, seconds: float, set_back: float) -> None:
    suspension = NO_HOLD.extended(now, seconds, "why", longest=LONGEST_SUSPENSION)
    if suspension.lasts(now - set_back, longest=LONGEST_SUSPENSION):
        assert suspension.until <= now - set_back + LONGEST_SUSPENSION


# --- what is measured ------------------------------------------------------------------------------------------------


def test_meter_counts_what_was_taken_lately() -> None:
    meter, now = Meter(), 100.0
    for _ in range(140):
        meter.take(now)
        now += 1 / 14
    assert meter.per_second(now) == pytest.approx(14.0, rel=0.1)
    assert meter.per_second(now + 10.0) == 0.0


def test_meter_does_not_take_a_moment_for_a_second() -> None:
    meter = Meter()
    for _ in range(14):
        meter.take(100.0)
    assert meter.per_second(100.01) == pytest.approx(14.0)
