"""What there is to do: jobs from the outbox, handed out once each, taken back when nothing became of them."""

from __future__ import annotations

import heapq
import json
import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import field

from bulkmail.model.job import Job
from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.outbox.outbox import Outbox

BATCH = 64  # jobs a look into the outbox brings
MOST_ASIDE = 2_000  # jobs that wait for their own provider while others go

Lane = int
"""The number of a part of the work that has its own queue: what is due in another one never stands before it."""


@dataclass(slots=True)
class _Queue:
    """The jobs of one lane.  Holds at most a batch of them; nothing else is due before `dry_until` (wall clock).

    What was never tried is behind the id `after`.
    """

    lane: Lane
    ready: deque[Job] = field(default_factory=deque)
    after: int = 0
    dry_until: float = -math.inf

    def comes_again(self, delivery_id: int, due_at: float) -> None:
        """A delivery that was out is due again."""
        self.dry_until = min(self.dry_until, due_at)
        if due_at == 0:
            self.after = min(self.after, delivery_id - 1)


class Work:
    """The jobs of one run.  Holds a batch of each lane, and the ids of those that are out.

    `limit` is how many may be begun, None for all; `wants` are the ids of the only deliveries to hand out.
    """

    def __init__(
        self,
        outbox: Outbox,
        *,
        lanes: Iterable[Lane] = (0,),
        limit: int | None = None,
        wants: Collection[int] | None = None,
    ) -> None:
        self._outbox = outbox
        self._turn = deque(_Queue(lane) for lane in lanes)  # the first of these that has a job gives it, and goes last
        self._queues = {queue.lane: queue for queue in self._turn}
        self._out: dict[int, _Queue] = {}
        self._passed_over: set[int] = set()  # out, or set aside
        self._aside: list[tuple[float, int, Job, _Queue]] = []  # a heap: until when (monotonic), and what
        self._copies: dict[int, deque[Job]] = {}  # set aside for the job of this id
        self._left = limit
        self._wanted = None if wants is None else json.dumps(sorted(wants))  # as the outbox takes it

    @property
    def in_hand(self) -> int:
        """How many are out and not yet settled."""
        return len(self._out)

    @property
    def is_used_up(self) -> bool:
        """Whether the limit has been reached, so that there will be no more."""
        return self._left is not None and self._left <= 0

    def next(self, now: float, *, may_go: Callable[[Lane], bool] | None = None) -> Job | None:
        """A job that may go now (`now` is wall-clock seconds), or None: all that is left is out or due later.

        `may_go` leaves the jobs of other lanes where they are.  Lanes take turns.
        """
        if self.is_used_up:
            return None
        for queue in self._turn:
            if self._has_ready(queue, now) and (may_go is None or may_go(queue.lane)):
                break
        else:
            return None
        if len(self._turn) > 1:
            self._turn.remove(queue)
            self._turn.append(queue)
        job = queue.ready.popleft()
        self._out[job.delivery.id] = queue
        self._passed_over.add(job.delivery.id)
        if self._left is not None:
            self._left -= 1
        self._keep_copies(queue, job, now)
        return job

    def next_plain(self, now: float) -> Job | None:
        """As `next()`, where there is one lane and no row has copies."""
        queue = self._turn[0]
        if (self._left is not None and self._left <= 0) or not (queue.ready or self._has_ready(queue, now)):
            return None
        job = queue.ready.popleft()
        number = job.delivery.id
        self._out[number] = queue
        self._passed_over.add(number)
        if self._left is not None:
            self._left -= 1
        return job

    def set_aside(self, job: Job, until: float) -> None:
        """Nothing of it may go before `until` (monotonic seconds); what stands behind it may."""
        self.release_copies(job)
        queue = self._out.pop(job.delivery.id)
        if self._left is not None:
            self._left += 1
        heapq.heappush(self._aside, (until, job.delivery.id, job, queue))

    def bring_back(self, now: float) -> float | None:
        """What was set aside until `now` (monotonic seconds) is ready again; when the next will be, None for none."""
        while self._aside and self._aside[0][0] <= now:
            _, delivery_id, job, queue = heapq.heappop(self._aside)
            self._passed_over.discard(delivery_id)
            queue.ready.appendleft(job)
        return self._aside[0][0] if self._aside else None

    @property
    def next_aside(self) -> tuple[Lane, Job] | None:
        """What was set aside and is ready next."""
        return (self._aside[0][3].lane, self._aside[0][2]) if self._aside else None

    @property
    def has_much_aside(self) -> bool:
        """Whether this many are set aside that no more should be."""
        return len(self._aside) >= MOST_ASIDE

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
        for copy in reversed(self._copies.pop(job.delivery.id, ())):
            self._return(copy)

    def _keep_copies(self, queue: _Queue, job: Job, now: float) -> None:
        """Puts the copies of `job` aside for anyone who has it, lest another sender takes them while that one waits."""
        row = job.delivery.row
        if not self._has_ready(queue, now) or queue.ready[0].delivery.row != row:
            return
        kept = self._copies[job.delivery.id] = deque()
        while queue.ready and queue.ready[0].delivery.row == row:
            kept.append(copy := queue.ready.popleft())
            self._out[copy.delivery.id] = queue
            self._passed_over.add(copy.delivery.id)

    def lane_of(self, job: Job) -> Lane:
        """The lane of a job that is out."""
        return self._out[job.delivery.id].lane

    def has_some(self, now: float, *, among: Callable[[Lane], bool]) -> bool:
        """Whether a job of one of these lanes could go now, were it allowed."""
        return next(self.lanes_with_some(now, among=among), None) is not None

    def lanes_with_some(self, now: float, *, among: Callable[[Lane], bool]) -> Iterator[Lane]:
        """Those of these lanes that have a job that could go now, were it allowed."""
        return (q.lane for q in self._turn if not self.is_used_up and among(q.lane) and self._has_ready(q, now))

    def settled(self, delivery_id: int, *, due_at: float | None = None) -> None:
        """What became of it is durable; with `due_at` (wall clock; 0 is at once) it comes again."""
        queue = self._out.pop(delivery_id, None)
        self._passed_over.discard(delivery_id)
        if queue is not None and due_at is not None:
            queue.comes_again(delivery_id, due_at)

    def take_back(self, job: Job) -> None:
        """Nothing was attempted: it is the next to go."""
        self.release_copies(job)
        self._return(job)
        if self._left is not None:
            self._left += 1

    def next_due(self, now: float, *, among: Callable[[Lane], bool] | None = None) -> float | None:
        """When after `now` the next deferred one of these lanes is due, wall-clock seconds; None when none is.

        What is due by now is ready, out, or set aside.
        """
        found = (self._next_due(q.lane, now) for q in self._turn if among is None or among(q.lane))
        return min((due for due in found if due is not None), default=None)

    def has_others(self, done: Collection[int]) -> bool:
        """Whether a delivery that is not out and not among `done` may be begun in this run, now or later."""
        if self.is_used_up:
            return False
        if self._aside or any(job.delivery.id not in done for queue in self._queues.values() for job in queue.ready):
            return True
        return any(self._has_others_stored(queue, done) for queue in self._queues.values())

    def _has_others_stored(self, queue: _Queue, done: Collection[int]) -> bool:
        excluded = {*done, *self._out}
        return bool(
            self._outbox.due(
                math.inf, limit=1, excluding=excluded, lane=queue.lane, after=queue.after, wanted=self._wanted
            )
        )

    def has_open(self, among: Callable[[Lane], bool]) -> bool:
        """Whether a delivery of one of these lanes is still open."""
        return any(self.left_in(lane) for lane in self._queues if among(lane))

    def left_in(self, lane: Lane) -> int:
        """How many deliveries of `lane` are still open."""
        return self._outbox.count_open(lane, wanted=self._wanted)

    def _return(self, job: Job) -> None:
        queue = self._out.pop(job.delivery.id)
        self._passed_over.discard(job.delivery.id)
        queue.ready.appendleft(job)

    def _has_ready(self, queue: _Queue, now: float) -> bool:
        if not queue.ready and now >= queue.dry_until:
            self._refill(queue, now)
        return bool(queue.ready)

    def _refill(self, queue: _Queue, now: float) -> None:
        jobs = self._outbox.due(
            now, limit=BATCH, excluding=self._passed_over, lane=queue.lane, after=queue.after, wanted=self._wanted
        )
        for job in jobs:
            if job.delivery.due_at == 0:
                queue.after = max(queue.after, job.delivery.id)
            queue.ready.append(job)
        if not jobs:
            # What is due but out comes again when it is settled, what is set aside by itself.
            due = self._next_due(queue.lane, now)
            queue.dry_until = math.inf if due is None else due

    def _next_due(self, lane: Lane, now: float) -> float | None:
        return self._outbox.next_due(lane, after=now, wanted=self._wanted)
