"""What there is to do: jobs from the outbox, handed out once each, taken back when nothing became of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from bulkmail.outbox.outbox import Job, Outbox

BATCH = 64  # jobs a look into the outbox brings


class Work:
    """The jobs of one run.  Holds at most a batch of them, and the ids of those that are out.

    `limit` is how many may be begun, None for all; `wants` leaves the others untouched.
    """

    def __init__(self, outbox: Outbox, *, limit: int | None = None, wants: Callable[[Job], bool] | None = None) -> None:
        self._outbox = outbox
        self._ready: deque[Job] = deque()
        self._out: set[int] = set()
        self._unwanted: set[int] = set()
        self._copies: dict[int, deque[Job]] = {}  # set aside for the job of this id
        self._has_more = True  # the outbox, beyond what is ready
        self._left = limit
        self._wants = wants

    @property
    def in_hand(self) -> int:
        """How many are out and not yet settled."""
        return len(self._out)

    @property
    def is_used_up(self) -> bool:
        """Whether the limit has been reached, so that there will be no more."""
        return self._left is not None and self._left <= 0

    def next(self, now: float) -> Job | None:
        """A job that may go now (`now` is wall-clock seconds), or None: all that is left is out or due later."""
        if self.is_used_up:
            return None
        if not self._ready:
            self._refill(now)
        if not self._ready:
            return None
        job = self._ready.popleft()
        self._out.add(job.delivery.id)
        if self._left is not None:
            self._left -= 1
        self._keep_copies(job, now)
        return job

    def next_copy(self, job: Job) -> Job | None:
        """A copy of `job`, which is out: another forward path of its row that may go now."""
        kept = self._copies.get(job.delivery.id)
        if not kept or self.is_used_up:
            return None
        if self._left is not None:
            self._left -= 1
        return kept.popleft()

    def release_copies(self, job: Job) -> None:
        """Those copies of `job` that were not taken are the next to go, each for itself."""
        kept = self._copies.pop(job.delivery.id, ())
        for copy in reversed(kept):
            self._out.discard(copy.delivery.id)
            self._ready.appendleft(copy)

    def _keep_copies(self, job: Job, now: float) -> None:
        """Puts the copies of `job` aside for whoever has it, lest another sender takes them while that one waits."""
        if not self._ready and self._has_more:
            self._refill(now)
        ready, row = self._ready, job.delivery.row
        if not ready or ready[0].delivery.row != row:
            return
        kept = self._copies[job.delivery.id] = deque()
        while ready and ready[0].delivery.row == row:
            kept.append(ready.popleft())
        self._out.update(copy.delivery.id for copy in kept)

    def settled(self, delivery_id: int) -> None:
        """What became of it is durable; it may come again when its time has come."""
        self._out.discard(delivery_id)

    def take_back(self, job: Job) -> None:
        """Nothing was attempted: it is the next to go."""
        self.release_copies(job)
        self._out.discard(job.delivery.id)
        self._ready.appendleft(job)
        if self._left is not None:
            self._left += 1

    def next_due(self) -> float | None:
        """When the next deferred one is due, wall-clock seconds; None when none is deferred."""
        return self._outbox.next_due()

    def _refill(self, now: float) -> None:
        while jobs := self._outbox.due(now, limit=BATCH, excluding=self._out | self._unwanted):
            self._has_more = len(jobs) == BATCH
            for job in jobs:
                if self._wants is None or self._wants(job):
                    self._ready.append(job)
                else:
                    self._unwanted.add(job.delivery.id)
            if self._ready:
                return
