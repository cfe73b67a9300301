"""Recipients in rolling windows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.errors import ConfigError
from bulkmail.model.quota import DAY, HOUR, NO_QUOTA, Quota, QuotaBooking, parse_quota


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        ("2000/day", Quota(per_day=2000)),
        ("2,000 per day", Quota(per_day=2000)),
        ("500/h", Quota(per_hour=500)),
        ("500/hour, 2000/day", Quota(500, 2000)),
        ("500/hour,2,000/day", Quota(500, 2000)),
        ("2000 a day and 500 an hour", Quota(500, 2000)),
        ("500/24h", Quota(per_day=500)),
    ],
)
def test_quota_is_read_and_written_again(text: str, quota: Quota) -> None:
    assert parse_quota(text) == quota
    assert parse_quota(str(quota)) == quota


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "cannot read ''"),
        ("2000", "cannot read '2000'"),
        ("2000/week", "cannot read '2000/week'"),
        ("2.000/day", "cannot read '2.000/day'"),
        ("-1/day", "cannot read '-1/day'"),
        ("0/day", "a quota of nothing"),
        ("5/day, 6/day", "says twice how many in a day"),
        ("5/h, 6/h", "says twice how many in an hour"),
        ("500/hour, 100/day", "more in an hour than in a day"),
    ],
)
def test_quota_refuses_what_it_cannot_keep(text: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        parse_quota(text)
    assert caught.value.hint.startswith("write ")


def test_quota_counts_what_was_booked_in_its_windows() -> None:
    quota = Quota(10, 20)
    bookings = [QuotaBooking(0.0, 8), QuotaBooking(HOUR, 7)]
    assert quota.free(bookings, HOUR - 1) == 0
    assert quota.free(bookings, HOUR) == 3
    assert quota.free(bookings, 2 * HOUR) == 5
    assert quota.free(bookings, DAY) == 10
    assert NO_QUOTA.free(bookings, 0.0) is None
    assert str(NO_QUOTA) == "no quota"


def test_quota_opens_when_enough_has_rolled_out() -> None:
    quota = Quota(10, 20)
    bookings = [QuotaBooking(HOUR, 7), QuotaBooking(0.0, 10)]
    assert quota.opens_at(bookings, HOUR, wanted=3) == HOUR
    assert quota.opens_at(bookings, HOUR, wanted=4) == DAY
    assert quota.opens_at(bookings, HOUR, wanted=1000) == DAY + HOUR
    assert quota.opens_at([], 5.0, wanted=10) == 5.0


def test_quota_counts_what_lies_ahead() -> None:
    assert Quota(per_hour=10).free([QuotaBooking(5_000.0, 9)], 0.0) == 1


@pytest.mark.slow
@given(
    st.builds(Quota, st.integers(1, 50), st.integers(1, 100)),
    st.lists(st.tuples(st.floats(0, 3 * HOUR), st.integers(1, 60)), max_size=40),
)
def test_quota_lets_no_window_exceed_it(quota: Quota, askers: list[tuple[float, int]]) -> None:
    now, bookings = 0.0, list[QuotaBooking]()
    for nap, wanted in askers:
        now += nap
        free = quota.free(bookings, now)
        assert free is not None
        if free:
            assert quota.opens_at(bookings, now) == now
            bookings.append(QuotaBooking(now, min(wanted, free)))
        else:
            opens = quota.opens_at(bookings, now)
            assert quota.free(bookings, opens)
            assert opens == now or not quota.free(bookings, opens - 0.01)
    for span, limit in quota.limits:
        for booking in bookings:
            # A booking rolls out at the float `at + span`; `at - span` may round to the other side of it.
            inside = sum(other.count for other in bookings if other.at <= booking.at < other.at + span)
            assert inside <= limit


def test_quota_within_another_keeps_both() -> None:
    assert Quota(500, 2000).within(Quota(per_day=1000)) == Quota(500, 1000)
    assert Quota().within(Quota(10)) == Quota(10)
