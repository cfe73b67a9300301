"""Group commit: everything that one turn of the loop wants recorded is one call of the store, with what could wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from functools import partial
from types import TracebackType
from typing import Self

import anyio

from bulkmail.engine.contracts import ClaimLost, Store
from bulkmail.model.errors import OutboxError
from bulkmail.model.job import EVERYTHING, Invalidation, Mark, Settlement, Written

Then = Callable[[BaseException | None], None]
_Batch = tuple[list[Written], list[Then]]

LATEST = 0.1
"""Seconds for which an entry that may wait does so at the most."""


class Journal:
    """Writes entries into a store in the order they are put, and calls back when each is durable.

    A store that answers at once is written to on the loop itself: that costs a few microseconds an entry and no turn of
    the loop.  A store that answers later gets each turn without waiting for the answer to the one before.
    """

    def __init__(self, store: Store) -> None:
        """On the running loop, which all calls must come from.  The store stays the caller's to close."""
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._entries: list[Written] = []
        self._thens: list[Then] = []
        self._is_due = False  # in this turn
        self._timer: asyncio.TimerHandle | None = None  # for what may wait
        self._unanswered: set[asyncio.Future[Collection[int]]] = set()
        self._is_closed = False

    def put(self, entry: Written, then: Then) -> None:
        """`then(None)` is called on the loop when the store has answered; never from within `put`.

        `then(ClaimLost())` says that the store did not grant a mark or take an outcome, `then(error)` that it failed.
        The callbacks run in the order of the puts.  One that raises is reported to the loop's exception handler.
        """
        if self._is_closed:
            raise OutboxError("the journal is closed: nothing more can be recorded")
        self._entries.append(entry)
        self._thens.append(then)
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._commit)

    def put_by(self, entry: Written, then: Then) -> None:
        """As `put()`, of an entry that nothing waits for: it is committed with the next that is put, or `LATEST`.

        That of an acceptance goes with the mark of the next message of its session, if not before: so no session has
        more than its depth without an outcome in the store, as if it were committed at once.
        """
        if self._is_closed:
            raise OutboxError("the journal is closed: nothing more can be recorded")
        self._entries.append(entry)
        self._thens.append(then)
        if self._timer is None and not self._is_due:
            self._timer = self._loop.call_later(LATEST, self._commit)

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
        entries, thens = self._entries, self._thens
        self._entries, self._thens, self._is_due = [], [], False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not entries:
            return
        try:
            answer = self._store.write(entries)
        except Exception as error:  # whatever it is, the callbacks must learn of it
            self._tell((entries, thens), (), error)
            return
        if answer is EVERYTHING:
            for then in thens:
                try:
                    then(None)
                except Exception as failure:
                    self._report(failure)
        elif isinstance(answer, asyncio.Future):
            self._unanswered.add(answer)
            answer.add_done_callback(partial(self._answered, (entries, thens)))
        else:
            self._tell((entries, thens), answer, None)

    def _answered(self, batch: _Batch, answer: asyncio.Future[Collection[int]]) -> None:
        self._unanswered.discard(answer)
        error = asyncio.CancelledError() if answer.cancelled() else answer.exception()
        self._tell(batch, () if error is not None else answer.result(), error)

    def _tell(self, batch: _Batch, taken: Collection[int], error: BaseException | None) -> None:
        for entry, then in zip(*batch, strict=True):
            try:
                if error is not None or taken is EVERYTHING or _is_taken(entry, taken):
                    then(error)
                else:
                    then(ClaimLost())
            except Exception as failure:
                self._report(failure)

    def _report(self, failure: Exception) -> None:
        self._loop.call_exception_handler({"message": "a callback of the journal failed", "exception": failure})

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
