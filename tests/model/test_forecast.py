"""The plan that is notified before the start."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bulkmail.model.pace import MOST_SHARES, Bounds, PlannedShare, plan_shares, say_plan
from bulkmail.model.quota import DAY, HOUR, Quota, QuotaBooking, Ramp
from bulkmail.model.schedule import parse_windows

VIENNA = ZoneInfo("Europe/Vienna")
SATURDAY = datetime(2026, 11, 21, 12, tzinfo=VIENNA).timestamp()
OFFICE = parse_windows("Mon-Fri 09:00-17:00", lambda name: VIENNA)


def say(bounds: Bounds, total: int, *bookings: QuotaBooking) -> str:
    return say_plan(plan_shares(bounds, bookings, total, now=SATURDAY), total=total, now=SATURDAY, zone=VIENNA)


def test_plan_is_one_sentence() -> None:
    assert say(Bounds(Quota(per_day=2000)), 4347) == "2,000 today, 2,000 tomorrow, 347 on Monday"


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        (Bounds(), "4,347 today"),
        (Bounds(Quota(500, 2000)), "2,000 today, 2,000 tomorrow, 347 on Monday"),
        (Bounds(Quota(per_day=2000), OFFICE), "2,000 on Monday, 2,000 on Tuesday, 347 on Wednesday"),
        (Bounds(ramp=Ramp(1000, percent=50.0)), "1,000 today, 1,500 tomorrow, 1,847 on Monday"),
        (Bounds(windows=OFFICE, per_second=0.1), "2,880 on Monday, 1,467 on Tuesday"),
        (Bounds(start=SATURDAY + 8 * DAY), "4,347 on 29 November"),
        (
            Bounds(Quota(per_day=600)),
            "600 today, 600 tomorrow, 600 on Monday, 600 on Tuesday, 1,947 more until 28 November",
        ),
    ],
    ids=["free", "hourly", "office", "ramp", "slow", "later", "long"],
)
def test_plan_keeps_to_every_bound(bounds: Bounds, said: str) -> None:
    assert say(bounds, 4347) == said


def test_plan_counts_what_was_sent_already() -> None:
    assert say(Bounds(Quota(per_day=2000)), 1000, QuotaBooking(SATURDAY - HOUR, 1500)) == "500 today, 500 tomorrow"
    ramp = Bounds(ramp=Ramp(1000, more=500), ramp_began_at=SATURDAY - HOUR)
    assert say(ramp, 1000, QuotaBooking(SATURDAY - HOUR, 800)) == "200 today, 800 tomorrow"


def test_plan_of_nothing_says_so() -> None:
    assert say(Bounds(), 0) == "nothing"


def test_plan_does_not_stand_still_when_the_hours_are_too_short_for_the_rate() -> None:
    short = parse_windows("Mon 09:00-09:01", lambda name: VIENNA)
    shares = plan_shares(Bounds(windows=short, per_second=0.001), [], 3, now=SATURDAY)
    assert [share.count for share in shares] == [1, 1, 1]
    assert shares[1].at - shares[0].at == 7 * DAY


def test_plan_has_an_end() -> None:
    assert len(plan_shares(Bounds(Quota(per_hour=1)), [], 10**6, now=SATURDAY)) == MOST_SHARES
    assert say(Bounds(Quota(per_hour=1)), 10**6).endswith(" more until 12 December, 999,500 after that")


@pytest.mark.slow
@example(Bounds(Quota(1, 500), OFFICE, Ramp(1, more=1)), 499, [])
@given(
    st.builds(
        Bounds,
        quota=st.builds(Quota, st.integers(1, 500), st.integers(500, 2000)),
        windows=st.sampled_from([OFFICE, Bounds().windows]),
        ramp=st.one_of(st.none(), st.builds(Ramp, st.integers(1, 500), more=st.integers(1, 500))),
        per_second=st.one_of(st.none(), st.floats(0.01, 100)),
    ),
    st.integers(0, 1000),
    st.lists(st.builds(QuotaBooking, st.floats(SATURDAY - DAY, SATURDAY), st.integers(1, 300)), max_size=5),
)
def test_plan_sends_all_in_order_and_exceeds_nothing(bounds: Bounds, total: int, before: list[QuotaBooking]) -> None:
    shares = plan_shares(bounds, before, total, now=SATURDAY)
    assert sum(share.count for share in shares) == total or len(shares) == MOST_SHARES
    assert shares == sorted(shares, key=lambda share: share.at)
    assert all(bounds.windows.is_open(share.at) for share in shares)
    if not before:
        exceeds_nothing(bounds, shares)


def exceeds_nothing(bounds: Bounds, shares: list[PlannedShare]) -> None:
    for share in shares:
        inside = sum(other.count for other in shares if share.at - DAY < other.at <= share.at)
        assert inside <= (bounds.quota.per_day or 0)
