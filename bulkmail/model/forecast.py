"""How many messages go out when, if all are accepted, by quota, ramp, hours and rate: a forecast before sending."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, tzinfo

from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.model.quota import DAY, NO_QUOTA, Booking, Quota
from bulkmail.model.ramp import Ramp
from bulkmail.model.window import ALWAYS, Windows

MOST_SHARES = 500  # who needs more than that needs no list of them


@dataclass(frozen=True, slots=True)
class Share:
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


def plan_shares(bounds: Bounds, bookings: Iterable[Booking], total: int, *, now: float) -> list[Share]:
    """When how many of `total` recipients go out, if all are accepted and nothing else is sent from the account.

    The shares are in order of time and never more than `total`; fewer when 500 shares do not hold them.
    """
    booked, shares, left = list(bookings), list[Share](), total
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
            shares.append(Share(at, count))
            booked.append(Booking(at + took, count))
            left, at = left - count, at + took
            if not left or len(shares) == MOST_SHARES:
                break
        else:
            at = _next(bounds, booked, at, began_at=at if began_at is None else began_at)
    return shares


def plan_demand(
    bounds: Bounds, bookings: Iterable[Booking], demand: Iterable[tuple[float, int]], *, now: float
) -> list[Share]:
    """As `plan_shares()`, for recipients that may be sent to from a time of their own on: (time, number), in order."""
    booked, shares = list(bookings), list[Share]()
    start = bounds.start or now
    for at, count in demand:
        begins = max(at, start, shares[-1].at if shares else start)
        found = plan_shares(replace(bounds, start=begins), booked, count, now=now)
        shares += found
        booked += [Booking(share.at, share.count) for share in found]
        if len(shares) >= MOST_SHARES:
            break
    return shares[:MOST_SHARES]


def _fits(bounds: Bounds, booked: list[Booking], at: float, *, began_at: float, closes_at: float | None) -> int | None:
    """How many may go from `at` on without a pause; None for all."""
    fits = [] if (free := bounds.quota.free(booked, at)) is None else [free]
    if bounds.ramp:
        day = bounds.ramp.day(began_at, at)
        begun = bounds.ramp.begins_at(began_at, day)
        fits.append(max(0, bounds.ramp.allowance(day) - sum(b.count for b in booked if b.at >= begun)))
    if bounds.per_second and closes_at is not None:
        fits.append(max(1, int((closes_at - at) * bounds.per_second)))
    return min(fits) if fits else None


def _next(bounds: Bounds, booked: list[Booking], at: float, *, began_at: float) -> float:
    """The next instant after `at` at which quota or ramp may allow more."""
    opens = bounds.quota.opens_at(booked, at)
    if opens <= at and bounds.ramp:
        opens = bounds.ramp.begins_at(began_at, bounds.ramp.day(began_at, at) + 1)
    return max(opens, at + 1e-3)


def say_plan(shares: Sequence[Share], *, total: int, now: float, zone: tzinfo | None = None, days: int = 4) -> str:
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
