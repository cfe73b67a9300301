"""Planned times as lists and settings write them: the instant that each means, or what is wrong with it."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import pytest

from bulkmail.model.errors import ConfigError
from bulkmail.model.schedule import Planned, Schedule, instant, next_at, read_moment
from bulkmail.settings.parsers import find_zone

VIENNA = ZoneInfo("Europe/Vienna")
NOW = datetime(2026, 12, 1, 10, 30, tzinfo=UTC).timestamp()  # 11:30 in Vienna


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-12-24 09:00", "2026-12-24T08:00"),
        ("2026-12-24T09:00:30", "2026-12-24T08:00:30"),
        ("2026-12-24 9:00", "2026-12-24T08:00"),
        ("2026-12-24 09:00:00.250", "2026-12-24T08:00:00.250"),
        ("2026-12-24 09:00:00.25Z", "2026-12-24T09:00:00.250"),
        ("2026-12-24 09:00:00.2+01:00", "2026-12-24T08:00:00.200"),
        ("2026-12-24 09:00Z", "2026-12-24T09:00"),
        ("2026-12-24 09:00+05:30", "2026-12-24T03:30"),
        ("2026-12-24T09:00-0800", "2026-12-24T17:00"),
        ("2026-12-24 09:00 America/New_York", "2026-12-24T14:00"),
        ("46380.375", "2026-12-24T08:00"),  # a date of Excel's without a format
        ("46380", "2026-12-23T23:00"),
        ("now", "2026-12-01T10:30"),
        ("NOW", "2026-12-01T10:30"),
        ("11:30", "2026-12-01T10:30"),
        ("11:31", "2026-12-01T10:31"),
        ("11:29", "2026-12-02T10:29"),
    ],
)
def test_time_is_read(text: str, expected: str) -> None:
    assert read_moment(text, VIENNA, find_zone, now=NOW) == utc(expected)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is empty"),
        ("tomorrow", "is not a time: expected"),
        ("24.12.2026 09:00", "is not a time"),
        ("12/24/2026 09:00", "is not a time"),
        ("2026-12-24", "says no time of day"),
        ("2026-02-30 09:00", "is a day that there is not"),
        ("2026-12-24 25:00", "is not a time of day"),
        ("09:61", "is not a time of day"),
        ("2026-12-24 09:00+99:00", "has an offset that there is not"),
        ("2026-12-24 09:00 Europe/Wien", 'did you mean "Europe/Vienna"'),
        ("2026-12-24 09:00 " + "A/" * 50, "is not a time"),
        ("1766566800", "is not a time"),
    ],
)
def test_what_is_no_time_is_refused(text: str, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_moment(text, VIENNA, find_zone, now=NOW)
    assert fault in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("zone", "shown", "expected"),
    [
        ("Europe/Vienna", "2026-03-29T02:30", "2026-03-29T01:00"),  # skipped: when clocks are put forward
        ("Europe/Vienna", "2026-03-29T02:00", "2026-03-29T01:00"),
        ("Europe/Vienna", "2026-03-29T03:00", "2026-03-29T01:00"),
        ("Europe/Vienna", "2026-10-25T02:30", "2026-10-25T00:30"),  # twice: the first
        ("Australia/Lord_Howe", "2026-10-04T02:15", "2026-10-03T15:30"),  # half an hour
        ("Pacific/Apia", "2011-12-30T12:00", "2011-12-30T10:00"),  # a whole day
        ("America/New_York", "2026-03-08T02:30", "2026-03-08T07:00"),
    ],
)
def test_times_that_clocks_skip_or_show_twice(zone: str, shown: str, expected: str) -> None:
    assert instant(datetime.fromisoformat(shown), ZoneInfo(zone)) == utc(expected)


def test_next_time_of_day_in_the_skipped_hour_is_when_clocks_are_put_forward() -> None:
    eve = datetime(2026, 3, 28, 12, tzinfo=UTC).timestamp()
    clock = datetime.fromisoformat("2026-01-01T02:30").time()
    assert next_at(clock, VIENNA, now=eve) == utc("2026-03-29T01:00")
    assert next_at(clock, VIENNA, now=utc("2026-03-29T01:00") + 1) == utc("2026-03-30T00:30")


def test_row_says_its_time_and_its_zone() -> None:
    schedule = Schedule("column:when", "column:tz", "Europe/Vienna")
    rows = {
        "Asia/Tokyo": "2026-12-24T00:00",
        "": "2026-12-24T08:00",  # the zone of the message
        " Europe/Lisbon ": "2026-12-24T09:00",
    }
    for zone, expected in rows.items():
        fields = {"when": "2026-12-24 09:00", "tz": zone}
        assert schedule.due_at(fields, find_zone, now=NOW) == utc(expected)


def test_same_local_time_for_all_zones() -> None:
    schedule = Schedule("09:00", "column:tz")
    assert schedule.due_at({"tz": "Europe/Vienna"}, find_zone, now=NOW) == utc("2026-12-02T08:00")
    assert schedule.due_at({"tz": "America/New_York"}, find_zone, now=NOW) == utc("2026-12-01T14:00")


def test_time_that_has_just_passed_is_at_once_and_an_old_one_a_fault() -> None:
    schedule = Schedule("column:when", "UTC")
    assert schedule.due_at({"when": "2026-12-01 10:29"}, find_zone, now=NOW) == 0.0
    assert schedule.due_at({"when": "2026-11-30 10:31"}, find_zone, now=NOW) == 0.0
    assert schedule.due_at({"when": "now"}, find_zone, now=NOW) == 0.0
    with pytest.raises(ConfigError, match=r"^when: '2026-11-30 10:29' was 1 d .*ago: expected a time to come"):
        schedule.due_at({"when": "2026-11-30 10:29"}, find_zone, now=NOW)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"when": "soon", "tz": "UTC"}, "when: 'soon' is not a time"),
        ({"when": None, "tz": "UTC"}, "when: '' is empty"),
        ({"tz": "UTC"}, "when: '' is empty"),
        ({"when": "09:00", "tz": ""}, "tz: is empty: expected a time zone"),
        ({"when": "09:00", "tz": "CEST"}, 'tz: "CEST" is not a time zone: expected one such as Europe/Vienna'),
        ({"when": "09:00", "tz": "../../etc/passwd"}, "tz: "),
        ({"when": 1.5, "tz": "UTC"}, "when: '1.5' is not a time"),
        ({"when": ["09:00"], "tz": "UTC"}, "is not a time"),
        ({"when": "\x1b[31m" * 20, "tz": "UTC"}, "is not a time"),
    ],
)
def test_fault_of_a_row_names_column_and_value(fields: dict[str, object], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Schedule("column:when", "column:tz").due_at(fields, find_zone, now=NOW)
    assert fault in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_plan_is_said_in_a_sentence() -> None:
    zones = tuple((f"Zone/{n}", 10 - n) for n in range(7))
    planned = Planned(3, 40, utc("2026-12-24T08:00"), utc("2026-12-25T08:00"), zones)
    said = planned.sentence(NOW)
    assert said.startswith("3 at once, 40 from Thu 24 December ")
    assert said.endswith("; Zone/0 10, Zone/1 9, Zone/2 8, Zone/3 7, Zone/4 6, 2 other zones 9")
    assert Planned(0, 2, utc("2026-12-24T08:00"), utc("2026-12-24T08:00")).sentence(NOW).startswith("2 at Thu 24")


def find_none(name: str) -> tzinfo:
    raise ConfigError(name)


def test_zone_is_not_asked_for_where_the_time_says_its_own() -> None:
    assert read_moment("2026-12-24 09:00Z", UTC, find_none, now=NOW) == utc("2026-12-24T09:00")
