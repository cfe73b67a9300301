"""One queue before the rates: anyone who is let through writes MAIL in the same instant."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping

import anyio

from bulkmail.engine.clock import Clock
from bulkmail.model.shaper import Shaper
from bulkmail.model.timing import SHORT_WAIT


class Turnstile:
    """Lets workers of one relay through one by one, never faster than campaign, relay and lane allow.

    All are booked together, in one instant, or none is.  The slot is taken when its owner really goes, not when it was
    booked: a sender that wakes late moves the next slot, so that no window, however placed, holds more than the rate
    and its burst.
    """

    def __init__(self, shaper: Shaper, relay: str, clock: Clock, *, pause: Callable[[float], Awaitable[bool]]) -> None:
        """`pause(seconds)` waits that long or until something changed; it returns False when all is over."""
        self._shaper = shaper
        self._relay = relay
        self._clock = clock
        self._pause = pause
        self._queue = anyio.Lock()

    @property
    def slot(self) -> Mapping[str, float]:
        """The slot that was taken last, for `give_back()`."""
        return self._shaper.booked

    def give_back(self, slot: Mapping[str, float]) -> None:
        """Its message did not go: another may go in its place."""
        self._shaper.give_back(slot)

    @property
    def wait(self) -> float:
        """Seconds until the next one could go, were no one queueing and whatever its lane."""
        return self._shaper.relay_wait(self._relay, self._clock.monotonic())

    @property
    def wait_in_line(self) -> float:
        """Seconds until anyone who joins the queue now could go, as far as is known."""
        ahead = self._queue.statistics().tasks_waiting + self._queue.locked()
        return self.wait + (ahead * self._shaper.spacing(self._relay) if ahead else 0.0)

    def passes_at_once(self, lane: str) -> bool:
        """Whether it is the caller's turn this instant; then its slot is taken.  No one jumps a queue."""
        return not self._queue.locked() and self._shaper.take(self._relay, lane, self._clock.monotonic())

    async def passes(self, lane: str, *, within: float = math.inf) -> bool:
        """Returns when it is the caller's turn.  Between that and its MAIL the caller must not await.

        False: no one is to go any more, because the run ended; or not `within` this many seconds; or the lane is held.
        """
        async with self._queue:
            while (wait := self.wait) > 0:
                if wait > within:
                    return False
                if wait < SHORT_WAIT:
                    await self._clock.sleep(wait)
                elif not await self._pause(wait):
                    return False
            return self._shaper.take(self._relay, lane, self._clock.monotonic())
