"""How a run ends, and how those who wait in it are woken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from bulkmail.engine.clock import Clock
from bulkmail.engine.contracts import Ending


class Lifetime:
    """Plain calls on the loop; `ending` is None as long as the run goes on by itself."""

    def __init__(self, clock: Clock) -> None:
        self.ending: Ending | None = None
        self._clock = clock
        self._wake = anyio.Event()
        self._openings: set[anyio.CancelScope] = set()

    def end(self, ending: Ending) -> None:
        """Begin nothing more.  The first reason stands, except that an error outranks the user's word."""
        if self.ending is None or (ending.error and not self.ending.error):
            self.ending = ending
        for opening in self._openings:
            opening.cancel()
        self.nudge()

    @contextmanager
    def opening(self) -> Iterator[anyio.CancelScope]:
        """Around the opening of a session, which carries no message yet: cancelled when the run ends.

        A server that is silent would otherwise hold the end up for five minutes (RFC 5321 §4.5.3.2.1).
        """
        with anyio.CancelScope() as scope:
            self._openings.add(scope)
            try:
                yield scope
            finally:
                self._openings.remove(scope)

    def nudge(self) -> None:
        """Something changed: anyone who pauses looks again."""
        self._wake.set()
        self._wake = anyio.Event()

    async def pause(self, seconds: float) -> bool:
        """Returns after `seconds`, or sooner when something changed; False when the run is ending."""
        if self.ending is not None:
            return False
        async with anyio.create_task_group() as group:
            group.start_soon(self._alarm, seconds, group.cancel_scope)
            await self._wake.wait()
            group.cancel_scope.cancel()
        return self.ending is None

    async def _alarm(self, seconds: float, scope: anyio.CancelScope) -> None:
        await self._clock.sleep(seconds)
        scope.cancel()
