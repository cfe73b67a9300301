"""The time that a run lives by, so that a test can be the one that turns it."""

from __future__ import annotations

import time
from typing import Protocol

import anyio


class Clock(Protocol):
    """`now` is wall-clock seconds, for what is stored; `monotonic` seconds are for what is waited for."""

    def now(self) -> float: ...
    def monotonic(self) -> float: ...
    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's own clocks."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)
