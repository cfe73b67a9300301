"""What one run may still take from the quota ledger of its account, without waiting for the disk at every message."""

from __future__ import annotations

import anyio.to_thread

from bulkmail.model.quota import NO_QUOTA, Quota, QuotaCredit, Ramp
from bulkmail.model.timing import Hold
from bulkmail.outbox.ledger import Ledger, Reservation

BATCH = 20  # recipients that are reserved at a time, at first: as many as a crash makes us forgo
MOST = 2_000  # of them, for runs that spend them quickly
QUICK, SLOW = 2.0, 20.0  # seconds that they should last, at least and at most
EARLY = 20.0  # seconds before a reservation ends at which the next one is due


class Allowance:
    """Recipients are spent by plain calls; when few are left, `refill()` asks the ledger in a thread.

    Times are wall-clock seconds.  Only one task at a time calls `refill()` or `settle()`.
    """

    def __init__(
        self, ledger: Ledger, *, quota: Quota = NO_QUOTA, ramp: Ramp | None = None, campaign: str = ""
    ) -> None:
        self._ledger = ledger
        self._quota = quota
        self._ramp = ramp
        self._campaign = campaign
        self._credit = QuotaCredit()
        self._reservation: Reservation | None = None
        self._batch = BATCH
        self._filled_at = 0.0
        self._is_last = False  # the ledger gave all it had

    def take(self, count: int, now: float) -> bool:
        """Spends `count` recipients; False, and nothing is spent, when `refill()` is to be asked first."""
        return self._credit.take(count, now)

    def give_back(self, count: int) -> None:
        """`count` recipients of messages that were not attempted after all."""
        self._credit.give_back(count)

    def is_running_low(self, now: float) -> bool:
        """Whether it is time for `refill()`: before the last one is spent, if there may be more to have."""
        if self._is_last:
            return not self._credit.holds(1, now)
        return not self._credit.holds(1 + self._batch // 4, now) or not self._credit.holds(1, now + EARLY)

    async def refill(self, now: float) -> Hold | None:
        """Reserves more and settles what was spent before; a `Hold` when nothing is left and there is no more.

        What is left may be spent meanwhile.  Raises `OutboxError`.  When it is cancelled, what the ledger gave counts
        until it is settled.
        """
        if not self._credit.holds(1, now):
            await self.settle(now)
        self._batch = _sized(self._batch, lasted=now - self._filled_at)
        before = self._reservation
        got = await anyio.to_thread.run_sync(self._reserve, self._batch, now)
        if isinstance(got, Hold):
            self._is_last = before is not None
            return None if before is not None else got
        used = self._credit.used
        self._credit.fill(got.count, until=got.until)
        self._filled_at = now
        self._is_last = got.count < self._batch
        if before is not None:
            await anyio.to_thread.run_sync(self._ledger.settle, before, used, now)
        return None

    async def settle(self, now: float) -> None:
        """Tells the ledger what was spent and gives the rest back: at the end of a run, and before a long wait."""
        reservation, used = self._reservation, self._credit.used
        self._reservation = None
        self._credit.fill(0, until=now)
        if reservation is not None:
            await anyio.to_thread.run_sync(self._ledger.settle, reservation, used, now)

    async def pause(self, seconds: float, why: str, now: float) -> float:
        """The provider said that a quota is used up: no run writes to anyone for `seconds`; returns until when."""
        return await anyio.to_thread.run_sync(self._ledger.pause, seconds, why, now)

    def _reserve(self, wanted: int, now: float) -> Reservation | Hold:
        """In a thread.  Kept here and not only returned: a cancelled caller does not get it."""
        got = self._ledger.reserve(wanted, now, quota=self._quota, ramp=self._ramp, campaign=self._campaign)
        if isinstance(got, Reservation):
            self._reservation = got
        return got


def _sized(batch: int, *, lasted: float) -> int:
    """How many to reserve when `batch` of them lasted so long: the disk is asked rarely, and a crash costs little."""
    if lasted < QUICK:
        return min(MOST, batch * 2)
    return max(BATCH, batch // 2) if lasted > SLOW else batch
