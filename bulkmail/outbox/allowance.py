"""What one run may still take from the quota ledger of its account, without waiting for the disk at every letter."""

from __future__ import annotations

import anyio.to_thread

from bulkmail.model.purse import Purse
from bulkmail.model.quota import NO_QUOTA, Quota
from bulkmail.model.ramp import Ramp
from bulkmail.outbox.ledger import Ledger, Refusal, Reservation

BATCH = 20  # recipients that are reserved at a time: as many as a crash makes us forgo


class Allowance:
    """Recipients are spent by plain calls; when there are none left, `refill()` asks the ledger in a thread.

    Times are wall-clock seconds.  Only one task at a time calls `refill()` or `settle()`.
    """

    def __init__(
        self, ledger: Ledger, *, quota: Quota = NO_QUOTA, ramp: Ramp | None = None, campaign: str = ""
    ) -> None:
        self._ledger = ledger
        self._quota = quota
        self._ramp = ramp
        self._campaign = campaign
        self._purse = Purse()
        self._reservation: Reservation | None = None

    def take(self, count: int, now: float) -> bool:
        """Spends `count` recipients; False, and nothing is spent, when `refill()` is to be asked first."""
        return self._purse.take(count, now)

    def give_back(self, count: int) -> None:
        """`count` recipients of messages that were not attempted after all."""
        self._purse.give_back(count)

    async def refill(self, now: float, *, wanted: int = BATCH) -> Refusal | None:
        """Settles what was spent and reserves `wanted` more, or as many as there are; a `Refusal` when there are none.

        Raises `OutboxError`.  When it is cancelled, what the ledger gave counts until it is settled.
        """
        await self.settle(now)
        got = await anyio.to_thread.run_sync(self._reserve, wanted, now)
        if isinstance(got, Refusal):
            return got
        self._purse.fill(got.count, until=got.until)
        return None

    async def settle(self, now: float) -> None:
        """Tells the ledger what was spent and gives the rest back: at the end of a run, and before a long wait."""
        reservation, used = self._reservation, self._purse.used
        self._reservation = None
        self._purse.fill(0, until=now)
        if reservation is not None:
            await anyio.to_thread.run_sync(self._ledger.settle, reservation, used, now)

    async def pause(self, seconds: float, why: str, now: float) -> float:
        """The provider said that a quota is used up: no run writes to anybody for `seconds`; returns until when."""
        return await anyio.to_thread.run_sync(self._ledger.pause, seconds, why, now)

    def _reserve(self, wanted: int, now: float) -> Reservation | Refusal:
        """In a thread.  Kept here and not only returned: a cancelled caller does not get it."""
        got = self._ledger.reserve(wanted, now, quota=self._quota, ramp=self._ramp, campaign=self._campaign)
        if isinstance(got, Reservation):
            self._reservation = got
        return got
