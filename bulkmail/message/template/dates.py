"""Dates and times in text: what the filters `date`, `time` and `to_date` make of a cell.

Each spelling is read in the one way that it can be meant, or refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from bulkmail.model.lazy import lazy_pattern

LONGEST = 60  # characters of a text that is read as a date or a time
ORDERS = ("dmy", "mdy", "ymd")
EXCEL, EXCEL_1904, ISO = "excel", "excel1904", "iso"
FORMS = (ISO, *ORDERS, EXCEL, EXCEL_1904)
"""The forms that `read=` takes, beside a locale such as `en_US` and a form such as `%d.%m.%y`."""

_FIRST_YEAR = 1583  # of the calendar; programs write year 1 where they have no date
_LAST_SERIAL = 2_958_465  # 9999-12-31
_FIRST_SERIAL = 61  # 1900-03-01: below, Excel counts a day that there was not
_EPOCHS = {EXCEL: date(1899, 12, 30), EXCEL_1904: date(1904, 1, 1)}

_TIME = (
    r"(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:[.,][0-9]{1,9})?)?"
    r"(?:\s?(?P<half>[aApP])\.?[mM]\.?)?(?:\s?(?P<offset>Z|UTC|[-+][0-9]{2}:?[0-9]{2}))?"
)
_SEPARATED = lazy_pattern(
    r"(?P<a>[0-9]{1,4})(?P<mark>[-./])\s?(?P<b>[0-9]{1,2})(?P=mark)\s?(?P<c>[0-9]{1,4})(?P<end>\.?)"
    rf"(?:(?:T|,?\s+)(?P<time>{_TIME}))?"
)
_COMPACT = lazy_pattern(r"(?P<y>(?:19|20)[0-9]{2})(?P<m>[0-9]{2})(?P<d>[0-9]{2})")
_JAPANESE = lazy_pattern(r"(?P<y>[0-9]{4})年(?P<m>[0-9]{1,2})月(?P<d>[0-9]{1,2})日")
_DAY_FIRST = lazy_pattern(
    r"(?P<d>[0-9]{1,2})\.?\s(?:de\s)?(?P<month>[^\W\d_]+)\.?,?\s(?:de\s)?(?P<y>[0-9]{4})(?:\s?г\.?)?"
    rf"(?:,?\s+(?P<time>{_TIME}))?"
)
_MONTH_FIRST = lazy_pattern(
    rf"(?P<month>[^\W\d_]+)\.?\s(?P<d>[0-9]{{1,2}}),?\s(?P<y>[0-9]{{4}})(?:,?\s+(?P<time>{_TIME}))?"
)
_DASHED_NAME = lazy_pattern(r"(?P<d>[0-9]{1,2})-(?P<month>[^\W\d_]+)-(?P<y>[0-9]{4})")
_TIME_ALONE = lazy_pattern(_TIME)
_SERIAL = lazy_pattern(r"[0-9]{1,7}(?:\.[0-9]{1,15})?")
_DIRECTIVES = lazy_pattern(r"%(.?)")
_KNOWN_DIRECTIVES = frozenset("dmYyHMSIp%j")

Months = Mapping[str, int]
"""Names of months, without a dot and case-folded, and the number of each."""


class NotADate(ValueError):
    """A text cannot be read as a date or a time; the message is a predicate."""


class TwoReadings(NotADate):
    """A text is a date that can be read in two ways."""


class TwoDigitYear(TwoReadings):
    """The year is written with two digits."""


class NoZone(NotADate):
    """A moment in UTC, and no time zone says what day and hour it is for the recipients."""


def read_moment(
    value: object, form: str = "", *, months: Months | None = None, zone: tzinfo | None = None
) -> datetime | date:
    """The date that `value` is, with the time of day if it says one.

    `form` is one of `FORMS`, a form for `strptime`, or empty: then only what can be meant in one way is read.  `months`
    are the names of months that count.  A moment with a time zone is given in `zone`.  Raises `NotADate`.
    """
    match value:
        case datetime():
            return _placed(value, zone)
        case date():
            return value
        case bool():
            raise NotADate("is not a date")
        case int() | float() if form in _EPOCHS:
            return _of_serial(float(value), form)
        case int() | float():
            raise NotADate("is a number, not a date")
        case str():
            return _read(value, form, months or {}, zone)
    raise NotADate("is not a date")


def read_time(value: object, form: str = "", *, months: Months | None = None, zone: tzinfo | None = None) -> time:
    """The time of day that `value` is or that follows its date.  As `read_moment`."""
    if isinstance(value, time):
        return value
    if isinstance(value, str) and (found := _TIME_ALONE.fullmatch(value.strip())):
        if found["offset"]:
            raise NotADate("is a time in another zone, without a date")
        return _time_of(found)
    if isinstance(value, str) and "%" in form and not has_date(form):
        return _by_form(" ".join(value.split()), form).time()
    if form in _EPOCHS and (fraction := _fraction(value)) is not None:
        return _time_of_serial(fraction)
    moment = read_moment(value, form, months=months, zone=zone)
    if not isinstance(moment, datetime):
        raise NotADate("says no time of day")
    return moment.time()


def form_fault(form: str) -> str:
    """What is wrong with a form for `strptime`, as a predicate; nothing for a sound one."""
    directives = set(_DIRECTIVES.findall(form))
    if unknown := directives - _KNOWN_DIRECTIVES:
        known = ", ".join(f"%{known}" for known in sorted(_KNOWN_DIRECTIVES))
        return f"has %{min(unknown)}, expected only {known}"
    if directives & set("dmYyj") and not (directives & set("yY") and ({"d", "m"} <= directives or "j" in directives)):
        return "does not say day, month and year"
    return ""


def has_date(form: str) -> bool:
    """Whether a form for `strptime` has a day in it."""
    return bool(re.search("%[dj]", form))


def _read(value: str, form: str, months: Months, zone: tzinfo | None) -> datetime | date:
    text = " ".join(value.replace("\u200e", "").split())  # Excel and browsers put a mark of direction in front
    if not text:
        raise NotADate("is empty, not a date")
    if len(text) > LONGEST:
        raise NotADate(f"is longer than {LONGEST} characters")
    if "%" in form:
        if not has_date(form):
            raise NotADate("is to be a date, and the form says none")
        found_by_form = _by_form(text, form)
        return found_by_form if re.search("%[HI]", form) else found_by_form.date()
    if form in _EPOCHS and _SERIAL.fullmatch(text):
        return _of_serial(float(text), form)
    if found := _SEPARATED.fullmatch(text):
        return _with_time(_date_of(found, form), found, zone)
    if form in ("", ISO, "ymd") and (found := _COMPACT.fullmatch(text) or _JAPANESE.fullmatch(text)):
        return _valid(found["y"], found["m"], found["d"])
    if form not in (ISO, EXCEL, EXCEL_1904) and (
        found := _DAY_FIRST.fullmatch(text) or _MONTH_FIRST.fullmatch(text) or _DASHED_NAME.fullmatch(text)
    ):
        month = months.get(found["month"].casefold())
        if not month:
            raise NotADate(f"has the month {found['month']!r}, which is not known in this language")
        return _with_time(_valid(found["y"], month, found["d"]), found, zone)
    if _SERIAL.fullmatch(text):
        raise NotADate("is a number, not a date")
    raise NotADate("is not a date")


def _date_of(found: re.Match[str], form: str) -> date:
    a, b, c, mark = found["a"], found["b"], found["c"], found["mark"]
    if len(a) == 4 and len(c) <= 2 and (not found["end"] or mark == "."):
        return _valid(a, b, c)  # no country writes year, day, month
    if form == ISO:
        raise NotADate("is not a date of the form 2026-12-31")
    if len(c) < 4 and len(a) < 4:
        raise TwoDigitYear("has a year of two digits") if len(c) == 2 or len(a) == 2 else NotADate("is not a date")
    if len(a) > 2 or (found["end"] and mark != ".") or form == "ymd":
        raise NotADate("is not a date")
    if form == "dmy" or (mark == "." and form != "mdy"):  # no country writes the month first with dots
        return _valid(c, b, a)
    if form == "mdy":
        return _valid(c, a, b)
    first, second = int(a), int(b)
    if first != second and first <= 12 and second <= 12:
        raise TwoReadings(f"may be {c}-{second:02}-{first:02} or {c}-{first:02}-{second:02}")
    return _valid(c, b, a) if first > 12 else _valid(c, a, b)


def _valid(year: str | int, month: str | int, day: str | int) -> date:
    try:
        found = date(int(year), int(month), int(day))
    except ValueError:
        raise NotADate(f"is not a date: there is no day {int(day)} of month {int(month)} in {int(year)}") from None
    if found.year < _FIRST_YEAR:
        raise NotADate(f"is not a date: programs write the year {found.year} where they have none")
    return found


def _with_time(day: date, found: re.Match[str], zone: tzinfo | None) -> datetime | date:
    if "time" not in found.groupdict() or not found["time"]:
        return day
    moment = datetime.combine(day, _time_of(found))
    offset = found["offset"]
    if not offset:
        return moment
    if offset in ("Z", "UTC"):
        return _placed(moment.replace(tzinfo=UTC), zone)
    try:
        placed = datetime.fromisoformat(f"{moment.isoformat()}{offset}")
    except ValueError:
        raise NotADate("has an offset from UTC that there is not") from None
    return _placed(placed, zone)


def _time_of(found: re.Match[str]) -> time:
    hour = int(found["hour"])
    if half := found["half"]:
        if not 1 <= hour <= 12:
            raise NotADate("is not a time of day")
        hour = hour % 12 + (12 if half in "pP" else 0)
    try:
        return time(hour, int(found["minute"]), int(found["second"] or 0))
    except ValueError:
        raise NotADate("is not a time of day") from None


def _placed(moment: datetime, zone: tzinfo | None) -> datetime:
    """The moment as the clocks of `zone` show it."""
    if moment.tzinfo is None:
        return moment
    if zone is not None:
        return moment.astimezone(zone)
    if not moment.utcoffset():
        raise NoZone("is a moment in UTC, and may be another day where the recipients are")
    return moment


def _of_serial(number: float, form: str) -> datetime | date:
    if not _FIRST_SERIAL <= number <= _LAST_SERIAL:
        raise NotADate(f"is not a date: Excel counts days from {_FIRST_SERIAL} (1900-03-01) to {_LAST_SERIAL:,}")
    day = _EPOCHS[form] + timedelta(days=int(number))
    return day if number == int(number) else datetime.combine(day, _time_of_serial(number % 1))


def _fraction(value: object) -> float | None:
    """A number of Excel's that is a time alone."""
    if isinstance(value, str):
        value = float(value) if re.fullmatch(r"0?\.[0-9]{1,17}", value.strip()) else None
    return float(value) if isinstance(value, float) and 0 <= value < 1 else None


def _time_of_serial(fraction: float) -> time:
    seconds = round(fraction * 86_400)
    if seconds == 86_400:
        raise NotADate("is not a time of day")
    return (datetime.min + timedelta(seconds=seconds)).time()


def _by_form(text: str, form: str) -> datetime:
    try:
        found = datetime.strptime(text, form)
    except ValueError:
        raise NotADate(f"is not a date of the form {form}") from None
    return found
