"""When each recipient is sent to: `send_at` and `timezone`, one for all or from columns of the list."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta, tzinfo

from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.model.pattern import lazy_pattern
from bulkmail.model.units import say_duration
from bulkmail.model.window import FindZone, change_between, say_until
from bulkmail.text import printable

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
