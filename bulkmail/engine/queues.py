"""What there is to send: jobs from the outbox, handed out once each, taken back when nothing became of them."""

from __future__ import annotations

import heapq
import json
import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from bulkmail.model.job import Job
from bulkmail.outbox.outbox import Outbox

BATCH = 64  # jobs a look into the outbox brings
MOST_ASIDE = 2_000  # jobs that wait for their own provider while others go

QueueKey = int
"""The number of a part of the work that has its own queue: what is due in another one never stands before it."""


class _Queue:
    """The jobs of one key.  Holds at most a batch of them; nothing else is due before `dry_until` (wall clock).

    What was never tried is behind the id `after`.
    """

    __slots__ = ("_outbox", "_wanted", "after", "dry_until", "key", "ready")

    def __init__(self, key: QueueKey, outbox: Outbox, wanted: str | None) -> None:
        self.key = key
        self.ready: deque[Job] = deque()
        self.after = 0
        self.dry_until = -math.inf
        self._outbox = outbox
        self._wanted = wanted

    def has_ready(self, now: float, *, excluding: Collection[int]) -> bool:
        """Whether a job is ready that is not among those; looks into the outbox where none is at hand."""
        if not self.ready and now >= self.dry_until:
            self._refill(now, excluding)
        return bool(self.ready)

    def _refill(self, now: float, excluding: Collection[int]) -> None:
        for job in self._due(now, limit=BATCH, excluding=excluding):
            if job.delivery.due_at == 0:
                self.after = max(self.after, job.delivery.id)
            self.ready.append(job)
        if not self.ready:
            # What is due but out comes again when it is settled, what is set aside by itself.
            due = self.next_due(now)
            self.dry_until = math.inf if due is None else due

    def _due(self, now: float, *, limit: int, excluding: Collection[int]) -> Sequence[Job]:
        return self._outbox.due(
            now, limit=limit, excluding=excluding, lane=self.key, after=self.after, wanted=self._wanted
        )

    def next_due(self, now: float) -> float | None:
        """When after `now` the next deferred one is due, wall-clock seconds."""
        return self._outbox.next_due(self.key, after=now, wanted=self._wanted)

    def count_open(self) -> int:
        """How many deliveries are still open."""
        return self._outbox.count_open(self.key, wanted=self._wanted)

    def has_others(self, excluding: Collection[int]) -> bool:
        """Whether one that is not among those may be begun in this run, now or later."""
        return any(job.delivery.id not in excluding for job in self.ready) or bool(
            self._due(math.inf, limit=1, excluding=excluding)
        )

    def comes_again(self, delivery_id: int, due_at: float) -> None:
        """A delivery that was out is due again."""
        self.dry_until = min(self.dry_until, due_at)
        if due_at == 0:
            self.after = min(self.after, delivery_id - 1)


class Queues:
    """The jobs of one run.  Holds a batch of each key, and the ids of those that are out.

    `limit` is how many may be begun, None for all; `wants` are the ids of the only deliveries to hand out.

    It has more methods than a class should: each is one move of a job between ready, out, aside and kept as a copy, or
    one look at them.
    """

    def __init__(
        self,
        outbox: Outbox,
        *,
        keys: Iterable[QueueKey] = (0,),
        limit: int | None = None,
        wants: Collection[int] | None = None,
    ) -> None:
        wanted = None if wants is None else json.dumps(sorted(wants))  # as the outbox takes it
        # The first of these that has a job gives it, and goes last.
        self._turn = deque(_Queue(key, outbox, wanted) for key in keys)
        self.out: dict[int, _Queue] = {}  # handed out and not yet settled, by delivery
        self._passed_over: set[int] = set()  # out, or set aside
        self._aside: list[tuple[float, int, Job, _Queue]] = []  # a heap: until when (monotonic), and what
        self._has_copies = outbox.has_copies
        self._copies: dict[int, deque[Job]] = {}  # set aside for the job of this id
        self._left = limit

    @property
    def in_hand(self) -> int:
        """How many are out and not yet settled."""
        return len(self.out)

    @property
    def is_used_up(self) -> bool:
        """Whether the limit has been reached, so that there will be no more."""
        return self._left is not None and self._left <= 0

    def next(self, now: float, *, may_go: Callable[[QueueKey], bool] | None = None) -> Job | None:
        """A job that may go now (`now` is wall-clock seconds), or None: all that is left is out or due later.

        `may_go` leaves the jobs of other keys where they are.  Keys take turns.
        """
        if self._left is not None and self._left <= 0:
            return None
        for queue in self._turn:
            has_some = queue.ready or queue.has_ready(now, excluding=self._passed_over)
            if has_some and (may_go is None or may_go(queue.key)):
                break
        else:
            return None
        if len(self._turn) > 1:
            self._turn.remove(queue)
            self._turn.append(queue)
        job = queue.ready.popleft()
        number = job.delivery.id
        self.out[number] = queue
        self._passed_over.add(number)
        if self._left is not None:
            self._left -= 1
        if self._has_copies:
            self._keep_copies(queue, job, now)
        return job

    def set_aside(self, job: Job, until: float) -> bool:
        """Nothing of it may go before `until` (monotonic seconds); what stands behind it may.

        False where this many are set aside already that it is the next to go instead.
        """
        if len(self._aside) >= MOST_ASIDE:
            self.take_back(job)
            return False
        self.release_copies(job)
        queue = self.out.pop(job.delivery.id)
        if self._left is not None:
            self._left += 1
        heapq.heappush(self._aside, (until, job.delivery.id, job, queue))
        return True

    def bring_back(self, now: float) -> float | None:
        """What was set aside until `now` (monotonic seconds) is ready again; when the next will be, None for none."""
        while self._aside and self._aside[0][0] <= now:
            _, delivery_id, job, queue = heapq.heappop(self._aside)
            self._passed_over.discard(delivery_id)
            queue.ready.appendleft(job)
        return self._aside[0][0] if self._aside else None

    @property
    def next_aside(self) -> tuple[QueueKey, Job] | None:
        """What was set aside and is ready next."""
        return (self._aside[0][3].key, self._aside[0][2]) if self._aside else None

    def next_copy(self, job: Job) -> Job | None:
        """A copy of `job`, which is out: another forward path of its row that may go now."""
        kept = self._copies.get(job.delivery.id)
        if not kept or self.is_used_up:
            return None
        if self._left is not None:
            self._left -= 1
        return kept.popleft()

    def return_copy(self, job: Job, copy: Job) -> None:
        """`copy`, which was the last that `next_copy()` gave, does not go with `job` after all."""
        self._copies[job.delivery.id].appendleft(copy)
        if self._left is not None:
            self._left += 1

    def release_copies(self, job: Job) -> None:
        """Those copies of `job` that were not taken are the next to go, each for itself."""
        for copy in reversed(self._copies.pop(job.delivery.id, ())):
            self._return(copy)

    def _keep_copies(self, queue: _Queue, job: Job, now: float) -> None:
        """Puts the copies of `job` aside for anyone who has it, lest another sender takes them while that one waits."""
        row = job.delivery.row
        if not queue.has_ready(now, excluding=self._passed_over) or queue.ready[0].delivery.row != row:
            return
        kept = self._copies[job.delivery.id] = deque()
        while queue.ready and queue.ready[0].delivery.row == row:
            kept.append(copy := queue.ready.popleft())
            self.out[copy.delivery.id] = queue
            self._passed_over.add(copy.delivery.id)

    def key_of(self, job: Job) -> QueueKey:
        """The key of a job that is out."""
        return self.out[job.delivery.id].key

    def keys_with_some(self, now: float, *, among: Callable[[QueueKey], bool]) -> Iterator[QueueKey]:
        """Those of these keys that have a job that could go now, were it allowed."""
        return (
            q.key
            for q in self._turn
            if not self.is_used_up and among(q.key) and q.has_ready(now, excluding=self._passed_over)
        )

    def settled(self, delivery_id: int, *, due_at: float | None = None) -> None:
        """What became of it is durable; with `due_at` (wall clock; 0 is at once) it comes again."""
        queue = self.out.pop(delivery_id, None)
        self._passed_over.discard(delivery_id)
        if queue is not None and due_at is not None:
            queue.comes_again(delivery_id, due_at)

    def take_back(self, job: Job) -> None:
        """Nothing was attempted: it is the next to go."""
        self.release_copies(job)
        self._return(job)
        if self._left is not None:
            self._left += 1

    @property
    def known_due(self) -> float:
        """When something may be due next as far as is known without a look into the outbox, wall-clock seconds."""
        return min((queue.dry_until for queue in self._turn), default=math.inf)

    def next_due(self, now: float, *, among: Callable[[QueueKey], bool] | None = None) -> float | None:
        """When after `now` the next deferred one of these keys is due, wall-clock seconds; None when none is.

        What is due by now is ready, out, or set aside.
        """
        found = (q.next_due(now) for q in self._turn if among is None or among(q.key))
        return min((due for due in found if due is not None), default=None)

    def has_others(self, done: Collection[int]) -> bool:
        """Whether a delivery that is not out and not among `done` may be begun in this run, now or later."""
        if self.is_used_up:
            return False
        excluded = {*done, *self.out}
        return bool(self._aside) or any(queue.has_others(excluded) for queue in self._turn)

    def left_in(self, key: QueueKey) -> int:
        """How many deliveries of `key` are still open."""
        return next((queue.count_open() for queue in self._turn if queue.key == key), 0)

    def _return(self, job: Job) -> None:
        queue = self.out.pop(job.delivery.id)
        self._passed_over.discard(job.delivery.id)
        queue.ready.appendleft(job)
