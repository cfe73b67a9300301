"""How many recipients an account may write to in an hour and a day, and how that grows for a new sender."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable

from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy import dataclass, lazy_pattern

# -- How many recipients an account may write to in an hour and a day, counted over rolling windows.


HOUR, DAY = 3600.0, 86400.0
_HINT = 'write "2000/day", "500/hour" or "500/hour, 2000/day"'
_LIMIT = lazy_pattern(
    r"(?P<number>\d{1,3}(?:,\d{3})+|\d{1,9})\s*(?:/|per|an?)\s*(?P<unit>h|hour|hours|d|day|days|24 ?h)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class QuotaBooking:
    """`count` recipients written to at `at`, wall-clock seconds."""

    at: float
    count: int


@dataclasses.dataclass(frozen=True, slots=True)
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

    def free(self, bookings: Iterable[QuotaBooking], now: float) -> int | None:
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

    def opens_at(self, bookings: Iterable[QuotaBooking], now: float, *, wanted: int = 1) -> float:
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


# -- What is left of a reservation: recipients that may still be written to without asking the ledger.


class QuotaCredit:
    """The recipients of one reservation after another, spent one message at a time.

    Times are those of the clock that set `until`.  It never gives out more than was put in, nor any after `until`.
    """

    __slots__ = ("_left", "_until", "used")

    def __init__(self) -> None:
        self._left = 0
        self._until = 0.0
        self.used = 0

    def fill(self, count: int, *, until: float) -> None:
        """The recipients of a new reservation; what was left of the one before is lost, so settle that first."""
        self._left, self._until, self.used = count, until, 0

    def holds(self, count: int, now: float) -> bool:
        """Whether `count` recipients could be spent at `now`."""
        return count <= self._left and now < self._until

    def take(self, count: int, now: float) -> bool:
        """Spends `count` recipients; False, and nothing is spent, when there are not enough, or it is too late."""
        if not self.holds(count, now):
            return False
        self._left -= count
        self.used += count
        return True

    def give_back(self, count: int) -> None:
        """`count` recipients of messages that were not attempted after all.

        Those of an earlier reservation were settled as used, and stay so.
        """
        count = min(count, self.used)
        self._left += count
        self.used -= count


# -- A beginning that grows day by day: how many recipients a new sender may write to on its n-th day.


MOST = 10**9  # recipients a day: by then it is no ramp any more
_RAMP_HINT = 'write "200/day +30%", "200/day +100" or "200/day +30% up to 5000"'
_RAMP = lazy_pattern(
    r"(?P<first>\d{1,9})\s*(?:/|per|a)\s*(?:d|day)[\s,]*\+\s*(?P<step>\d{1,9}(?:\.\d{1,3})?)\s*(?P<percent>%)?"
    r"(?:\s*/\s*(?:d|day))?(?:[\s,]*(?:up )?to\s*(?P<top>\d{1,9}))?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Ramp:
    """`first` recipients on the first day, each day `percent` per cent and `more` recipients more, never over `top`.

    A day is 86,400 s from the first message of the campaign on; the calendar does not matter.
    """

    first: int
    percent: float = 0.0
    more: int = 0
    top: int | None = None

    def __str__(self) -> str:
        step = f"{self.percent:g}%" if self.percent else f"{self.more}"
        return f"{self.first}/day +{step}" + (f" up to {self.top}" if self.top is not None else "")

    def allowance(self, day: int) -> int:
        """How many on day number `day`, the first being 0.  Never fewer than the day before."""
        top = MOST if self.top is None else self.top
        if self.percent:
            # In logarithms: a campaign of three years would be over what a double holds.
            steep = day * math.log1p(self.percent / 100) + math.log(self.first)
            grown = top if steep > math.log(MOST) else math.floor(self.first * (1 + self.percent / 100) ** day + 1e-9)
        else:
            grown = self.first + self.more * day
        return min(top, grown)

    def day(self, began_at: float, now: float) -> int:
        """Which day it is; 0 also when the clock was set back to before the beginning."""
        return max(0, math.floor((now - began_at) / DAY))

    def begins_at(self, began_at: float, day: int) -> float:
        """When day number `day` begins, wall-clock seconds."""
        return began_at + day * DAY


def parse_ramp(text: str) -> Ramp:
    """The ramp in `"200/day +30%"`, `"200/day +100"`, `"200/day +30% up to 5000"`.  Raises `ConfigError`."""
    found = _RAMP.fullmatch(text.strip())
    if not found or (not found["percent"] and "." in found["step"]):
        raise ConfigError(f"cannot read the ramp {text!r}", hint=_RAMP_HINT)
    first, top = int(found["first"]), None if found["top"] is None else int(found["top"])
    if not first:
        raise ConfigError(f"the ramp {text!r} begins with nothing", hint=_RAMP_HINT)
    if not float(found["step"]):
        raise ConfigError(
            f"the ramp {text!r} does not grow", hint=f'write quota = "{first}/day" for the same every day'
        )
    if top is not None and top < first:
        raise ConfigError(f"the ramp {text!r} ends below where it begins", hint=_RAMP_HINT)
    if found["percent"]:
        if float(found["step"]) > 1000:
            raise ConfigError(f"the ramp {text!r} grows by more than 1000% a day", hint=_RAMP_HINT)
        return Ramp(first, percent=float(found["step"]), top=top)
    return Ramp(first, more=int(found["step"]), top=top)
