"""The outcomes of a run as a program reads them, one by one."""

from __future__ import annotations

import math

import anyio

from bulkmail.engine.contracts import DeliveryResult, Event
from bulkmail.model.errors import BulkmailError
from bulkmail.report.report import Report

LAG = 1000  # outcomes that may wait for a slow reader before sending waits too


class SendingStopped(BulkmailError):
    """The run stopped before its end; `__cause__` says why, `report` how far it came.

    With an outbox on disk, the same call goes on where this one stopped.
    """

    def __init__(self, cause: BulkmailError, report: Report) -> None:
        super().__init__(str(cause), hint=cause.hint)
        self.report = report


class DeliveryResults:
    """The outcomes of a run, one by one as they become durable; `report` is there when it is over.

    Iterating raises what ended the run before its time, as `SendingStopped`.  The methods are for `Mailer.deliver()`.
    """

    def __init__(self) -> None:
        self.report: Report | None = None
        self._send, self._receive = anyio.create_memory_object_stream[DeliveryResult](math.inf)
        self._room = anyio.Event()
        self._error: Exception | None = None
        self._is_left = False

    def __aiter__(self) -> DeliveryResults:
        return self

    async def __anext__(self) -> DeliveryResult:
        try:
            settled = await self._receive.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            self.raise_error()
            raise StopAsyncIteration from None
        if self._receive.statistics().current_buffer_used < LAG:
            self._room.set()
        return settled

    def observe(self, event: Event) -> None:
        """Hands an outcome to the reader, while there is one."""
        if isinstance(event, DeliveryResult) and not self._is_left:
            self._send.send_nowait(event)

    async def has_room(self) -> None:
        """Returns when the reader keeps up: what no one reads must not pile up."""
        while not self._is_left and self._receive.statistics().current_buffer_used >= LAG:
            self._room = anyio.Event()
            await self._room.wait()

    def leave(self) -> None:
        """No one reads any more."""
        self._is_left = True
        self._room.set()
        self._receive.close()

    def end(self, error: Exception | None) -> None:
        """The run is over."""
        self._error = error
        if isinstance(error, SendingStopped):
            self.report = error.report
        self._send.close()

    def raise_error(self) -> None:
        """Raises what the run ended by, if that is an exception."""
        if self._error is not None:
            raise self._error
