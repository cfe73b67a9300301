"""HTTP connections that cannot be held open: few at once, and each must say what it wants in time.  Needs uvicorn."""

from __future__ import annotations

import asyncio
from operator import attrgetter
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 100
MOST_WAITING = 500  # beyond those, of which nothing is read until one of them ends
HEAD_TIMEOUT = 10.0  # seconds for the head of a request, from connecting or from the first byte of the next one
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 30\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class BoundedConnection(H11Protocol):
    """One of at most `MOST_CONNECTIONS`; closed when the head of a request is not there in `HEAD_TIMEOUT` seconds.

    Connections beyond that wait unread for their turn: a burst of clicks is answered late instead of refused.  A server
    behind a proxy sees few connections.  Without a time limit for the head, which uvicorn lacks, a client that sends
    one byte a minute keeps a connection for ever (Slowloris).
    """

    _head_timer: asyncio.TimerHandle | None = None
    _waits_since: float | None = None  # in seconds of the loop's clock

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS + MOST_WAITING:
            transport.write(_FULL)
            transport.close()
        elif len(self.connections) > MOST_CONNECTIONS:
            self._waits_since = self.loop.time()
            transport.pause_reading()
        else:
            self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        if self._head_timer is None and self._is_between_requests:
            self._wait_for_head()
        super().data_received(data)

    def handle_events(self) -> None:
        super().handle_events()
        if not self._is_between_requests:
            self._forget_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_timer()
        super().connection_lost(exc)
        waiting: list[Any] = [each for each in self.connections if getattr(each, "_waits_since", None) is not None]
        if waiting and self._waits_since is None:
            min(waiting, key=attrgetter("_waits_since"))._begin()

    def _begin(self) -> None:
        """Its turn has come."""
        self._waits_since = None
        self.transport.resume_reading()
        self._wait_for_head()

    @property
    def _is_between_requests(self) -> bool:
        cycle: Any = self.cycle
        return cycle is None or cycle.response_complete

    def _wait_for_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT, self._too_slow)

    def _too_slow(self) -> None:
        self._head_timer = None
        if self._is_between_requests:
            self.transport.abort()

    def _forget_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
