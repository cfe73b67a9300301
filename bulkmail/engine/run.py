"""What the workers of one run share: scheduler, relays, messages made ahead, what is written down, how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self

import anyio

from bulkmail.engine.contracts import ClaimLost, Clock, Compose, Ending, Notice, Plan, Sign, Store, make_shaper
from bulkmail.engine.relay_state import Account, RelayState, Throttling
from bulkmail.engine.scheduler import Booking, Scheduler
from bulkmail.engine.telling import Telling
from bulkmail.model.breaker import Breaker, explain, explain_failing, explain_left_out, explain_rest
from bulkmail.model.delivery import EVERYTHING, Invalidation, Mark, Message, Settlement, Written
from bulkmail.model.errors import BulkmailError, OutboxError
from bulkmail.model.outcome import Fault, Reply, Scope
from bulkmail.model.quantities import say_duration
from bulkmail.model.shaper import ThrottleDecision
from bulkmail.model.timing import Hold
from bulkmail.text import count, printable

# -- How a run ends, and how its waiting workers are woken.


class Lifetime:
    """Plain calls on the loop; `ending` is None as long as the run goes on by itself."""

    def __init__(self, clock: Clock) -> None:
        self.ending: Ending | None = None
        self._clock = clock
        self._wake = anyio.Event()
        self._openings: set[anyio.CancelScope] = set()

    def end(self, ending: Ending) -> None:
        """Begin nothing more.  The first reason stands, except that an error outranks the user's word."""
        if self.ending is None or (ending.error and not self.ending.error):
            self.ending = ending
        for opening in self._openings:
            opening.cancel()
        self.nudge()

    @contextmanager
    def opening(self) -> Iterator[anyio.CancelScope]:
        """Around the opening of a session, which carries no message yet: cancelled when the run ends.

        A server that is silent would otherwise hold the end up for five minutes (RFC 5321 §4.5.3.2.1).
        """
        with anyio.CancelScope() as scope:
            self._openings.add(scope)
            try:
                yield scope
            finally:
                self._openings.remove(scope)

    def nudge(self) -> None:
        """Something changed: wakes every `pause()`."""
        self._wake.set()
        self._wake = anyio.Event()

    async def pause(self, seconds: float) -> bool:
        """Returns after `seconds`, or sooner when something changed; False when the run is ending."""
        if self.ending is not None:
            return False
        async with anyio.create_task_group() as group:
            group.start_soon(self._alarm, seconds, group.cancel_scope)
            await self._wake.wait()
            group.cancel_scope.cancel()
        return self.ending is None

    async def _alarm(self, seconds: float, scope: anyio.CancelScope) -> None:
        await self._clock.sleep(seconds)
        scope.cancel()


# -- Messages made ahead of the session that carries them, and signed in threads where that takes long.


THREADS = 2


class Prepared:
    """A booked delivery with its message, which is ready at once where there is nothing to wait for."""

    __slots__ = ("_future", "_message", "booking", "first_at")

    def __init__(self, booking: Booking, message: Message, first_at: float, future: Future[Message] | None) -> None:
        self.booking = booking
        self.first_at = first_at
        self._message = message
        self._future = future

    @property
    def is_ready(self) -> bool:
        """Whether `now()` does not wait."""
        return self._future is None or self._future.done()

    def now(self) -> Message:
        """The message; waits a millisecond or two where it is not ready."""
        return self._message if self._future is None else self._future.result()

    async def message(self) -> Message:
        """The message, as soon as it is ready."""
        return self._message if self._future is None else await asyncio.wrap_future(self._future)


class Preparer:
    """Makes the messages of a run.  A few threads sign them; signing releases the GIL."""

    def __init__(self, compose: Compose, sign: Sign | None, clock: Clock) -> None:
        self._compose = compose
        self._sign = sign
        self._clock = clock
        self._pool = None if sign is None else ThreadPoolExecutor(THREADS, thread_name_prefix="bulkmail-sign")

    @property
    def is_slow(self) -> bool:
        """Whether a message is better prepared while the one before is under way."""
        return self._pool is not None

    def prepare(self, booking: Booking, *, at_once: bool = False) -> Prepared:
        """The message of a delivery; signed by a thread meanwhile, unless `at_once`.  Raises `TemplateError`."""
        first_at = booking.job.delivery.first_at or self._clock.now()
        message = self._compose(booking.job, first_at)
        if self._sign is None or self._pool is None:
            return Prepared(booking, message, first_at, None)
        if at_once:
            return Prepared(booking, self._sign(message, first_at), first_at, None)
        return Prepared(booking, message, first_at, self._pool.submit(self._sign, message, first_at))

    def close(self) -> None:
        """Lets go of the threads; what is not begun is not signed any more."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


# -- Group commit: everything that one turn of the loop wants recorded is one call of the store.


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
        """As `put()`, of an entry that nothing waits for: it is committed with the next that is put, or after `LATEST`.

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
        except Exception as error:  # of any kind: the callbacks must learn of it
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
    """Waits for `work` in any case; a cancellation that comes meanwhile is raised afterwards.

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


# -- What the workers of one run share: the scheduler, the relays and how they do, and what is written down.


LONGEST_NOTICE = 2_000  # characters


class Run:
    """The state that all workers share.  Every change is made in one plain call, so that nothing needs a lock."""

    def __init__(self, plan: Plan) -> None:
        self.telling = Telling(plan.observe, by_one=plan.ready is not None)
        self.plan = plan = replace(plan, observe=self.telling)
        self.clock = plan.clock
        self.life = Lifetime(plan.clock)
        self.journal = Journal(plan.store)
        self.shaper = plan.shaper or make_shaper(plan.mailbox_providers, plan.pace)
        self.throttling = Throttling(self.shaper, clock=plan.clock, rng=plan.rng, show=plan.observe, tell=self.tell)
        self.preparer = Preparer(plan.compose, plan.sign, plan.clock)
        self.breaker = plan.breaker or Breaker(plan.pace.breakers, total=plan.store.eligible)
        self.relays = [
            RelayState(
                outlet,
                pace=plan.pace,
                shaper=self.shaper,
                clock=plan.clock,
                account=Account(
                    outlet.limits,
                    clock=plan.clock,
                    changed=self.life.nudge,
                    failed=lambda error: self.life.end(Ending(error)),
                ),
            )
            for outlet in plan.outlets
        ]
        self.has_several = len(self.relays) > 1
        self.scheduler = Scheduler(plan, self.relays, self.shaper, changed=self.life.nudge, failed=self.store_failed)
        self.unsettled = 0  # jobs in hand whose outcome is in the journal and not durable yet

    def begin(self) -> None:
        """Leaves alone what asked for that in an earlier run, for longer than this one waits."""
        now = self.clock.monotonic()
        for relay in self.relays:
            known = self.shaper.slowdown(relay.name, "", now)
            until = 0.0 if known is None else self.clock.now() + known.until - now
            if known is not None and not self.scheduler.holds.waits_until(until):
                self.leave_out_until(relay, Hold(until, f"{relay.name} says: {known.words}"))

    async def aclose(self) -> None:
        """Writes down what is not written yet.  Raises `OutboxError`."""
        self.preparer.close()
        try:
            await self.journal.aclose()
            await self.plan.store.aclose()
        finally:
            try:
                self.telling.flush()  # which calls programs, and they may raise
            finally:
                for relay in self.relays:
                    await relay.account.settle()

    def store_failed(self, error: BaseException) -> None:
        """Nothing can be read or recorded any more."""
        self.life.end(Ending(as_store_error(error)))

    # -- relays

    def record_success(self, relay: RelayState) -> None:
        """The relay dealt with a message: it accepted or refused it."""
        if relay.is_reported:
            relay.is_reported = False
            self.tell(relay, f"{relay.name} takes mail again")
        relay.health.record_success()
        if relay.is_on_trial:
            relay.is_on_trial = False
            self.life.nudge()

    def throttle(self, decision: ThrottleDecision, event: Reply | Fault, relay: RelayState, provider: str) -> bool:
        """Does what a complaint asks for: slower, fewer sessions, a rest; False when it is no such complaint."""
        if not self.throttling.throttle(decision, event, relay, provider):
            return False
        if decision.verdict.scope is Scope.RELAY:
            self._leave_out_if_long(relay, self.shaper.relay_rest(relay.name, self.clock.monotonic()), event)
        self.life.nudge()
        return True

    def _leave_out_if_long(self, relay: RelayState, rest: float, event: Reply | Fault) -> None:
        if not self.scheduler.holds.waits_until(self.clock.now() + rest):
            self.leave_out_until(relay, Hold(self.clock.now() + rest, f"{relay.name} says: {event}"))

    def record_failure(self, relay: RelayState, event: Reply | Fault, *, asked: float = 0.0) -> None:
        """The relay failed: it is paused for a while, or for the rest of the run when patience has ended.

        `asked` is how many seconds its reply asks for, 0 when it names no time.
        """
        now, health = self.clock.monotonic(), relay.health
        # A session that ends is nothing to speak of while new ones are to be had.
        if self.has_several and not relay.is_reported and (health.is_failing or not health.open):
            relay.is_reported = True
            self.tell(relay, explain_failing(event, relay=relay.name, feedback=self.plan.feedback))
        relay.failure = event
        health.record_failure(now, jitter=self.plan.rng(), asked=asked)
        if asked:
            self._leave_out_if_long(relay, health.resume_at - now, event)
        if not self.gives_up(relay):
            self.tell_wait(relay)
        self.life.nudge()

    def gives_up(self, relay: RelayState) -> bool:
        """Whether patience with a relay that fails has ended; then it gets nothing more."""
        now = self.clock.monotonic()
        # With others there to do its work it may be tried as long as they have any.
        is_needed = self.scheduler.shares.is_needed
        if relay.failure is None or not relay.health.is_hopeless(now) or not is_needed(relay, now):
            return False
        self.leave_out(relay, relay.failure, patience=self.plan.pace.patience)
        return True

    def tell_wait(self, relay: RelayState) -> None:
        """Says until when a failing relay is paused, if no other relay can send meanwhile."""
        now, health = self.clock.monotonic(), relay.health
        wait = health.resume_at - now if health.open else health.wait(now)
        others_are_able = any(other.is_able(now) for other in self.relays if other is not relay)
        if wait > 0 and health.is_failing and not others_are_able:
            why = f"{relay.name} fails, and is tried again then: {relay.failure}"
            self.scheduler.holds.tell(Hold(self.clock.now() + wait, why, is_planned=False))

    def is_dismissal(self, relay: RelayState, messages: int) -> bool:
        """Whether a 421 on a session that had carried `messages` is about that session only."""
        most = relay.health.dismissals.add(self.clock.monotonic(), messages)
        if most and most < relay.messages_per_session:
            relay.messages_per_session = most
            self.tell(relay, f"{relay.name} ends a session after {count(most, 'message')}: it gets no more in one")
        return most is not None

    def leave_out(self, relay: RelayState, event: Reply | Fault, *, patience: float | None = None) -> None:
        """Nothing more goes through `relay`.  The run ends if it was the last, else the others go on."""
        if relay.is_out:
            return
        feedback = self.plan.feedback
        relay.error = explain(event, relay=relay.name, feedback=feedback, patience=patience)
        if all(other.is_out for other in self.relays):
            self.life.end(Ending(relay.error))
            return
        self.tell(relay, explain_left_out(event, relay=relay.name, feedback=feedback, patience=patience))
        self.life.nudge()

    def tell(self, relay: RelayState, text: str) -> None:
        """Gives a notice about `relay` to the observers."""
        self.plan.observe(Notice(printable(text, LONGEST_NOTICE), relay.name))

    def give_up(self, relay: RelayState, event: Reply | Fault) -> None:
        """No relay answers at the first attempt: more likely a name is misspelt than all are busy."""
        self.life.end(Ending(explain(event, relay=relay.name, feedback=self.plan.feedback)))

    def has_no_answer(self) -> bool:
        """Whether no relay has ever been reached, and all that are left have failed."""
        left = [relay for relay in self.relays if not relay.is_out]
        return all(relay.health.is_failing and not relay.health.is_proven for relay in left)

    # -- pauses

    def pause_account(self, relay: RelayState, seconds: float, why: str) -> None:
        """The provider says that a quota of the account is used up: `relay` is paused for `seconds`.

        Later runs observe the pause, too.  Other relays continue; without one the run waits, or ends with all open
        rows still open.
        """
        if not relay.account.pause(seconds, why):
            self.leave_out_until(relay, Hold(self.clock.now() + seconds, why))
        elif self.has_several:
            self.tell(relay, f"{relay.name} is paused for {say_duration(seconds)}: {why}")
        self.life.nudge()

    def leave_out_until(self, relay: RelayState, rest: Hold) -> None:
        """Nothing more goes through `relay` in this run, because of what will be over one day."""
        if relay.is_out:
            return
        relay.error = explain_rest(rest, self.clock.now())
        if all(other.is_out for other in self.relays):
            self.life.end(Ending(relay.error))
        else:
            self.tell(relay, f"{relay.name} is not used any more in this run: {rest.why}")

    async def conclude(self) -> Ending:
        """How it ended.  Rows that no relay was left for are the fault of the one that they were meant for."""
        scheduler = self.scheduler
        if self.life.ending is None:
            if (rest := await scheduler.holds.rest()) is not None:
                return Ending(explain_rest(rest, self.clock.now()))
            for key, relay in scheduler.shares.stranded():
                if await scheduler.queues.left_in(key):
                    return Ending(relay.error)
        return self.life.ending or Ending()


def as_store_error(error: BaseException) -> BulkmailError:
    """What to end a run with when its store fails."""
    if isinstance(error, BulkmailError):
        return error
    if isinstance(error, MemoryError):  # which has no words of its own
        return OutboxError("the outbox failed: there is not enough memory", hint="what was recorded is safe")
    return OutboxError(f"the outbox failed: {error}")
