"""Starts the tasks of a run for anyone who asks, wherever he is called from."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskGroup

Work = Callable[[], Awaitable[object]]


class Starter:
    """Starts work in a task group from plain calls, also from those of a transport, which are made in no task.

    There a task group may not be asked: where sniffio is installed, anyio asks it which library is running, and sniffio
    knows only by the current task.
    """

    def __init__(self, group: TaskGroup) -> None:
        self._group = group
        self._waiting: deque[Work] = deque()
        self._open = 0  # waiting or running
        self._changed = anyio.Event()

    def start(self, work: Work) -> None:
        """`work()` begins soon, if the group is not cancelled before."""
        self._open += 1
        self._waiting.append(work)
        self._changed.set()

    async def until_done(self) -> None:
        """Starts what it is asked to, until all of it has ended."""
        while self._open:
            await self._changed.wait()
            self._changed = anyio.Event()
            while self._waiting:
                self._group.start_soon(self._see_through, self._waiting.popleft())

    async def _see_through(self, work: Work) -> None:
        try:
            await work()
        finally:
            self._open -= 1
            self._changed.set()
