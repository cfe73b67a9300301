"""An outbox as the store of one engine: what it hands out, what it has handed out, and who waits for the disk."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from queue import SimpleQueue

import anyio

from bulkmail.model.delivery import EVERYTHING, Claim, Invalidation, Mark, Settlement, Written
from bulkmail.model.pace import Durability
from bulkmail.model.tally import Status, Tally
from bulkmail.outbox.entries import Fold
from bulkmail.outbox.outbox import Outbox

FOLDED_AFTER = 0.2
"""Seconds after which what is in the journal of turns is folded into the tables."""

_Entries = list[Written | Fold]
_Then = Callable[[Sequence[Written | Fold]], None]
_Answer = asyncio.Future[Collection[int]]


class OutboxStore:
    """The deliveries of `outbox`, or only those with the ids `wants`, for one engine.

    With `Durability.PROCESS` a commit is made on the loop itself: it costs a few microseconds an entry and no switch of
    threads, and touches the disk only when SQLite moves its log into the file, every few thousand messages.  With
    `Durability.POWER` a commit waits for the disk, so a thread makes it, and takes along whatever came meanwhile.

    Once a commit has failed nothing is written any more: every call gets the same error.  The outbox stays the caller's
    to close.
    """

    epoch = 0  # no other process claims anything from a locked file

    def __init__(self, outbox: Outbox, *, wants: Collection[int] | None = None) -> None:
        self._outbox = outbox
        self._wanted = None if wants is None else json.dumps(sorted(wants))  # as the outbox takes it
        self._claimed: dict[int, int] = {}  # the queue of each
        self._after: defaultdict[int, int] = defaultdict(int)  # by queue: what was never tried is behind this id
        self._failure: BaseException | None = None
        self._folding: asyncio.TimerHandle | None = None
        self._writer: _DiskThread | None = None

    @property
    def eligible(self) -> int:
        """How many messages the run is about."""
        return self._outbox.tally().eligible

    @property
    def has_copies(self) -> bool:
        """Whether some row goes to more than one address."""
        return self._outbox.has_copies

    def claim(self, queue: int, *, limit: int, now: float) -> Claim:
        """At most `limit` deliveries of `queue` that may be tried at `now` (wall clock)."""
        jobs = self._outbox.due(
            now, limit=limit, excluding=self._claimed, queue=queue, after=self._after[queue], wanted=self._wanted
        )
        if not jobs:
            due = self._outbox.next_due(queue, after=now, wanted=self._wanted)
            return Claim(jobs, math.inf if due is None else due)
        after = self._after[queue]
        for job in jobs:
            number = job.delivery.id
            self._claimed[number] = queue
            if job.delivery.due_at == 0:
                after = max(after, number)
        self._after[queue] = after
        return Claim(jobs)

    def give_back(self, ids: Collection[int]) -> None:
        """These were claimed and are not taken up."""
        for number in ids:
            self._comes_back(number)

    def _comes_back(self, number: int) -> None:
        queue = self._claimed.pop(number, None)
        if queue is not None:
            self._after[queue] = min(self._after[queue], number - 1)

    def has_more(self, queue: int, *, besides: Collection[int]) -> bool:
        """Whether a delivery of `queue` that is neither claimed nor in `besides` may still be tried in this run."""
        excluded = {*besides, *self._claimed}
        after = self._after[queue]
        return bool(
            self._outbox.due(math.inf, limit=1, excluding=excluded, queue=queue, after=after, wanted=self._wanted)
        )

    def count_open(self, queue: int) -> int:
        """How many deliveries of `queue` sending goes on with."""
        return self._outbox.count_open(queue, wanted=self._wanted)

    def tally(self) -> Tally:
        """Rows by status."""
        return self._outbox.tally()

    def write(self, entries: Sequence[Written]) -> Collection[int] | _Answer:
        """Records all entries or none, and raises `OutboxError` for one that may not follow what is stored."""
        if self._outbox.durability is Durability.POWER:
            if self._writer is None:
                self._writer = _DiskThread(self._record)
            return self._writer.write(entries, self._recorded)
        if self._failure is not None:
            raise self._failure
        try:
            self._outbox.write(entries)
        except Exception as error:
            self._failure = error
            raise
        claimed = self._claimed
        for entry in entries:
            if entry.__class__ is Settlement and entry.delivery.status is Status.ACCEPTED:
                claimed.pop(entry.delivery.id, None)
            elif entry.__class__ is not Mark:
                self._recorded((entry,))
        if self._folding is None:
            self._fold_soon()
        return EVERYTHING

    def _record(self, entries: Sequence[Written | Fold]) -> None:
        """In the writer's thread when there is one."""
        if self._failure is not None:
            raise self._failure
        try:
            self._outbox.write(entries)
        except Exception as error:
            self._failure = error
            raise

    def _recorded(self, entries: Sequence[Written | Fold]) -> None:
        """These are durable: what has an outcome is not claimed any more."""
        for entry in entries:
            if isinstance(entry, Settlement):
                delivery = entry.delivery
                if delivery.status is Status.PENDING and delivery.due_at == 0:
                    self._comes_back(delivery.id)
                else:
                    self._claimed.pop(delivery.id, None)
            elif isinstance(entry, Invalidation):
                self._claimed.pop(entry.delivery_id, None)
        if self._folding is None:
            self._fold_soon()

    def _fold_soon(self) -> None:
        if self._outbox.has_unfolded:
            self._folding = asyncio.get_running_loop().call_later(FOLDED_AFTER, self._fold)

    def _fold(self) -> None:
        self._folding = None
        if self._writer is not None:
            self._writer.write([Fold()], _no_matter).add_done_callback(asyncio.Future.exception)
        else:
            with suppress(Exception):  # what is not folded stays in the journal; the next entry meets the same error
                self._record([Fold()])

    async def aclose(self) -> None:
        """Lets go of what is claimed.  Another engine may then use the store, too."""
        if self._folding is not None:
            self._folding.cancel()
            self._folding = None
        if self._writer is not None:
            writer, self._writer = self._writer, None
            with anyio.CancelScope(shield=True):
                await writer.stop()
        self._claimed.clear()
        self._after.clear()


def _no_matter(entries: Sequence[Written | Fold]) -> None:
    """Nothing hangs on when that was."""


class _DiskThread:
    """The thread that waits for the disk."""

    def __init__(self, record: Callable[[_Entries], None]) -> None:
        self._queue: SimpleQueue[tuple[_Entries, _Then, _Answer] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._record = record
        self._ended = asyncio.Event()
        # A daemon: a program that dies without aclose() has promised nothing of what is still queued.
        self.thread = threading.Thread(target=self._run, name="bulkmail outbox", daemon=True)
        self.thread.start()

    def write(self, entries: Sequence[Written | Fold], then: _Then) -> _Answer:
        """`then` is called behind the callbacks of the answer, when that is good."""
        answer: _Answer = self._loop.create_future()
        self._queue.put(([*entries], then, answer))
        return answer

    async def stop(self) -> None:
        """Everything queued is committed and answered."""
        self._queue.put(None)
        await self._ended.wait()
        self.thread.join()

    def _run(self) -> None:
        is_last = False
        while not is_last:
            taken, is_last = self._take()
            error = None
            try:
                if taken:
                    self._record([entry for entries, _, _ in taken for entry in entries])
            except Exception as failure:  # whatever it is, nothing of it is recorded and all must hear of it
                error = failure
            try:
                if taken:
                    self._loop.call_soon_threadsafe(self._answer, taken, error)
                if is_last:
                    self._loop.call_soon_threadsafe(self._ended.set)
            except RuntimeError:  # the loop was closed under us: no callback is left to run
                return

    def _take(self) -> tuple[list[tuple[_Entries, _Then, _Answer]], bool]:
        """All that is queued, and whether that is the end; waits for the first."""
        taken: list[tuple[_Entries, _Then, _Answer]] = []
        while not taken or not self._queue.empty():
            batch = self._queue.get()
            if batch is None:
                return taken, True
            taken.append(batch)
        return taken, False

    def _answer(self, taken: list[tuple[_Entries, _Then, _Answer]], error: BaseException | None) -> None:
        for entries, then, answer in taken:
            if answer.done():
                continue
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(EVERYTHING)
                self._loop.call_soon(then, entries)  # tasks that wait for the answer come first
