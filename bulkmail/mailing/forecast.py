"""What a campaign may expect of its hours and quotas: how many messages go when, before the first has gone."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from datetime import tzinfo

from bulkmail.mailing.permits import accounts_of, find_ledger, quotas_of
from bulkmail.model.lazy import dataclass
from bulkmail.model.pace import Bounds, Pace, Share, plan_demand, plan_shares, say_plan
from bulkmail.model.quantities import say_duration
from bulkmail.model.quota import Booking, Quota
from bulkmail.model.route import Route
from bulkmail.model.schedule import ALWAYS


@dataclass(frozen=True, slots=True)
class Outlook:
    """`shares` are the plan if all are accepted; `paused` says why the account is paused until the first, if it is."""

    shares: Sequence[Share]
    total: int
    now: float
    per_second: float | None
    zone: tzinfo | None
    paused: str = ""

    @property
    def is_at_once(self) -> bool:
        """Whether everything may go now, as fast as it can."""
        return len(self.shares) == 1 and self.shares[0].at <= self.now and not self.paused

    def sentence(self) -> str:
        """`"2,000 today, 2,000 tomorrow, 347 on Monday"`, with how long the first take at the rate."""
        said = say_plan(self.shares, total=self.total, now=self.now, zone=self.zone)
        if self.per_second and len(self.shares) > 1 and (took := self.shares[0].count / self.per_second) >= 1:
            said += f"; the first {self.shares[0].count:,} take about {say_duration(took)}"
        return f"{said} ({self.paused})" if self.paused else said


def look_ahead(
    routes: Sequence[Route],
    pace: Pace,
    total: int,
    *,
    run_id: str,
    is_rehearsal: bool,
    now: float | None = None,
    demand: Sequence[tuple[float, int]] = (),
) -> Outlook:
    """When how many of `total` recipients go out through `routes`.  Reads the ledgers, so it may wait for the disk.

    `demand`, unless it is empty, says from when on how many of them may go.
    Of several relays those count that come first; their accounts' quotas add up.  Raises `OutboxError`.
    """
    now = time.time() if now is None else now
    best = min((route.priority for route in routes), default=1)
    routes = [route for route in routes if route.priority == best]
    accounts = accounts_of(routes)
    bookings, began_at, rests = list[Booking](), list[float](), list[tuple[float, str]]()
    ramp = None if is_rehearsal else pace.ramp
    for account in accounts:
        ledger = find_ledger(account, is_needed=False)
        if ledger is None:
            rests.append((now, ""))
            continue
        with ledger:
            bookings += ledger.bookings(now)
            paused = ledger.paused(now)
            rests.append((paused.until, paused.why) if paused else (now, ""))
            if ramp is not None and (begun := ledger.ramp_began(run_id)) is not None:
                began_at.append(begun)
    opens_at, why = min(rests, default=(now, ""))  # the first account that may go
    per_second = _per_second(routes, pace)
    bounds = Bounds(
        quota=_together(list(quotas_of(routes, pace.quota).values())),
        ramp=ramp if accounts else None,
        ramp_began_at=min(began_at, default=None),
        per_second=per_second,
        windows=ALWAYS if is_rehearsal else pace.windows,
        start=max(opens_at, now if is_rehearsal or pace.start is None else pace.start),
    )
    by_time = plan_demand(bounds, bookings, demand, now=now) if demand else None
    shares = plan_shares(bounds, bookings, total, now=now) if by_time is None else by_time
    zone = pace.windows.each[0].zone if pace.windows.each else None
    return Outlook(shares, total, now, per_second, zone, paused=why)


def _together(quotas: Sequence[Quota]) -> Quota:
    """What several accounts may do: as much as you like, as soon as one of them may."""
    hours, days = [quota.per_hour for quota in quotas], [quota.per_day for quota in quotas]
    return Quota(_sum(hours), _sum(days))


def _sum(limits: Sequence[int | None]) -> int | None:
    known = [limit for limit in limits if limit is not None]
    return sum(known) if known and len(known) == len(limits) else None


def _per_second(routes: Sequence[Route], pace: Pace) -> float | None:
    """The rate that all of `routes` keep together; None when there is none."""
    own = sum(route.rate.per_second if route.rate else math.inf for route in routes)
    slowest = min(own, pace.rate.per_second if pace.rate else math.inf)
    return slowest if 0 < slowest < math.inf else None
