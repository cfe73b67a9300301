"""One queue before the rates: whoever is let through writes MAIL in the same instant."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence

import anyio

from bulkmail.engine.clock import Clock
from bulkmail.model.rate import Rate

SHORT = 0.5  # seconds; shorter waits are slept through, which costs less than watching for the end


class Meter:
    """A rate that is being kept.  Several turnstiles may stand before one: together they keep it."""

    __slots__ = ("_rate", "_tat")

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._tat = -math.inf

    def wait(self, now: float) -> float:
        """Seconds until one more may go."""
        return self._rate.wait(self._tat, now)

    def take(self, now: float) -> None:
        """One goes now."""
        self._tat = self._rate.take(self._tat, now)


class Turnstile:
    """Lets senders through one by one, never faster than each of `meters`, measured at the moment each one leaves.

    All meters are booked together, in one instant, or none is.  The slot is taken when its owner really goes, not when
    it was booked: a sender that wakes late moves the next slot, so that no window, however placed, holds more than the
    rate and its burst.
    """

    def __init__(self, meters: Sequence[Meter], clock: Clock, *, pause: Callable[[float], Awaitable[bool]]) -> None:
        """`pause(seconds)` waits that long or until something changed; it returns False when all is over."""
        self._meters = tuple(meters)
        self._clock = clock
        self._pause = pause
        self._queue = anyio.Lock()

    @property
    def wait(self) -> float:
        """Seconds until the next one could go, were nobody queueing."""
        if not self._meters:
            return 0.0
        now = self._clock.monotonic()
        return max(meter.wait(now) for meter in self._meters)

    def passes_at_once(self) -> bool:
        """Whether it is the caller's turn this instant; then its slot is taken.  Nobody jumps a queue."""
        if not self._meters:
            return True
        if self._queue.locked() or self.wait > 0:
            return False
        self._take()
        return True

    async def passes(self, *, within: float = math.inf) -> bool:
        """Returns when it is the caller's turn.  Between that and its MAIL the caller must not await.

        False: nobody is to go any more, because the run ended, or not `within` so many seconds.
        """
        if not self._meters:
            return True
        async with self._queue:
            while (wait := self.wait) > 0:
                if wait > within:
                    return False
                if wait < SHORT:
                    await self._clock.sleep(wait)
                elif not await self._pause(wait):
                    return False
            self._take()
            return True

    def _take(self) -> None:
        now = self._clock.monotonic()
        for meter in self._meters:
            meter.take(now)
