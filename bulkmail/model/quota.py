"""How many recipients an account may write to in an hour and a day, counted over rolling windows."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from bulkmail.model.errors import ConfigError
from bulkmail.model.pattern import lazy_pattern

HOUR, DAY = 3600.0, 86400.0
_HINT = 'write "2000/day", "500/hour" or "500/hour, 2000/day"'
_LIMIT = lazy_pattern(
    r"(?P<number>\d{1,3}(?:,\d{3})+|\d{1,9})\s*(?:/|per|an?)\s*(?P<unit>h|hour|hours|d|day|days|24 ?h)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Booking:
    """`count` recipients written to at `at`, wall-clock seconds."""

    at: float
    count: int


@dataclass(frozen=True, slots=True)
class Quota:
    """The most recipients in any 3,600 s and in any 86,400 s; None: as many as you like.  1 or more."""

    per_hour: int | None = None
    per_day: int | None = None

    def __str__(self) -> str:
        parts = [
            f"{limit:,}/{name}" for limit, name in ((self.per_hour, "hour"), (self.per_day, "day")) if limit is not None
        ]
        return ", ".join(parts) or "no quota"

    @property
    def limits(self) -> tuple[tuple[float, int], ...]:
        """Each window's seconds and the most recipients in it."""
        limits = ((HOUR, self.per_hour), (DAY, self.per_day))
        return tuple((span, limit) for span, limit in limits if limit is not None)

    def within(self, other: Quota) -> Quota:
        """What keeps both."""
        return Quota(_lower(self.per_hour, other.per_hour), _lower(self.per_day, other.per_day))

    def free(self, bookings: Iterable[Booking], now: float) -> int | None:
        """How many recipients may be written to now; None when there is no limit.

        Bookings later than `now` count as well: they are reserved, or the clock was set back.
        """
        if not self.limits:
            return None
        bookings = list(bookings)
        return min(
            max(0, limit - sum(booking.count for booking in bookings if booking.at + span > now))
            for span, limit in self.limits
        )

    def opens_at(self, bookings: Iterable[Booking], now: float, *, wanted: int = 1) -> float:
        """When `wanted` recipients may be written to, `now` or later, if there are no other bookings until then.

        More than a window ever holds are wanted as if they were what it holds.
        """
        latest, ordered = now, sorted(bookings, key=lambda booking: booking.at)
        for span, limit in self.limits:
            inside = [booking for booking in ordered if booking.at + span > now]
            surplus = sum(booking.count for booking in inside) + min(wanted, limit) - limit
            for booking in inside:
                if surplus <= 0:
                    break
                surplus -= booking.count
                latest = max(latest, booking.at + span)
        return latest


def _lower(one: int | None, other: int | None) -> int | None:
    return min((limit for limit in (one, other) if limit is not None), default=None)


NO_QUOTA = Quota()


def parse_quota(text: str) -> Quota:
    """The quota in `"2000/day"`, `"500/hour, 2000/day"`, `"2,000 per day"`.  Raises `ConfigError`."""
    found: dict[str, int] = {}
    # A comma between digits belongs to the number: "2,000/day".
    for part in re.split(r",(?!\d{3}(?!\d))|;|\band\b", text):
        limit = _LIMIT.fullmatch(part.strip())
        if not limit:
            raise ConfigError(f"cannot read {part.strip()!r} in the quota {text!r}", hint=_HINT)
        span = "hour" if limit["unit"].lower()[0] == "h" else "day"
        number = int(limit["number"].replace(",", ""))
        if not number:
            raise ConfigError("a quota of nothing sends nothing", hint=_HINT)
        if span in found:
            raise ConfigError(f"the quota {text!r} says twice how many in {_a(span)}", hint=_HINT)
        found[span] = number
    if found.get("hour", 0) > found.get("day", found.get("hour", 0)):
        raise ConfigError(f"the quota {text!r} allows more in an hour than in a day", hint=_HINT)
    return Quota(found.get("hour"), found.get("day"))


def _a(span: str) -> str:
    return "an hour" if span == "hour" else "a day"
