"""Group commit: everything that one turn of the loop wants recorded is one transaction."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from queue import SimpleQueue
from types import TracebackType
from typing import Self

import anyio

from bulkmail.model.errors import OutboxError
from bulkmail.model.job import Mark, PutBack, Release, Settlement
from bulkmail.model.pace import Durability
from bulkmail.outbox.entries import Fold
from bulkmail.outbox.outbox import Outbox

Then = Callable[[BaseException | None], None]
_Batch = list[tuple[Mark | Settlement | Release | PutBack | Fold, Then]]

FOLDED_AFTER = 0.2
"""Seconds after which what is in the journal of turns is folded into the tables."""


class Journal:
    """Writes entries into an outbox in the order they are put, and calls back when each is durable.

    With `Durability.PROCESS` a commit is made on the loop itself: it costs a few microseconds an entry and no switch of
    threads, and touches the disk only when SQLite moves its log into the file, every few thousand messages.  With
    `Durability.POWER` a commit waits for the disk, so a thread makes it, and takes along whatever came meanwhile.

    Once a commit has failed nothing is written any more: everything put gets the same error.
    """

    def __init__(self, outbox: Outbox) -> None:
        """On the running loop, which all calls must come from.  The outbox stays the caller's to close."""
        self._outbox = outbox
        self._loop = asyncio.get_running_loop()
        self._turn: _Batch = []
        self._failure: BaseException | None = None
        self._is_closed = False
        self._folding: asyncio.TimerHandle | None = None
        self._writer = (
            _Writer(self._loop, write=self._write, tell=self._tell) if outbox.durability is Durability.POWER else None
        )

    def put(self, entry: Mark | Settlement | Release | PutBack | Fold, then: Then) -> None:
        """`then(None)` is called on the loop after the commit, `then(error)` instead of it; never from within `put`.

        The callbacks run in the order of the puts.  One that raises is reported to the loop's exception handler.
        """
        if self._is_closed:
            raise OutboxError("the journal is closed: nothing more can be recorded")
        if not self._turn:
            self._loop.call_soon(self._commit)
        self._turn.append((entry, then))

    async def aclose(self) -> None:
        """Everything put is committed and called back for, also when this is cancelled.  May be called again."""
        self._is_closed = True
        if self._folding is not None:
            self._folding.cancel()
        self._commit()
        if self._writer is not None:
            writer, self._writer = self._writer, None
            await _uninterrupted(writer.stop())

    def _commit(self) -> None:
        """Once a turn, and once more at the end."""
        batch, self._turn = self._turn, []
        if not batch:
            return
        if self._writer is not None:
            self._writer.queue.put(batch)
        else:
            self._tell(batch, self._write(batch))

    def _write(self, batch: _Batch) -> BaseException | None:
        """What went wrong.  In the writer's thread when there is one."""
        if self._failure is None:
            try:
                self._outbox.write([entry for entry, _ in batch])
            except Exception as error:  # whatever it is, the rows of this batch are not recorded and must hear of it
                self._failure = error
        return self._failure

    def _tell(self, batch: _Batch, error: BaseException | None) -> None:
        if self._folding is None and self._outbox.has_unfolded and not self._is_closed:
            self._folding = self._loop.call_later(FOLDED_AFTER, self._fold)
        for _, then in batch:
            try:
                then(error)
            except Exception as failure:
                message = "a callback of the outbox's journal failed"
                self._loop.call_exception_handler({"message": message, "exception": failure})

    def _fold(self) -> None:
        self._folding = None
        if not self._is_closed and self._failure is None:
            self.put(Fold(), _no_matter)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def _no_matter(error: BaseException | None) -> None:
    """What is not folded stays in the journal; the next entry meets the same error."""


class _Writer:
    """The thread that waits for the disk."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        write: Callable[[_Batch], BaseException | None],
        tell: Callable[[_Batch, BaseException | None], None],
    ) -> None:
        self.queue: SimpleQueue[_Batch | None] = SimpleQueue()
        self._loop = loop
        self._write = write
        self._tell = tell
        self._ended = asyncio.Event()
        # A daemon: a program that dies without aclose() has promised nothing of what is still queued.
        self._thread = threading.Thread(target=self._run, name="bulkmail outbox", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Everything queued is committed and called back for."""
        self.queue.put(None)
        await self._ended.wait()
        self._thread.join()

    def _run(self) -> None:
        is_last = False
        while not is_last:
            batch, is_last = self._take()
            error = self._write(batch) if batch else None
            try:
                if batch:
                    self._loop.call_soon_threadsafe(self._tell, batch, error)
                if is_last:
                    self._loop.call_soon_threadsafe(self._ended.set)
            except RuntimeError:  # the loop was closed under us: no one is left to be told
                return

    def _take(self) -> tuple[_Batch, bool]:
        """All that is queued, and whether that is the end; waits for the first."""
        taken: _Batch = []
        while not taken or not self.queue.empty():
            batch = self.queue.get()
            if batch is None:
                return taken, True
            taken += batch
        return taken, False


async def _uninterrupted(work: Coroutine[None, None, None]) -> None:
    """Waits for `work` whatever happens; a cancellation that comes meanwhile is raised afterwards.

    The scope holds off anyio's cancellations, which would come again and again, the loop those of asyncio.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        raise cancelled
    task.result()
