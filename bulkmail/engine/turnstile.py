"""One queue before the rate: whoever is let through writes MAIL in the same instant."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import anyio

from bulkmail.engine.clock import Clock
from bulkmail.model.rate import Rate

SHORT = 0.5  # seconds; shorter waits are slept through, which costs less than watching for the end


class Turnstile:
    """Lets senders through one by one, never faster than `rate`, measured at the moment each one leaves.

    The slot is taken when its owner really goes, not when it was booked: a sender that wakes late moves the next slot,
    so that no window, however placed, holds more than the rate and its burst.
    """

    def __init__(self, rate: Rate | None, clock: Clock, *, pause: Callable[[float], Awaitable[bool]]) -> None:
        """`pause(seconds)` waits that long or until something changed; it returns False when all is over."""
        self._rate = rate
        self._clock = clock
        self._pause = pause
        self._tat = -math.inf
        self._queue = anyio.Lock()

    @property
    def wait(self) -> float:
        """Seconds until the next one could go, were nobody queueing."""
        return self._rate.wait(self._tat, self._clock.monotonic()) if self._rate else 0.0

    def passes_at_once(self) -> bool:
        """Whether it is the caller's turn this instant; then its slot is taken.  Nobody jumps a queue."""
        if self._rate is None:
            return True
        now = self._clock.monotonic()
        if self._queue.locked() or self._rate.wait(self._tat, now) > 0:
            return False
        self._tat = self._rate.take(self._tat, now)
        return True

    async def passes(self) -> bool:
        """Returns when it is the caller's turn.  Between that and its MAIL the caller must not await.

        False: the run ended while waiting, and nobody is to go any more.
        """
        if self._rate is None:
            return True
        async with self._queue:
            while (wait := self._rate.wait(self._tat, self._clock.monotonic())) > 0:
                if wait < SHORT:
                    await self._clock.sleep(wait)
                elif not await self._pause(wait):
                    return False
            self._tat = self._rate.take(self._tat, self._clock.monotonic())
            return True
