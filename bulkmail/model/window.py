"""Hours of the week in which messages go out, by the clocks of a time zone; also the moment that a campaign begins."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import pairwise

from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.model.pattern import lazy_pattern

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
        for ahead in range(11):
            day = first + timedelta(days=ahead)
            yield from _changes(day, self.zone)
            for minute in {self.begins, self.ends % MINUTES}:
                shown = datetime.combine(day, time(minute // 60, minute % 60), self.zone)
                yield shown.timestamp()
                yield shown.replace(fold=1).timestamp()


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


_MOMENT = lazy_pattern(
    r"(?P<date>\d{4}-\d{2}-\d{2})(?:[T ]\s*(?P<time>\d{1,2}:\d{2}(?::\d{2})?))?\s*"
    r"(?P<zone>Z|[+-]\d{2}:?\d{2}|\S+/\S+|UTC|GMT)?"
)
START_HINT = 'write "2026-12-01 09:00 Europe/Vienna"'


def parse_start(text: str, find_zone: FindZone) -> float:
    """Wall-clock seconds of `"2026-12-01 09:00 Europe/Vienna"`, `"2026-12-01T09:00+01:00"`.  Raises `ConfigError`.

    Without a zone it is this machine's.  A time that clocks show twice is the first of the two.
    """
    found = _MOMENT.fullmatch(text.strip())
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
