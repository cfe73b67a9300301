"""Yielding and coming back: rates, sessions, suspensions and what is measured of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.adapt import BOUNDLESS, FLOOR, LONGEST_SUSPENSION, Crowd, Meter, Speed, Suspension
from bulkmail.model.rate import Rate

COMPLAINTS = st.lists(st.tuples(st.floats(0, 600), st.floats(0, 1e4)), max_size=30)
KINDS = st.sampled_from(["refuse", "halve", "take"])


# --- rates -----------------------------------------------------------------------------------------------------------


def test_speed_is_free_until_somebody_complains() -> None:
    assert Speed().now(5.0) is None
    assert Speed().rate(5.0) is None
    assert Speed(50.0).rate(5.0, burst=3) == Rate(50.0, 3)
    assert not Speed(50.0).is_lowered(5.0)


def test_speed_falls_below_what_the_server_took_and_comes_back_in_20_s() -> None:
    speed = Speed().lowered(100.0, seen=14.0)
    assert speed.now(100.0) == pytest.approx(12.6)
    assert speed.now(110.0) == pytest.approx(13.3)
    assert speed.now(120.0) == pytest.approx(14.0)
    assert speed.now(420.0) == pytest.approx(28.0)
    assert speed.rate(100.0, burst=7) == Rate(speed.now(100.0) or 0.0, 1)
    assert speed.is_lowered(100.0)


def test_speed_falls_by_a_third_when_nothing_was_measured() -> None:
    assert Speed(10.0).lowered(0.0, seen=0.0).now(0.0) == pytest.approx(7.0)
    assert Speed().lowered(0.0, seen=0.0).now(0.0) == pytest.approx(0.7)


def test_speed_is_not_raised_by_what_was_measured() -> None:
    assert Speed(10.0).lowered(0.0, seen=500.0).now(0.0) == pytest.approx(7.0)


def test_speed_takes_complaints_about_what_was_under_way_as_one() -> None:
    once = Speed(10.0).lowered(50.0, seen=0.0)
    assert once.lowered(51.9, seen=0.0) is once
    assert once.lowered(52.0, seen=0.0) != once


def test_speed_ends_at_its_limit_and_is_free_again_far_above() -> None:
    assert Speed(10.0).lowered(0.0, seen=5.0).now(1e9) == 10.0
    assert not Speed(10.0).lowered(0.0, seen=5.0).is_lowered(1e9)
    assert Speed().lowered(0.0, seen=5.0).now(1e9) is None


@given(st.one_of(st.none(), st.floats(0.001, 1e4)), COMPLAINTS)
def test_speed_stays_between_its_floor_and_its_limit(
    limit: float | None, complaints: list[tuple[float, float]]
) -> None:
    speed, now = Speed(limit), 0.0
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
    speed = Speed(limit).lowered(0.0, seen=seen)
    sooner, later = sorted((one, other))
    assert (speed.now(sooner) or 0.0) <= (speed.now(later) or 0.0) * (1 + 1e-9)


def test_speed_keeps_near_a_server_with_a_limit_of_its_own() -> None:
    """14 a second, anything faster is complained of: little is lost, and complaints are rare."""
    speed, now, step, sent, complaints = Speed(), 0.0, 0.05, 0.0, 0
    tokens = 14.0
    while now < 300.0:
        tokens = min(14.0, tokens + 14.0 * step)
        wanted = (speed.now(now) or 200.0) * step
        taken = min(wanted, tokens)
        tokens -= taken
        if now >= 10.0:
            sent += taken
        if wanted > taken:
            complaints += now >= 10.0
            speed = speed.lowered(now, seen=14.0)
        now += step
    assert sent / 290.0 > 14.0 * 0.9
    assert complaints < sent * 0.02


# --- sessions --------------------------------------------------------------------------------------------------------


def test_crowd_stays_below_what_was_refused_and_tries_it_again_ever_later() -> None:
    crowd = Crowd(10).refuse(0.0, open=3)
    assert crowd.size == 3
    assert crowd.take(59.0, 100).size == 3
    assert crowd.take(60.0, 100).size == 4
    again = crowd.take(60.0, 100).refuse(61.0, open=3)
    assert again.size == 3
    assert again.take(180.0, 1000).size == 3
    assert again.take(181.0, 1000).size == 4


def test_crowd_takes_several_refusals_at_once_as_one_answer() -> None:
    crowd = Crowd(10).refuse(0.0, open=3)
    assert crowd.refuse(0.1, open=3).retry_at == crowd.retry_at


def test_crowd_halves_on_other_complaints_and_grows_by_one_in_100_messages() -> None:
    crowd = Crowd(10).halve(0.0)
    assert crowd.size == 5
    assert crowd.halve(1.0).size == 5
    assert crowd.halve(2.0).size == 2
    assert crowd.take(3.0, 99).size == 5
    assert crowd.take(3.0, 99).take(3.0).size == 6


def test_crowd_that_is_whole_counts_nothing() -> None:
    crowd = Crowd(10)
    assert crowd.take(0.0) is crowd


@given(st.integers(1, 100), st.lists(st.tuples(st.floats(0, 100), KINDS, st.integers(0, 100)), max_size=60))
def test_crowd_stays_between_one_and_its_limit(limit: int, events: list[tuple[float, str, int]]) -> None:
    crowd, now = Crowd(limit), 0.0
    for nap, kind, number in events:
        now += nap
        before = crowd.size
        if kind == "refuse":
            crowd = crowd.refuse(now, open=number)
            assert crowd.size <= max(1, before)
        elif kind == "halve":
            crowd = crowd.halve(now)
            assert crowd.size <= before
        else:
            crowd = crowd.take(now, number)
            assert before <= crowd.size <= before + 1
        assert 1 <= crowd.size <= limit


# --- suspensions -----------------------------------------------------------------------------------------------------


def test_suspension_has_an_end() -> None:
    suspension = Suspension().extended(100.0, 60.0, "busy")
    assert suspension == Suspension(160.0, "busy")
    assert suspension.holds(159.9)
    assert not suspension.holds(160.0)
    assert not Suspension().holds(0.0)


def test_suspension_that_is_longer_stays() -> None:
    suspension = Suspension().extended(100.0, 60.0, "busy")
    assert suspension.extended(110.0, 5.0, "again") is suspension
    assert suspension.extended(110.0, 90.0, "again") == Suspension(200.0, "again")


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.floats(-1e6, 1e6))
def test_suspension_never_holds_for_more_than_a_day(now: float, seconds: float, set_back: float) -> None:
    suspension = Suspension().extended(now, seconds, "why")
    if suspension.holds(now - set_back):
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
