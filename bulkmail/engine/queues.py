"""What there is to send: jobs from the store, handed out once each, and which of several relays may take the next."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial

from bulkmail.engine.contracts import QueueKey, Store
from bulkmail.engine.relay_state import RelayState
from bulkmail.model.delivery import Claim, Job

# -- What there is to send: jobs from the store, handed out once each, taken back when nothing became of them.


BATCH = 64  # jobs that are claimed at a time
AGAIN = 1.0  # seconds after which a store is asked again that gave what is still out here
MOST_ASIDE = 2_000  # jobs that wait for their own provider while others go


def _nothing() -> None:
    """The default: nothing waits for it."""


def _no_matter(error: BaseException) -> None:
    """The next call of the store says so, too."""


class _Queue:
    """The jobs of one key.  Holds at most a batch of them; nothing else is due before `dry_until` (wall clock)."""

    __slots__ = ("dry_until", "is_asking", "key", "ready")

    def __init__(self, key: QueueKey) -> None:
        self.key = key
        self.ready: deque[Job] = deque()
        self.dry_until = -math.inf
        self.is_asking = False  # the store, which answers later

    def comes_again(self, due_at: float) -> None:
        """A delivery that was out is due again."""
        self.dry_until = min(self.dry_until, due_at)


class Queues:
    """The jobs of one run.  Holds a batch of each key, and the ids of those that are out.

    `limit` is how many may be begun, None for all.  `changed` is called when the store has answered later, `failed`
    when it did so with an error.

    It has more methods than a class should: each is one move of a job between ready, out, aside and kept as a copy, or
    one look at them.
    """

    def __init__(
        self,
        store: Store,
        *,
        keys: Iterable[QueueKey] = (0,),
        limit: int | None = None,
        changed: Callable[[], None] = _nothing,
        failed: Callable[[BaseException], None] = _no_matter,
    ) -> None:
        self._store = store
        self._epoch = store.epoch
        self._changed = changed
        self._failed = failed
        # The first of these that has a job gives it, and goes last.
        self._turn = deque(_Queue(key) for key in keys)
        self.out: dict[int, _Queue] = {}  # handed out and not yet settled, by delivery
        self.stale: set[int] = set()  # of those, whose claim was lost while they were out
        self._aside: list[tuple[float, int, Job, _Queue]] = []  # a heap: until when (monotonic), and what
        self._has_copies = store.has_copies
        self._copies: dict[int, deque[Job]] = {}  # set aside for the job of this id
        self._left = limit

    @property
    def in_hand(self) -> int:
        """How many are out and not yet settled."""
        return len(self.out)

    @property
    def is_waiting(self) -> bool:
        """Whether something is out or asked for, so that there may be more soon; `changed` is called then."""
        return bool(self.out) or any(queue.is_asking for queue in self._turn)

    @property
    def is_used_up(self) -> bool:
        """Whether the limit has been reached, so that there will be no more."""
        return self._left is not None and self._left <= 0

    def next(self, now: float, *, may_go: Callable[[QueueKey], bool] | None = None) -> Job | None:
        """A job that may go now (`now` is wall-clock seconds), or None: all that is left is out or due later.

        `may_go` leaves the jobs of other keys where they are.  Keys take turns.
        """
        if self._epoch != self._store.epoch:
            self._start_over()
        if self._left is not None and self._left <= 0:
            return None
        for queue in self._turn:
            has_some = queue.ready or self._has_ready(queue, now)
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
        if self._left is not None:
            self._left -= 1
        if self._has_copies:
            self._keep_copies(queue, job, now)
        return job

    def set_aside(self, job: Job, until: float) -> bool:
        """Nothing of it may go before `until` (monotonic seconds); what follows it may.

        False if too many are set aside already: then it is the next to go instead.
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
            _, _, job, queue = heapq.heappop(self._aside)
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
        """Keeps the copies of `job` for the worker that has it, or another would take them while that one waits."""
        row = job.delivery.row
        if not self._has_ready(queue, now) or queue.ready[0].delivery.row != row:
            return
        kept = self._copies[job.delivery.id] = deque()
        while queue.ready and queue.ready[0].delivery.row == row:
            kept.append(copy := queue.ready.popleft())
            self.out[copy.delivery.id] = queue

    def key_of(self, job: Job) -> QueueKey:
        """The key of a job that is out."""
        return self.out[job.delivery.id].key

    def keys_with_some(self, now: float, *, among: Callable[[QueueKey], bool]) -> Iterator[QueueKey]:
        """Those of these keys that have a job that could go now, were it allowed."""
        return (q.key for q in self._turn if not self.is_used_up and among(q.key) and self._has_ready(q, now))

    def settled(self, delivery_id: int, *, due_at: float | None = None) -> None:
        """What became of it is durable; with `due_at` (wall clock; 0 is at once) it comes again."""
        queue = self.out.pop(delivery_id, None)
        if self.stale:
            self.stale.discard(delivery_id)
        if queue is not None and due_at is not None:
            queue.comes_again(due_at)

    def lost(self, job: Job) -> None:
        """The store did not grant its mark or take its outcome: it is another's now, or will be claimed again."""
        self.release_copies(job)
        self.settled(job.delivery.id, due_at=0.0)
        if self._left is not None:
            self._left += 1

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
        found = (q.dry_until for q in self._turn if among is None or among(q.key))
        return min((due for due in found if now < due < math.inf), default=None)

    def has_others(self, done: Collection[int]) -> bool:
        """Whether a delivery that is not out and not among `done` may be begun in this run, now or later."""
        if self.is_used_up:
            return False
        if self._aside or any(job.delivery.id not in done for queue in self._turn for job in queue.ready):
            return True
        return any(queue.is_asking or self._store.has_more(queue.key, besides=done) for queue in self._turn)

    async def left_in(self, key: QueueKey) -> int:
        """How many deliveries of `key` are still open."""
        answer = self._store.count_open(key)
        return await answer if isinstance(answer, asyncio.Future) else answer

    def _return(self, job: Job) -> None:
        queue = self.out.pop(job.delivery.id)
        if job.delivery.id in self.stale:
            self.stale.discard(job.delivery.id)
            queue.comes_again(0.0)
        else:
            queue.ready.appendleft(job)

    def _has_ready(self, queue: _Queue, now: float) -> bool:
        if not queue.ready and now >= queue.dry_until and not queue.is_asking:
            self._refill(queue, now)
        return bool(queue.ready)

    def _refill(self, queue: _Queue, now: float) -> None:
        queue.dry_until = math.inf  # until the answer, or until one that is out comes again
        answer = self._store.claim(queue.key, limit=BATCH, now=now)
        if isinstance(answer, asyncio.Future):
            queue.is_asking = True
            answer.add_done_callback(partial(self._answered, queue, now))
        else:
            self._claimed(queue, answer, now)

    def _claimed(self, queue: _Queue, claim: Claim, now: float) -> None:
        if self.stale and any(job.delivery.id in self.stale for job in claim.jobs):
            # Until the try that has begun is over: its mark will not be granted, its outcome may be taken.
            self._store.give_back([job.delivery.id for job in claim.jobs])
            queue.dry_until = min(queue.dry_until, now + AGAIN)
            return
        queue.ready.extend(claim.jobs)
        queue.dry_until = min(queue.dry_until, claim.more_at)

    def _answered(self, queue: _Queue, now: float, answer: asyncio.Future[Claim]) -> None:
        queue.is_asking = False
        if self._epoch != self._store.epoch:
            self._start_over()
        error = None if answer.cancelled() else answer.exception()
        if error is not None:
            self._failed(error)
        elif answer.cancelled() or answer.result().epoch != self._epoch:
            queue.dry_until = -math.inf
        else:
            self._claimed(queue, answer.result(), now)
        self._changed()

    def _start_over(self) -> None:
        """Claims were lost: what has not begun is claimed again; what has begun learns it at its mark."""
        self._epoch = self._store.epoch
        self.stale.update(self.out)
        self._aside.clear()
        for queue in self._turn:
            queue.ready.clear()
            queue.dry_until = -math.inf


# -- Who of several relays may take the next job of a queue: the better ones first, equals in shares if they have any.


LEAD = 16.0  # jobs that a relay may be ahead of its share: enough that no session waits for another relay's


class _Member:
    """A relay of a queue.  `taken` are jobs divided by weight, as if it had been there from the beginning."""

    __slots__ = ("relay", "taken", "was_away")

    def __init__(self, relay: RelayState) -> None:
        self.relay = relay
        self.taken = 0.0
        self.was_away = False


class RelayShares:
    """Plain bookkeeping; `now` is monotonic seconds.

    `serving` says which relays, by their number, each queue may go through.
    """

    def __init__(self, relays: Sequence[RelayState], serving: Mapping[QueueKey, Sequence[int]]) -> None:
        self._members = {
            key: {relays[number]: _Member(relays[number]) for number in numbers} for key, numbers in serving.items()
        }
        self._weighted = {
            key: {relay.priority for relay in members if relay.is_weighted} for key, members in self._members.items()
        }
        self._is_holding = False
        self.is_alone = len(relays) == 1 and len(serving) == 1  # one relay and one queue: nothing to share

    def keys_of(self, relay: RelayState) -> list[QueueKey]:
        """The queues whose jobs may go through `relay`."""
        return [key for key, members in self._members.items() if relay in members]

    def serving(self, relay: RelayState) -> Callable[[QueueKey], bool]:
        """Which queues `relay` has to do with."""
        return lambda key: relay in self._members[key]

    def may_take(self, relay: RelayState, key: QueueKey, now: float) -> bool:
        """Whether `relay` may take a job of `key` now, as far as the other relays are concerned."""
        members = self._members[key]
        mine = members.get(relay)
        if mine is None:
            return False
        if len(members) == 1:
            return True
        if any(other.priority < relay.priority and other.is_able(now) for other in members):
            return False
        if relay.priority not in self._weighted[key]:
            return True
        equals = self._equals(mine, members, now)
        if any(mine.taken - other.taken > LEAD / relay.weight for other in equals):
            self._is_holding = True
            return False
        return True

    def took(self, relay: RelayState, key: QueueKey, now: float) -> bool:
        """Books a job; returns whether relays held back in favour of this one should look again."""
        members = self._members[key]
        mine = members[relay]
        if relay.priority not in self._weighted[key]:
            return False
        equals = self._equals(mine, members, now)
        if mine.was_away and equals:  # what it has missed is not owed to it
            mine.taken = max(mine.taken, min(other.taken for other in equals))
        mine.was_away = False
        mine.taken += 1.0 / relay.weight
        if not self._is_holding or any(o.taken - mine.taken > LEAD / o.relay.weight / 2 for o in equals):
            return False
        self._is_holding = False
        return True

    def _equals(self, mine: _Member, members: Mapping[RelayState, _Member], now: float) -> list[_Member]:
        """The others of the same priority that do their share."""
        found = []
        for other in members.values():
            if other is mine or other.relay.priority != mine.relay.priority:
                continue
            if other.relay.health.open and other.relay.is_able(now):
                found.append(other)
            else:
                other.was_away = True
        return found

    def gave_back(self, relay: RelayState, key: QueueKey) -> None:
        """The reverse of `took()`: nothing came of it."""
        self._members[key][relay].taken -= 1.0 / relay.weight

    def has_others(self, relay: RelayState, key: QueueKey) -> bool:
        """Whether another relay that is not out could take the jobs of `key`."""
        return any(other is not relay and not other.is_out for other in self._members[key])

    def is_needed(self, relay: RelayState, now: float) -> bool:
        """Whether some queue has no other relay that there is hope for."""
        return any(
            relay in members and not any(other is not relay and other.is_hopeful(now) for other in members)
            for members in self._members.values()
        )

    def stranded(self) -> list[tuple[QueueKey, RelayState]]:
        """The queues that no relay is left for, each with one that it would have gone through."""
        return [
            (key, next(iter(members)))
            for key, members in self._members.items()
            if all(relay.is_out for relay in members)
        ]
