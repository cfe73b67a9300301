"""Time that stands still until it is advanced."""

from __future__ import annotations

import asyncio
import heapq
import itertools


class ManualClock:
    """A clock for tests.  Sleeping tasks wake when `advance` reaches their time, the earliest first.

    Sleepers follow the monotonic time; `set_wall` moves the wall clock alone, like a user who sets the clock, or a
    machine that was suspended.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._ahead = 0.0  # seconds that the wall clock is ahead of the monotonic one
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    def now(self) -> float:
        """Seconds by the clock on the wall."""
        return self._now + self._ahead

    def monotonic(self) -> float:
        """Seconds that cannot be set: the same as `now()`, unless the wall clock was set."""
        return self._now

    def set_wall(self, now: float) -> None:
        """Sets the wall clock to `now`, earlier or later than before.  This wakes no sleeper."""
        self._ahead = now - self._now

    @property
    def sleeping(self) -> int:
        """How many are asleep."""
        return sum(not woken.done() for _, _, woken in self._sleepers)

    @property
    def next_wake(self) -> float | None:
        """Seconds until the next sleeper's time comes; None without sleepers."""
        waiting = [wakes_at for wakes_at, _, woken in self._sleepers if not woken.done()]
        return min(waiting) - self._now if waiting else None

    def advance(self, seconds: float) -> None:
        """Moves the time on.  The sleepers whose time has come run when the caller next awaits something."""
        if seconds < 0:
            raise ValueError("time does not go back")
        self._now += seconds
        while self._sleepers and self._sleepers[0][0] <= self._now:
            _, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)

    async def sleep(self, seconds: float) -> None:
        """Returns when `seconds` have been advanced; for nothing or less, after one turn of the loop."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._numbers), woken))
        await woken
