"""Planned times of a run: given to its rows when they are loaded, frozen in its outbox, shown before it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo

from bulkmail.model.errors import ConfigError
from bulkmail.model.pace import Pace
from bulkmail.model.schedule import LATEST, Planned, Schedule, say_until, written
from bulkmail.outbox.outbox import Outbox
from bulkmail.settings.parsers import find_zone
from bulkmail.text import printable

_MOST_ZONES = 1_000  # names that are kept, known or not
_MOST_HOURS = 500
_MOST_KNOWN = 50_000  # of what rows say


class Planner:
    """When each row of a list is due, counted from one instant: that at which the run is loaded.

    With `is_rehearsal` the times are read, and none is waited for.  `moment` is what the templates call `now`: the
    planned time where it is the same for all, else that of loading.  Reads time zones from files.  Raises `ConfigError`
    for a time that holds for all rows and cannot be kept.
    """

    def __init__(self, schedule: Schedule, *, now: float, is_rehearsal: bool) -> None:
        self._schedule = schedule
        self._now = now
        self._is_rehearsal = is_rehearsal
        self._zones: dict[str, tzinfo | ConfigError] = {}
        self._known: dict[tuple[object, ...], float] = {}  # most rows say what others say, too
        if not schedule.columns:
            schedule.due_at({}, self._zone, now=now)
        elif not schedule.time_column:  # a fault of the time itself is not one of each row
            # No zone is more than a day from UTC: later than that, it is over wherever the recipients are.
            Schedule(schedule.send_at, fallback="UTC").due_at({}, self._zone, now=now, latest=2 * LATEST)

        self.moment = self._find_moment()

    def _find_moment(self) -> float:
        schedule = self._schedule
        if schedule.time_column:
            return self._now
        fixed = Schedule(schedule.send_at, "" if schedule.zone_column else schedule.timezone, schedule.fallback)
        return max(self._now, fixed.moment({}, self._zone, now=self._now))

    def due_at(self, fields: Mapping[str, object]) -> float:
        """Wall-clock seconds, 0 for at once.  Raises `ConfigError` for a row whose time cannot be kept."""
        said = tuple(map(fields.get, self._schedule.columns))
        due_at = self._known.get(said) if all(isinstance(value, str) for value in said) else None
        if due_at is None:
            due_at = self._schedule.due_at(fields, self._zone, now=self._now)
            if len(self._known) < _MOST_KNOWN and all(isinstance(value, str) for value in said):
                self._known[said] = due_at
        return 0.0 if self._is_rehearsal else due_at

    def check_columns(self, columns: Sequence[str]) -> None:
        """Raises `ConfigError` when the list, unless it is empty, has no column of that name."""
        for column in self._schedule.columns:
            if columns and column not in columns:
                known = ", ".join(printable(name, 40) for name in columns[:20]) or "none"
                setting = "send_at" if column == self._schedule.time_column else "timezone"
                raise ConfigError(
                    f"{setting}: the list has no column {printable(column, 60)!r}", hint=f"its columns are {known}"
                )

    def _zone(self, name: str) -> tzinfo:
        """A list names few zones, and a million rows."""
        found = self._zones.get(name)
        if found is None:
            try:
                found = find_zone(name)
            except ConfigError as error:
                found = error
            if len(self._zones) < _MOST_ZONES:
                self._zones[name] = found
        if isinstance(found, ConfigError):
            raise ConfigError(str(found), hint=found.hint)
        return found


def make_schedule(send_at: str | datetime, timezone: str, *, fallback: str) -> Schedule | None:
    """The schedule that a program asks for; None for at once.  Raises `ConfigError`."""
    text = written(send_at)
    if not text:
        if timezone:
            raise ConfigError("timezone has no effect without send_at", hint='say send_at="09:00" as well')
        return None
    return Schedule(text, timezone.strip(), fallback)


def planned_now(outbox: Outbox, now: float) -> Planned | None:
    """What is planned in `outbox`; None for a run without planned times and for a rehearsal, which waits for none."""
    schedule = outbox.info.schedule
    if schedule is None or outbox.is_rehearsal:
        return None
    return outbox.planned(now, zone_column=schedule.zone_column, fallback=schedule.fallback)


def demand_of(outbox: Outbox, now: float) -> list[tuple[float, int]]:
    """From when on how many deliveries of `outbox` may go, where that is planned: the first 500 hours at most."""
    if outbox.is_rehearsal or outbox.info.schedule is None:
        return []
    return outbox.demand(now, most=_MOST_HOURS)


def planned_until(outbox: Outbox, pace: Pace) -> float:
    """The last instant, wall-clock seconds, that a run waits for because a message is planned for then; 0 for none.

    A time outside the hours of sending is kept when they begin.  With `wait = 0` nothing is waited for.
    """
    if pace.wait <= 0 or outbox.is_rehearsal or outbox.info.schedule is None:
        return 0.0
    last = outbox.last_planned()
    return pace.windows.next_open(max(last, pace.start or 0.0)) if last else 0.0


def notices_of(schedule: Schedule | None, *, is_rehearsal: bool, asks_for_now: bool) -> list[str]:
    """What may surprise the user of a run with planned times."""
    if schedule is None:
        return []
    found = []
    if is_rehearsal:
        found.append("a rehearsal does not wait for planned times (send_at): all of its messages go at once")
    if schedule.time_column and asks_for_now:
        found.append(
            f"the message uses now or today, which is the time of loading for all rows, whatever"
            f" {printable(schedule.time_column, 40)!r} says"
        )
    return found


def say_plan(planned: Planned, pace: Pace, now: float) -> str:
    """The plan in words, with what has to be done for it."""
    said = planned.sentence(now)
    if not planned.later:
        return said
    if pace.wait <= 0:
        return f"{said}; with --wait 0 only what is due goes now: run bulkmail resume again, by cron, for the rest"
    until = say_until(planned.last_at or now, now)
    return f"{said}; keep this program running until {until}, or add --wait 0 and run bulkmail resume by cron"
