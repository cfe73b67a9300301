"""A store that fulfils the contract in the least convenient way: late, choosy, and forgetful."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Collection, Sequence

from msgspec import Struct
from msgspec.structs import replace

from bulkmail.model.delivery import Claim, Delivery, Invalidation, Job, Mark, PutBack, Release, Settlement, Written
from bulkmail.model.recipient import Recipient
from bulkmail.model.tally import Status, Tally


class Row(Struct):
    """A delivery as the store has it.  `is_ours`: claimed by the run under test."""

    delivery: Delivery
    recipient: Recipient
    is_ours: bool = False
    is_marked: bool = False
    digest: bytes | None = None
    in_doubt_before: bool = False


class MemoryStore:
    """Deliveries of `recipients`, one for each; `rng` decides how late it answers and what it refuses or loses.

    `refuses` is the share of marks that are not granted for no reason.  `loses` is the chance, before any call, that
    another process takes over: a few claims without a word, or all of them with a new epoch; then what is marked is in
    doubt until its late outcome comes.  The other process sends some of what it took, which is `elsewhere` then.
    """

    def __init__(
        self, recipients: Sequence[Recipient], *, rng: random.Random, refuses: float = 0.0, loses: float = 0.0
    ) -> None:
        self.rows = {
            number: Row(Delivery(number, number, str(recipient.address)), recipient)
            for number, recipient in enumerate(recipients, 1)
        }
        self.epoch = 0
        self.eligible = len(self.rows)
        self.has_copies = False
        self.elsewhere: set[int] = set()
        self.refused = 0
        self._rng = rng
        self._refuses = refuses
        self._loses = loses
        self._out: set[int] = set()  # handed to the run, which has not said what became of them
        self._last: asyncio.Future[Collection[int]] | None = None

    # -- the contract

    def claim(self, queue: int, *, limit: int, now: float) -> asyncio.Future[Claim]:
        return asyncio.ensure_future(self._claim(limit, now))

    def give_back(self, ids: Collection[int]) -> None:
        for number in ids:
            self._out.discard(number)
            self.rows[number].is_ours = False

    def has_more(self, queue: int, *, besides: Collection[int]) -> bool:
        return True  # would have to ask

    def count_open(self, queue: int) -> asyncio.Future[int]:
        return asyncio.ensure_future(
            self._later(lambda: sum(row.delivery.status.is_open for row in self.rows.values()))
        )

    def tally(self) -> asyncio.Future[Tally]:
        return asyncio.ensure_future(self._later(lambda: Tally(len(self.rows), self.statuses())))

    def write(self, entries: Sequence[Written]) -> asyncio.Future[Collection[int]]:
        self._last = asyncio.ensure_future(self._write(list(entries), self._last))
        return self._last

    async def aclose(self) -> None:
        self.give_back([number for number in self._out if not self.rows[number].is_marked])
        self._out.clear()

    # -- what goes on behind it

    def statuses(self) -> Counter[Status]:
        """How many are in each status."""
        return Counter(row.delivery.status for row in self.rows.values())

    async def _later(self, call):  # type: ignore[no-untyped-def]
        if self._rng.random() < 0.5:
            await asyncio.sleep(self._rng.random() / 200)
        self._mishap()
        return call()

    async def _claim(self, limit: int, now: float) -> Claim:
        return await self._later(lambda: self._claimed(limit, now))

    def _claimed(self, limit: int, now: float) -> Claim:
        free = [
            (-row.delivery.due_at, number)
            for number, row in self.rows.items()
            if row.delivery.status.is_open and not (row.is_ours or row.is_marked or number in self._out)
        ]
        ready = sorted(pair for pair in free if -pair[0] <= now)[:limit]
        if not ready:
            return Claim([], min((-due for due, _ in free), default=math.inf), self.epoch)
        jobs = []
        for _, number in ready:
            row = self.rows[number]
            row.is_ours = True
            self._out.add(number)
            jobs.append(Job(row.delivery, row.recipient, None, row.digest, row.in_doubt_before))
        return Claim(jobs, epoch=self.epoch)

    async def _write(self, entries: list[Written], before: asyncio.Future[Collection[int]] | None) -> Collection[int]:
        if before is not None and not before.done():
            await asyncio.wait([before])
        return await self._later(lambda: {number for entry in entries for number in self._written(entry)})

    def _written(self, entry: Written) -> list[int]:
        if isinstance(entry, PutBack):
            for number in entry.deliveries:
                self._move(number, Status.REJECTED, Status.PENDING)
            return []
        number = entry.delivery.id if isinstance(entry, Settlement) else entry.delivery_id
        row = self.rows[number]
        if isinstance(entry, Release):
            row.is_marked = False
            if row.delivery.status is Status.IN_DOUBT:
                row.delivery = replace(row.delivery, status=Status.PENDING)
            return []
        if isinstance(entry, Mark):
            is_taken = row.is_ours and not row.is_marked and row.delivery.status.is_open
            if is_taken and self._rng.random() < self._refuses:
                row.is_ours, is_taken = False, False
            if is_taken:
                row.is_marked, row.digest = True, entry.digest
            else:
                self.refused += 1
                self._out.discard(number)
            return [number] if is_taken else []
        is_taken = row.is_marked or (row.is_ours and row.delivery.status.is_open)
        if is_taken and isinstance(entry, Settlement):
            row.delivery = entry.delivery
        elif is_taken and isinstance(entry, Invalidation):
            self._move(number, Status.PENDING, Status.INVALID)
        if is_taken:
            row.is_ours = row.is_marked = False
        self._out.discard(number)
        return [number] if is_taken else []

    def _move(self, number: int, before: Status, after: Status) -> None:
        row = self.rows[number]
        if row.delivery.status is before:
            row.delivery = replace(row.delivery, status=after)

    def _mishap(self) -> None:
        """Another process takes claims over, between any two calls."""
        if self._rng.random() >= self._loses:
            return
        ours = [number for number, row in self.rows.items() if row.is_ours]
        if self._rng.random() < 0.5:
            ours = self._rng.sample(ours, min(len(ours), 3))
            ours = [number for number in ours if not self.rows[number].is_marked]
        else:
            self.epoch += 1
            self._out.clear()
        for number in ours:
            row = self.rows[number]
            row.is_ours = False
            if row.is_marked:
                row.delivery, row.in_doubt_before = replace(row.delivery, status=Status.IN_DOUBT), True
            elif row.delivery.status.is_open and self._rng.random() < 0.3:
                row.delivery = replace(row.delivery, status=Status.ACCEPTED)
                self.elsewhere.add(number)


def now() -> float:
    """The wall clock, which stores of several machines do not let anybody choose."""
    return time.time()
