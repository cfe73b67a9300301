"""When messages may go by the clock: hours of the week, the start of a campaign, and a time for each recipient."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from itertools import pairwise

from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.model.quantities import say_duration
from bulkmail.text import printable

# -- Hours of the week in which messages go out, by the clocks of a time zone; also the moment that a campaign begins.


FindZone = Callable[[str], tzinfo]
"""The zone of a name such as `"Europe/Vienna"`, of this machine for the empty one.  Raises `ConfigError`."""

MINUTES = 24 * 60  # of a day
HINT = 'write "Mon-Fri 09:00-17:00 Europe/Vienna"; several of them with ; between'
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FULL_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SPAN = lazy_pattern(r"(\d{1,2})(?::(\d{2}))?\s*[-–]\s*(\d{1,2})(?::(\d{2}))?")
_ZONE = lazy_pattern(r"(?:UTC|GMT|[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)+)")


@dataclass(frozen=True, slots=True)
class Window:
    """Open on `days` (0 is Monday) from `begins` to before `ends`, in minutes since midnight by the clocks of `zone`.

    `ends` may be 1440, the end of the day.  With `ends` not after `begins` it goes on into the next day.
    """

    days: frozenset[int]
    begins: int
    ends: int
    zone: tzinfo

    def is_open(self, now: float) -> bool:
        """Whether the clocks of the zone show a time inside it at `now`, wall-clock seconds.

        An hour that clocks show twice in autumn is open twice, one that they skip in spring is not at all.
        """
        shown = datetime.fromtimestamp(now, self.zone)
        minute = shown.hour * 60 + shown.minute
        if self.begins < self.ends:
            return shown.weekday() in self.days and self.begins <= minute < self.ends
        begun_today = shown.weekday() in self.days and minute >= self.begins
        return begun_today or ((shown.weekday() - 1) % 7 in self.days and minute < self.ends)

    def edges(self, now: float) -> Iterator[float]:
        """All instants from a day before `now` to nine days after it at which it may open or close."""
        first = datetime.fromtimestamp(now, self.zone).date() - timedelta(days=1)
        minutes = frozenset({self.begins, self.ends % MINUTES})
        for ahead in range(11):
            yield from _edges_of(first + timedelta(days=ahead), minutes, self.zone)


@dataclass(frozen=True, slots=True)
class Windows:
    """Open when one of `each` is; always, when there are none.  Times are wall-clock seconds.

    Nothing is remembered between two questions, so that a clock that is set, or a laptop that slept, is no trouble.
    """

    each: tuple[Window, ...] = ()

    def is_open(self, now: float) -> bool:
        """Whether messages may go out at `now`."""
        return not self.each or any(window.is_open(now) for window in self.each)

    def next_open(self, now: float) -> float:
        """The first instant from `now` on at which messages may go out."""
        if self.is_open(now):
            return now
        # A week holds the answer, unless its one opening fell into the hour that clocks skip in spring.
        for week in range(60):
            for edge in self._edges_after(now + week * _WEEK):
                if self.is_open(edge):
                    return edge
        raise AssertionError(f"a window that never opens: {self}")

    def closes_at(self, now: float) -> float | None:
        """The first instant after `now` at which messages may not go out; None when there is none within nine days."""
        return next((edge for edge in self._edges_after(now) if not self.is_open(edge)), None) if self.each else None

    def _edges_after(self, now: float) -> list[float]:
        return sorted({edge for window in self.each for edge in window.edges(now) if edge > now})


_WEEK = 7 * 86400.0
ALWAYS = Windows()


@lru_cache(maxsize=512)  # a run that waits asks every few seconds, and for eleven days each time
def _edges_of(day: date, minutes: frozenset[int], zone: tzinfo) -> tuple[float, ...]:
    """When clocks of `zone` show these minutes of `day`, each time they do, and when they are set."""
    found = list(_changes(day, zone))
    for minute in minutes:
        shown = datetime.combine(day, time(minute // 60, minute % 60), zone)
        found += (shown.timestamp(), shown.replace(fold=1).timestamp())
    return tuple(found)


def _changes(day: date, zone: tzinfo) -> Iterator[float]:
    """The instant in `day`, if any, at which the clocks of `zone` are set: found by halving, to the second."""
    low = int(datetime.combine(day, time(), zone).timestamp())
    high = int(datetime.combine(day + timedelta(days=1), time(), zone).timestamp())
    before = _offset(low, zone)
    if _offset(high, zone) != before:
        yield change_between(low, high, zone)


def change_between(low: int, high: int, zone: tzinfo) -> float:
    """The instant after `low` and until `high` at which the clocks of `zone` are set; they are, between the two."""
    before = _offset(low, zone)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(middle, zone) == before:
            low = middle
        else:
            high = middle
    return float(high)


def _offset(at: float, zone: tzinfo) -> timedelta | None:
    return datetime.fromtimestamp(at, zone).utcoffset()


def parse_windows(text: str, find_zone: FindZone) -> Windows:
    """The windows in `"Mon-Fri 09:00-12:00 13:00-17:00 Europe/Vienna; Sat 9-12"`.  Raises `ConfigError`.

    Without days it is every day; without a zone that of the window before it, of the first the one that follows, and
    when none is named this machine's.
    """
    parts = [part.strip() for part in text.split(";")]
    if not all(parts):
        raise ConfigError(f"the window {text!r} has an empty part", hint=HINT)
    names = [_zone_name(part) for part in parts]
    first = next((name for name in names if name), "")
    windows, zone = list[Window](), find_zone(first)
    for part, name in zip(parts, names, strict=True):
        zone = find_zone(name) if name else zone
        windows += _parse_part(part.removesuffix(name), zone)
    return Windows(tuple(windows))


def _zone_name(part: str) -> str:
    last = part.split()[-1]
    return last if _ZONE.fullmatch(last) else ""


def _parse_part(part: str, zone: tzinfo) -> Iterator[Window]:
    spans = list(_SPAN.finditer(part))
    if not spans:
        raise ConfigError(f"{part.strip()!r} is not a valid sending window: it has no hours", hint=HINT)
    days = _parse_days(part[: spans[0].start()])
    between = [part[one.end() : other.start()] for one, other in pairwise(spans)]
    after = part[spans[-1].end() :].strip()
    if after or any(text.strip() not in ("", ",", "and") for text in between):
        raise ConfigError(f"cannot read {after or part.strip()!r} in a window", hint=HINT)
    for span in spans:
        begins, ends = _minute(span[1], span[2]), _minute(span[3], span[4])
        if begins in (ends, MINUTES):
            raise ConfigError(f"the window {span[0]!r} lasts no time", hint='write "00:00-24:00" for the whole day')
        yield Window(days, begins, ends, zone)


def _parse_days(text: str) -> frozenset[int]:
    words = text.strip().lower().rstrip(",").strip()
    if words in ("", "daily", "every day"):
        return frozenset(range(7))
    days: set[int] = set()
    for part in re.split(r"\s*,\s*|\s+and\s+|\s+(?![-–])(?<![-–]\s)", words):
        first, dash, last = (piece.strip() for piece in part.replace("–", "-").partition("-"))
        begin = _day(first)
        end = _day(last) if dash else begin
        days |= {(begin + n) % 7 for n in range((end - begin) % 7 + 1)}
    return frozenset(days)


def _day(word: str) -> int:
    word = word.rstrip(".")
    for number, (short, full) in enumerate(zip(_DAYS, _FULL_DAYS, strict=True)):
        if len(word) >= 3 and full.startswith(word) and word.startswith(short):
            return number
    raise ConfigError(f"{word!r} is not a day of the week", hint="the days are Mon, Tue, Wed, Thu, Fri, Sat and Sun")


def _minute(hour: str, minute: str | None) -> int:
    minutes = int(hour) * 60 + int(minute or 0)
    if minutes > MINUTES or int(minute or 0) > 59:
        raise ConfigError(f"{hour}:{minute or '00'} is not a time of day", hint='write "09:00-17:00"')
    return minutes


_START = lazy_pattern(
    r"(?P<date>\d{4}-\d{2}-\d{2})(?:[T ]\s*(?P<time>\d{1,2}:\d{2}(?::\d{2})?))?\s*"
    r"(?P<zone>Z|[+-]\d{2}:?\d{2}|\S+/\S+|UTC|GMT)?"
)
START_HINT = 'write "2026-12-01 09:00 Europe/Vienna"'


def parse_start(text: str, find_zone: FindZone) -> float:
    """Wall-clock seconds of `"2026-12-01 09:00 Europe/Vienna"`, `"2026-12-01T09:00+01:00"`.  Raises `ConfigError`.

    Without a zone it is this machine's.  A time that clocks show twice is the first of the two.
    """
    found = _START.fullmatch(text.strip())
    if not found or found["time"] is None:
        what = "names no time of day" if found else "is not a moment"
        raise ConfigError(f"the start {text!r} {what}", hint=START_HINT)
    name, clock = found["zone"] or "", found["time"].rjust(8 if found["time"].count(":") == 2 else 5, "0")
    try:
        if name == "Z" or name[:1] in ("+", "-"):
            return datetime.fromisoformat(f"{found['date']}T{clock}{name}").timestamp()
        shown = datetime.fromisoformat(f"{found['date']}T{clock}")
    except ValueError:
        raise ConfigError(f"there is no such moment as {text!r}", hint=START_HINT) from None
    zone = find_zone(name)
    try:
        start = shown.replace(tzinfo=zone).timestamp()
        back = datetime.fromtimestamp(start, zone).replace(tzinfo=None)
    except (ValueError, OverflowError, OSError):
        raise ConfigError(f"there is no such moment as {text!r}", hint=START_HINT) from None
    if back != shown:
        raise ConfigError(
            f"clocks do not show {text!r}: they are put forward then", hint=f'write "{back:%Y-%m-%d %H:%M}"'
        )
    return start


def say_moment(at: float, zone: tzinfo | None = UTC, *, now: float | None = None) -> str:
    """`"Mon 30 November 09:00"`, and `"09:00"` when it is on the day of `now`.  `zone` None is this machine's."""
    shown = datetime.fromtimestamp(at, zone)
    if now is not None and datetime.fromtimestamp(now, zone).date() == shown.date():
        return f"{shown:%H:%M}"
    return f"{_DAYS[shown.weekday()].capitalize()} {shown.day} {_MONTHS[shown.month - 1]} {shown:%H:%M}"


def say_until(at: float, now: float) -> str:
    """`"Mon 30 November 09:00 CET"` by this machine's clocks, the day left out if it is today's."""
    return f"{say_moment(at, None, now=now)} {datetime.fromtimestamp(at).astimezone():%Z}".rstrip()


_MONTHS = tuple("January February March April May June July August September October November December".split())  # noqa: SIM905


# -- When each recipient is sent to: `send_at` and `timezone`, one for all or from columns of the list.


COLUMN = "column:"
"""In front of the name of a column that has the value of each row."""

LATEST = 86_400.0
"""Seconds by which a planned time may be over and still is sent at once; older ones are a fault of the list."""

EXPECTED = '"2026-12-24 09:00", with or without +01:00 or Europe/Vienna behind it, "09:00" for the next one, or "now"'
_DAY = timedelta(days=1)
_MOMENT = lazy_pattern(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T ]\s*(?P<time>[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?))?"
    r"\s*(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2}|[A-Za-z_]+/\S+|UTC|GMT)?"
)
_TIME_ALONE = lazy_pattern(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?")
_SERIAL = lazy_pattern(r"[0-9]{5}(?:\.[0-9]{1,15})?")  # days since 1899-12-30: 1927 to 2173
_EXCEL_BEGINS = datetime(1899, 12, 30)
_LONGEST = 60  # characters of a value


@dataclass(frozen=True, slots=True)
class Schedule:
    """Planned times as settings say them.

    `send_at` is a time or `"column:NAME"`.  `timezone` is the name of a zone, `"column:NAME"`, or empty.  `fallback` is
    the zone where `timezone` is empty or its column is, itself empty for this machine's zone.
    """

    send_at: str
    timezone: str = ""
    fallback: str = ""

    @property
    def time_column(self) -> str:
        """The column that holds the times, or empty."""
        return column_of(self.send_at)

    @property
    def zone_column(self) -> str:
        """The column that holds the names of the zones, or empty."""
        return column_of(self.timezone)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the list that it reads."""
        return tuple(column for column in (self.time_column, self.zone_column) if column)

    def moment(self, fields: Mapping[str, object], find_zone: FindZone, *, now: float) -> float:
        """Wall-clock seconds at which the row with these `fields` is to be sent to, `now` included.

        A time without a day is the next one from `now` on.  Raises `ConfigError` with column, value and what is
        expected.
        """
        zone = self._zone(fields, find_zone)
        column = self.time_column
        value = fields.get(column) if column else self.send_at
        text = written(value)
        try:
            return read_moment(text, zone, find_zone, now=now)
        except ConfigError as error:
            what = f"{column}: " if column else "send_at: "
            raise ConfigError(f"{what}{printable(text, _LONGEST)!r} {error}", hint=error.hint) from None

    def due_at(self, fields: Mapping[str, object], find_zone: FindZone, *, now: float, latest: float = LATEST) -> float:
        """As `moment()`, 0 for at once.  A time more than `latest` seconds before `now` is a `ConfigError`."""
        at = self.moment(fields, find_zone, now=now)
        if now - at > latest:
            column = self.time_column
            text = printable(written(fields.get(column) if column else self.send_at), _LONGEST)
            raise ConfigError(
                f"{column or 'send_at'}: {text!r} was {say_duration(now - at)} ago: expected a time to come,"
                ' one that passed less than a day ago, or "now"'
            )
        return at if at > now else 0.0

    def _zone(self, fields: Mapping[str, object], find_zone: FindZone) -> tzinfo:
        column = self.zone_column
        if not column:
            return find_zone(self.timezone or self.fallback)
        name = written(fields.get(column))
        if not name and not self.fallback:
            raise ConfigError(f"{column}: is empty: expected a time zone such as Europe/Vienna")
        try:
            return find_zone(name or self.fallback)
        except ConfigError as error:
            hint = f" ({error.hint})" if error.hint else ""
            raise ConfigError(f"{column}: {error}: expected one such as Europe/Vienna{hint}") from None


def column_of(text: str) -> str:
    """`"when"` for `"column:when"`, empty for what is no column."""
    return text[len(COLUMN) :].strip() if text.startswith(COLUMN) else ""


def written(value: object) -> str:
    """A cell as text."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    return " ".join(str(value).replace("\u200e", "").split())  # Excel and browsers put a mark of direction in front


def read_moment(text: str, zone: tzinfo, find_zone: FindZone, *, now: float) -> float:
    """Wall-clock seconds of a time as a list or a setting writes it, by the clocks of `zone` unless it names another.

    A time that clocks skip is the moment at which they are put forward; of one that they show twice it is the first.
    Raises `ConfigError`, a predicate.
    """
    if text.lower() == "now":
        return now
    if found := _TIME_ALONE.fullmatch(text):
        return next_at(_clock(*found.groups()), zone, now=now)
    if _SERIAL.fullmatch(text):
        seconds = round(float(text) * 86_400)
        return instant(_EXCEL_BEGINS + timedelta(seconds=seconds), zone)  # as a sheet has it without a date format
    found = _MOMENT.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None:
        raise ConfigError(f"is {'empty' if not text else 'not a time'}: expected {EXPECTED}")
    if found["time"] is None:
        raise ConfigError(f"says no time of day: expected {EXPECTED}")
    try:
        date = datetime.fromisoformat(found["date"]).date()
    except ValueError:
        raise ConfigError(f"is a day that there is not: expected {EXPECTED}") from None
    clock, _, fraction = found["time"].partition(".")
    hour, minute, *second = clock.split(":")
    shown = datetime.combine(date, _clock(hour, minute, second[0] if second else None))
    shown += timedelta(microseconds=int(fraction[:6].ljust(6, "0")))  # no message goes before its time
    name = found["zone"] or ""
    if name in ("Z", "UTC", "GMT"):
        return instant(shown, UTC)
    if name[:1] in ("+", "-"):
        try:
            return datetime.fromisoformat(f"{shown.isoformat()}{name}").timestamp()
        except (ValueError, OverflowError):
            raise ConfigError(f"has an offset that there is not: expected {EXPECTED}") from None
    try:
        return instant(shown, find_zone(name) if name else zone)
    except ConfigError as error:
        raise ConfigError(f"cannot be placed in time: {error}", hint=error.hint) from None


def _clock(hour: str, minute: str, second: str | None) -> time:
    try:
        return time(int(hour), int(minute), int(second or 0))
    except ValueError:
        raise ConfigError(f"is not a time of day: expected {EXPECTED}") from None


def next_at(clock: time, zone: tzinfo, *, now: float) -> float:
    """The first instant from `now` on at which the clocks of `zone` show this time."""
    day = datetime.fromtimestamp(now, zone).date()
    for ahead in range(3):
        at = instant(datetime.combine(day + ahead * _DAY, clock), zone)
        if at >= now:
            return at
    raise AssertionError("a day after tomorrow that is over")


def instant(shown: datetime, zone: tzinfo) -> float:
    """Wall-clock seconds at which the clocks of `zone` show this: the first time if twice, else when they skip it."""
    try:
        at = shown.replace(tzinfo=zone).timestamp()
        if datetime.fromtimestamp(at, zone).replace(tzinfo=None) == shown:
            return at
        before = shown.replace(tzinfo=zone, fold=1).timestamp()
        return change_between(int(before), int(at), zone)
    except (ValueError, OverflowError, OSError):
        raise ConfigError("there is no such time") from None


@dataclass(frozen=True, slots=True)
class Planned:
    """What is left of the planned times of a run: rows never tried, by when they are due.

    `later` rows are due from `first_at` to `last_at`, wall-clock seconds; `zones` counts them by time zone, the one
    with most first, and is empty unless a column names the zones and a time is still to come.
    """

    at_once: int
    later: int
    first_at: float | None = None
    last_at: float | None = None
    zones: tuple[tuple[str, int], ...] = ()

    def sentence(self, now: float) -> str:
        """`"120 at once, 880 from Thu 24 December 09:00 CET to Fri 25 December 09:00 CET; Europe/Vienna 400, …"`."""
        said = [f"{self.at_once:,} at once"] if self.at_once else []
        if self.first_at is not None and self.last_at is not None:
            first, last = say_until(self.first_at, now), say_until(self.last_at, now)
            said.append(f"{self.later:,} at {first}" if first == last else f"{self.later:,} from {first} to {last}")
        shown = self.zones[:_MOST_ZONES]
        zones = [f"{printable(name, 40)} {number:,}" for name, number in shown]
        if len(self.zones) > len(shown):
            left = self.zones[_MOST_ZONES:]
            zones.append(f"{len(left)} other zones {sum(number for _, number in left):,}")
        return ", ".join(said or ["nothing"]) + (f"; {', '.join(zones)}" if zones else "")


_MOST_ZONES = 5  # that a sentence names
