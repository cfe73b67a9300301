"""Group commit: everything that one turn of the loop wants recorded is one call of the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from functools import partial
from types import TracebackType
from typing import Self

import anyio

from bulkmail.engine.contracts import ClaimLost, Store
from bulkmail.model.delivery import EVERYTHING, Invalidation, Mark, Settlement, Written
from bulkmail.model.errors import OutboxError

Then = Callable[[BaseException | None], None]
_Batch = list[tuple[Written, Then]]


class Journal:
    """Writes entries into a store in the order they are put, and calls back when each is durable.

    A store that answers at once is written to on the loop itself: that costs a few microseconds an entry and no turn of
    the loop.  A store that answers later gets each turn without waiting for the answer to the one before.
    """

    def __init__(self, store: Store) -> None:
        """On the running loop, which all calls must come from.  The store stays the caller's to close."""
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._turn: _Batch = []
        self._unanswered: set[asyncio.Future[Collection[int]]] = set()
        self._is_closed = False

    def put(self, entry: Written, then: Then) -> None:
        """`then(None)` is called on the loop when the store has answered; never from within `put`.

        `then(ClaimLost())` says that the store did not grant a mark or take an outcome, `then(error)` that it failed.
        The callbacks run in the order of the puts.  One that raises is reported to the loop's exception handler.
        """
        if self._is_closed:
            raise OutboxError("the journal is closed: nothing more can be recorded")
        if not self._turn:
            self._loop.call_soon(self._commit)
        self._turn.append((entry, then))

    async def aclose(self) -> None:
        """Everything put is answered and called back for, also when this is cancelled.  May be called again."""
        self._is_closed = True
        self._commit()
        if self._unanswered:
            await _uninterrupted(self._until_answered())

    async def _until_answered(self) -> None:
        while self._unanswered:
            await asyncio.wait(self._unanswered)
            await asyncio.sleep(0)  # the callbacks of what was answered

    def _commit(self) -> None:
        """Once a turn, and once more at the end."""
        batch, self._turn = self._turn, []
        if not batch:
            return
        try:
            answer = self._store.write([entry for entry, _ in batch])
        except Exception as error:  # whatever it is, the callbacks must learn of it
            self._tell(batch, (), error)
            return
        if isinstance(answer, asyncio.Future):
            self._unanswered.add(answer)
            answer.add_done_callback(partial(self._answered, batch))
        else:
            self._tell(batch, answer, None)

    def _answered(self, batch: _Batch, answer: asyncio.Future[Collection[int]]) -> None:
        self._unanswered.discard(answer)
        error = asyncio.CancelledError() if answer.cancelled() else answer.exception()
        self._tell(batch, () if error is not None else answer.result(), error)

    def _tell(self, batch: _Batch, taken: Collection[int], error: BaseException | None) -> None:
        for entry, then in batch:
            try:
                if error is not None or taken is EVERYTHING or _is_taken(entry, taken):
                    then(error)
                else:
                    then(ClaimLost())
            except Exception as failure:
                message = "a callback of the journal failed"
                self._loop.call_exception_handler({"message": message, "exception": failure})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def _is_taken(entry: Written, taken: Collection[int]) -> bool:
    if isinstance(entry, Mark | Invalidation):
        return entry.delivery_id in taken
    return not isinstance(entry, Settlement) or entry.delivery.id in taken


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
