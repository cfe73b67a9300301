"""How fast and how patiently a campaign goes, and the forecast of how many messages go when at that pace."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import field, replace
from datetime import datetime, tzinfo
from enum import Enum

from bulkmail.model.breaker import BreakerLimits
from bulkmail.model.lazy import dataclass
from bulkmail.model.quota import DAY, NO_QUOTA, Quota, QuotaBooking, Ramp
from bulkmail.model.rate import Rate
from bulkmail.model.retry import PROVIDER_BACKOFF, RELAY_BACKOFF, Backoff, RetryPolicy
from bulkmail.model.route import MailboxProviders
from bulkmail.model.schedule import ALWAYS, Windows

# -- How fast and how patiently a campaign goes.


class Durability(Enum):
    """What an outcome that we spoke of survives."""

    PROCESS = "process"  # kill -9
    POWER = "power"  # the plug pulled


@dataclasses.dataclass(frozen=True, slots=True)
class Pace:
    """Speed and patience of one run: more attributes than a class should have, as many as there are settings.

    `rate` None is as fast as the relay takes it.
    `retry` is how often a recipient is tried again; `relay_backoff` and `provider_backoff` say how long to back off
    from a relay that fails or throttles, and from a provider that throttles.
    `wait` is how many seconds a run waits for the next deferred delivery before it ends and leaves it to the next run;
    infinity waits for all.  `patience` is how many seconds a relay that stopped working in the middle is tried again.
    `limit`, if not None, is the most deliveries begun in this run.  `start`, if not None, is the wall-clock second
    before which nothing goes.  `quota` holds for each account that messages go through.
    `mailbox_providers` None are the known providers, none of them with limits.  `processes` is how many may be at
    work, all but one to compose; 0 is as many as are worth while.
    It has more attributes than a class should: each is one key of `[sending]`.
    """

    rate: Rate | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    wait: float = 600.0
    patience: float = 300.0
    limit: int | None = None
    messages_per_session: int = 1000
    session_age: float = 300.0
    durability: Durability = Durability.PROCESS
    quota: Quota = NO_QUOTA
    windows: Windows = ALWAYS
    start: float | None = None
    ramp: Ramp | None = None
    mailbox_providers: MailboxProviders | None = None
    breakers: BreakerLimits = field(default_factory=BreakerLimits)
    relay_backoff: Backoff = RELAY_BACKOFF
    provider_backoff: Backoff = PROVIDER_BACKOFF
    processes: int = 0

    @property
    def waits_for_all(self) -> bool:
        """Whether the run continues until nothing is deferred any more."""
        return math.isinf(self.wait)


# -- How many messages go out when, if all are accepted, by quota, ramp, hours and rate: a forecast before sending.


MOST_SHARES = 500  # who needs more than that needs no list of them


@dataclass(frozen=True, slots=True)
class PlannedShare:
    """`count` recipients of a plan, the first of them to be written to at `at`, wall-clock seconds."""

    at: float
    count: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a plan keeps to.  `ramp_began_at` is when the ramp's first message went, None when it has not."""

    quota: Quota = NO_QUOTA
    windows: Windows = ALWAYS
    ramp: Ramp | None = None
    ramp_began_at: float | None = None
    per_second: float | None = None
    start: float | None = None


def plan_shares(bounds: Bounds, bookings: Iterable[QuotaBooking], total: int, *, now: float) -> list[PlannedShare]:
    """When how many of `total` recipients go out, if all are accepted and nothing else is sent from the account.

    The shares are in order of time and never more than `total`; fewer when 500 shares do not hold them.
    """
    booked, shares, left = list(bookings), list[PlannedShare](), total
    at = now if bounds.start is None else max(now, bounds.start)
    began_at = bounds.ramp_began_at
    closes_at: float | None = at  # asked for again only when it has passed: it is the costly question
    for _ in range(4 * MOST_SHARES):  # each share may first have to be waited for: by the hour, the day and the ramp
        if closes_at is not None and at >= closes_at:
            at = bounds.windows.next_open(at)
            closes_at = bounds.windows.closes_at(at)
        booked = [booking for booking in booked if booking.at > at - DAY]
        fits = _fits(bounds, booked, at, began_at=at if began_at is None else began_at, closes_at=closes_at)
        count = min(left, left if fits is None else fits)
        if count > 0:
            began_at = at if began_at is None else began_at
            took = count / bounds.per_second if bounds.per_second else 0.0
            shares.append(PlannedShare(at, count))
            booked.append(QuotaBooking(at + took, count))
            left, at = left - count, at + took
            if not left or len(shares) == MOST_SHARES:
                break
        else:
            at = _next(bounds, booked, at, began_at=at if began_at is None else began_at)
    return shares


def plan_demand(
    bounds: Bounds, bookings: Iterable[QuotaBooking], demand: Iterable[tuple[float, int]], *, now: float
) -> list[PlannedShare]:
    """As `plan_shares()`, for recipients that may be sent to from a time of their own on: (time, number), in order."""
    booked, shares = list(bookings), list[PlannedShare]()
    start = bounds.start or now
    for at, count in demand:
        begins = max(at, start, shares[-1].at if shares else start)
        found = plan_shares(replace(bounds, start=begins), booked, count, now=now)
        shares += found
        booked += [QuotaBooking(share.at, share.count) for share in found]
        if len(shares) >= MOST_SHARES:
            break
    return shares[:MOST_SHARES]


def _fits(
    bounds: Bounds, booked: list[QuotaBooking], at: float, *, began_at: float, closes_at: float | None
) -> int | None:
    """How many may go from `at` on without a pause; None for all."""
    fits = [] if (free := bounds.quota.free(booked, at)) is None else [free]
    if bounds.ramp:
        day = bounds.ramp.day(began_at, at)
        begun = bounds.ramp.begins_at(began_at, day)
        fits.append(max(0, bounds.ramp.allowance(day) - sum(b.count for b in booked if b.at >= begun)))
    if bounds.per_second and closes_at is not None:
        fits.append(max(1, int((closes_at - at) * bounds.per_second)))
    return min(fits) if fits else None


def _next(bounds: Bounds, booked: list[QuotaBooking], at: float, *, began_at: float) -> float:
    """The next instant after `at` at which quota or ramp may allow more."""
    opens = bounds.quota.opens_at(booked, at)
    if opens <= at and bounds.ramp:
        opens = bounds.ramp.begins_at(began_at, bounds.ramp.day(began_at, at) + 1)
    return max(opens, at + 1e-3)


def say_plan(
    shares: Sequence[PlannedShare], *, total: int, now: float, zone: tzinfo | None = None, days: int = 4
) -> str:
    """`"2,000 today, 2,000 tomorrow, 347 on Monday"`; what is after `days` of them, `"12,000 more until 3 December"`.

    What of `total` the shares do not hold is said to go later.  `zone` None is this machine's.
    """
    today = datetime.fromtimestamp(now, zone).date()
    by_day: dict[int, int] = {}
    for share in shares:
        day = (datetime.fromtimestamp(share.at, zone).date() - today).days
        by_day[day] = by_day.get(day, 0) + share.count
    if not by_day:
        return "nothing"
    said = [f"{number:,} {_day(now, day, zone)}" for day, number in list(by_day.items())[:days]]
    rest = list(by_day.items())[days:]
    if rest:
        said.append(f"{sum(number for _, number in rest):,} more until {_date(now, rest[-1][0], zone)}")
    if later := total - sum(by_day.values()):
        said.append(f"{later:,} after that")
    return ", ".join(said)


def _day(now: float, day: int, zone: tzinfo | None) -> str:
    if day <= 1:
        return "tomorrow" if day == 1 else "today"
    if day < 7:
        return "on " + _WEEKDAYS[(datetime.fromtimestamp(now, zone).weekday() + day) % 7]
    return "on " + _date(now, day, zone)


def _date(now: float, day: int, zone: tzinfo | None) -> str:
    date = datetime.fromordinal(datetime.fromtimestamp(now, zone).toordinal() + day)
    return f"{date.day} {_MONTHS[date.month - 1]}"


_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = tuple("January February March April May June July August September October November December".split())  # noqa: SIM905
