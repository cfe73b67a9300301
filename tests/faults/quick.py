"""Sessions and clocks for faults that are about minutes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from bulkmail.engine.contracts import Connection
from bulkmail.model.relay import Relay
from bulkmail.smtp.opening import Timeouts
from bulkmail.testing import ScriptedRelay
from tests.connections import Single


class FastClock:
    """Runs this many times as fast as the machine's; the wall clock can be set, as people and NTP do."""

    def __init__(self, times: float) -> None:
        self._times = times
        self._begun = time.monotonic()
        self.wall = 1_700_000_000.0

    def monotonic(self) -> float:
        return (time.monotonic() - self._begun) * self._times

    def now(self) -> float:
        return self.wall + self.monotonic()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(max(0.0, seconds) / self._times)


class Lapse:
    """Lets minutes pass for every timer of the running loop, in no time."""

    def __init__(self, monkeypatch: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._real = self._loop.time
        self._ahead = 0.0
        monkeypatch.setattr(self._loop, "time", lambda: self._real() + self._ahead)

    async def pass_by(self, seconds: float) -> None:
        """Anyone who's time has come has been called when this returns."""
        self._ahead += seconds
        for _ in range(5):
            await asyncio.sleep(0.01)


def sessions(to: ScriptedRelay, **seconds: float) -> Callable[[], Awaitable[Connection]]:
    """Opens sessions that wait for each stage so long, and no longer."""
    relay, timeouts = Relay.parse(f"smtp://{to.host}:{to.port}?tls=off"), Timeouts(**seconds)

    async def connect() -> Connection:
        return await Single.to(relay, None, tls_context=None, timeouts=timeouts)

    return connect
