"""Hours of the week: what is read, when they open, and that clocks which are set do no harm."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.errors import ConfigError
from bulkmail.model.schedule import ALWAYS, Window, Windows, parse_start, parse_windows, say_moment

VIENNA = ZoneInfo("Europe/Vienna")
ALL_DAYS = frozenset(range(7))


def zones(name: str) -> tzinfo:
    return ZoneInfo(name or "Europe/Vienna")


def at(text: str, zone: tzinfo = VIENNA, *, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


def windows(text: str) -> Windows:
    return parse_windows(text, zones)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mon-Fri 09:00-17:00 Europe/Vienna", [({0, 1, 2, 3, 4}, 540, 1020, "Europe/Vienna")]),
        ("9-17", [(ALL_DAYS, 540, 1020, "Europe/Vienna")]),
        ("daily 9:30 – 17 UTC", [(ALL_DAYS, 570, 1020, "UTC")]),
        ("Monday, wed and Fri. 8-9", [({0, 2, 4}, 480, 540, "Europe/Vienna")]),
        ("Fri - Mon 8-9", [({4, 5, 6, 0}, 480, 540, "Europe/Vienna")]),
        ("Sat 22:00-06:00", [({5}, 1320, 360, "Europe/Vienna")]),
        ("00:00-24:00", [(ALL_DAYS, 0, 1440, "Europe/Vienna")]),
        (
            "Mon 9-12, 13-17 Asia/Tokyo; Tue 9-12; Wed 9-12 UTC",
            [
                ({0}, 540, 720, "Asia/Tokyo"),
                ({0}, 780, 1020, "Asia/Tokyo"),
                ({1}, 540, 720, "Asia/Tokyo"),
                ({2}, 540, 720, "UTC"),
            ],
        ),
        ("Mon 9-12; Tue 9-12 Asia/Tokyo", [({0}, 540, 720, "Asia/Tokyo"), ({1}, 540, 720, "Asia/Tokyo")]),
    ],
)
def test_windows_are_read(text: str, expected: list[tuple[set[int], int, int, str]]) -> None:
    found = [(set(each.days), each.begins, each.ends, str(each.zone)) for each in windows(text).each]
    assert found == [(set(days), *rest) for days, *rest in expected]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "has an empty part"),
        ("Mon 9-12;", "has an empty part"),
        ("Mon-Fri", "is not a valid sending window"),
        ("Europe/Vienna", "is not a valid sending window"),
        ("weekdays 9-17", "'weekdays' is not a day of the week"),
        ("M 9-17", "'m' is not a day of the week"),
        ("Monkey 9-17", "'monkey' is not a day of the week"),
        ("9-17 Mon", "cannot read 'Mon'"),
        ("9-12 or 13-17", "cannot read"),
        ("Mon 9-9", "lasts no time"),
        ("24:00-9", "lasts no time"),
        ("25-26", "25:00 is not a time of day"),
        ("9:60-10", "9:60 is not a time of day"),
        ("9-24:01", "24:01 is not a time of day"),
    ],
)
def test_windows_refuse_what_they_cannot_read(text: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        windows(text)
    assert caught.value.hint


def test_no_windows_are_always_open() -> None:
    assert ALWAYS.is_open(0.0)
    assert ALWAYS.next_open(5.0) == 5.0
    assert ALWAYS.closes_at(5.0) is None


def test_window_opens_at_its_first_minute_and_closes_at_its_last() -> None:
    office = windows("Mon-Fri 09:00-17:00 Europe/Vienna")
    assert not office.is_open(at("2026-11-20 08:59:59"))
    assert office.is_open(at("2026-11-20 09:00"))
    assert office.is_open(at("2026-11-20 16:59:59"))
    assert not office.is_open(at("2026-11-20 17:00"))
    assert office.next_open(at("2026-11-20 17:00")) == at("2026-11-23 09:00")
    assert office.next_open(at("2026-11-20 12:00")) == at("2026-11-20 12:00")
    assert office.closes_at(at("2026-11-20 12:00")) == at("2026-11-20 17:00")


def test_window_goes_on_after_midnight() -> None:
    night = windows("Fri 22:00-06:00")
    assert night.is_open(at("2026-11-20 23:00"))
    assert night.is_open(at("2026-11-21 05:59"))
    assert not night.is_open(at("2026-11-21 06:00"))
    assert not night.is_open(at("2026-11-21 23:00"))
    assert not night.is_open(at("2026-11-20 05:00"))
    assert night.closes_at(at("2026-11-20 23:00")) == at("2026-11-21 06:00")


def test_windows_that_touch_are_one() -> None:
    both = windows("Mon 9-12; Mon 12-17")
    assert both.closes_at(at("2026-11-23 10:00")) == at("2026-11-23 17:00")
    assert windows("00:00-24:00").closes_at(at("2026-11-23 10:00")) is None


# On 29 March 2026 the clocks of Vienna go from 02:00 to 03:00, on 25 October from 03:00 to 02:00.


def test_window_begins_at_the_change_when_its_beginning_is_skipped() -> None:
    night = windows("02:30-04:00")
    before = at("2026-03-29 01:59")
    assert night.next_open(before) == before + 60
    assert night.closes_at(before + 60) == before + 60 + 3600


def test_window_in_the_skipped_hour_is_not_open_that_day() -> None:
    assert windows("02:15-02:45").next_open(at("2026-03-29 00:00")) == at("2026-03-30 02:15")
    # Once a week: it takes another week.
    assert windows("Sun 02:15-02:45").next_open(at("2026-03-23 00:00")) == at("2026-04-05 02:15")


def test_window_in_the_doubled_hour_is_open_twice() -> None:
    night = windows("02:15-02:45")
    first = night.next_open(at("2026-10-25 00:00"))
    assert first == at("2026-10-25 02:15")
    assert night.closes_at(first) == first + 1800
    assert night.next_open(first + 1800) == at("2026-10-25 02:15", fold=1) == first + 3600


def test_window_opens_again_when_clocks_go_back_into_it() -> None:
    night = windows("01:30-02:30")
    closed = at("2026-10-25 02:30")
    assert not night.is_open(closed)
    assert night.next_open(closed) == at("2026-10-25 02:00", fold=1)


ZONES = st.sampled_from(["Europe/Vienna", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"])
WINDOWS = st.builds(
    lambda days, begins, ends, zone: Window(frozenset(days), begins, ends, ZoneInfo(zone)),
    st.sets(st.integers(0, 6), min_size=1),
    st.integers(0, 1439),
    st.integers(1, 1440),
    ZONES,
).filter(lambda window: window.begins != window.ends)
MOMENTS = st.one_of(
    st.floats(1_700_000_000, 1_900_000_000),
    st.floats(-90_000, 90_000).map(lambda seconds: at("2026-03-29 03:00") + seconds),
    st.floats(-90_000, 90_000).map(lambda seconds: at("2026-10-25 03:00") + seconds),
)


@pytest.mark.slow
@given(st.lists(WINDOWS, min_size=1, max_size=3), MOMENTS, st.floats(0, 1))
def test_windows_are_closed_until_they_say_and_open_until_they_say(
    each: list[Window], now: float, share: float
) -> None:
    several = Windows(tuple(each))
    opens = several.next_open(now)
    assert opens >= now
    assert several.is_open(opens)
    if opens > now:
        assert not several.is_open(now + (opens - now) * share * 0.999)
        assert not several.is_open(opens - 0.001)
    closes = several.closes_at(opens)
    if closes is not None:
        assert not several.is_open(closes)
        assert several.is_open(opens + (closes - opens) * share * 0.999)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-12-01 09:00 Europe/Vienna", datetime(2026, 12, 1, 8, tzinfo=UTC)),
        ("2026-12-01T9:00", datetime(2026, 12, 1, 8, tzinfo=UTC)),
        ("2026-12-01 09:00:30 UTC", datetime(2026, 12, 1, 9, 0, 30, tzinfo=UTC)),
        ("2026-12-01T09:00Z", datetime(2026, 12, 1, 9, tzinfo=UTC)),
        ("2026-12-01 09:00 +02:00", datetime(2026, 12, 1, 7, tzinfo=UTC)),
        ("2026-10-25 02:30", datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
    ],
)
def test_start_is_read(text: str, moment: datetime) -> None:
    assert parse_start(text, zones) == moment.timestamp()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "is not a moment"),
        ("tomorrow", "is not a moment"),
        ("2026-12-01", "names no time of day"),
        ("2026-12-01 Europe/Vienna", "names no time of day"),
        ("2026-13-01 09:00", "there is no such moment"),
        ("2026-12-01 25:00", "there is no such moment"),
        ("2026-12-01 25:00Z", "there is no such moment"),
        ("0001-01-01 00:00 Asia/Tokyo", "there is no such moment"),
        ("2026-03-29 02:30", "clocks do not show"),
    ],
)
def test_start_refuses_what_no_clock_shows(text: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        parse_start(text, zones)
    assert caught.value.hint.startswith("write ")


def test_moments_are_said_with_their_day_unless_it_is_today() -> None:
    now = at("2026-11-30 07:00")
    assert say_moment(at("2026-11-30 09:00"), VIENNA, now=now) == "09:00"
    assert say_moment(at("2026-12-01 09:00"), VIENNA, now=now) == "Tue 1 December 09:00"
