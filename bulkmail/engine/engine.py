"""A run from its first session to its last: workers that carry one message after the other, and how many there are."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskGroup
from msgspec.structs import replace

from bulkmail.engine.attempt import MOST_COPIES, Attempt, GroupedAttempt, record_unmade
from bulkmail.engine.contracts import Ending, Plan
from bulkmail.engine.relay_state import RelayState
from bulkmail.engine.run import Prepared, Run
from bulkmail.engine.scheduler import Booking
from bulkmail.engine.worker_session import WorkerSession
from bulkmail.model.errors import TemplateError
from bulkmail.model.outcome import Fault, Reply, Scope
from bulkmail.model.quantities import say_duration
from bulkmail.model.shaper import ThrottleDecision
from bulkmail.model.timing import IDLE_SESSION_KEPT, OTHER_RELAY_CHECKED_AFTER, SHORT_WAIT, SILENCE_NOTED_AFTER, Hold
from bulkmail.smtp.transaction import Transfer, joined

# -- One worker: has one message after the other carried over a session of its own.


class Worker:
    """Works until there is nothing left for it to do.  `enlarge` is called whenever it found a message.

    `_ahead` is what goes next, set apart and prepared: what the session is opened for, and, where signing takes long,
    what is signed while the session is busy with the message before.
    """

    def __init__(self, run: Run, relay: RelayState, *, enlarge: Callable[[], None]) -> None:
        self._run = run
        self._relay = relay
        self._scheduler = run.scheduler
        self._enlarge = enlarge
        self._is_counted = True
        self._ahead: Prepared | None = None
        self._session = WorkerSession(run, relay, enlarge=enlarge)
        self._is_slow = run.preparer.is_slow
        self._has_copies = run.plan.store.has_copies
        self._most_copies = MOST_COPIES  # forward paths of a transaction

    async def work(self) -> None:
        """Returns when this worker is not needed any more; its session is then closed."""
        try:
            while await self._find():
                self._enlarge()
                await self._deliver()
            self._leave()  # now: while it sends QUIT it takes nothing that comes due
            await self._session.close()
        finally:
            self._give_back_ahead()
            self._session.drop()
            self._leave()
            self._relay.has_tried(self._session)
            self._run.life.nudge()

    def _leave(self) -> None:
        if self._is_counted:
            self._is_counted = False
            self._relay.workers -= 1
            self._session.leave()

    # -- finding something to do

    async def _find(self) -> bool:
        """Has a message prepared, waiting for one if need be; False when this worker is not needed any more."""
        run, relay, session = self._run, self._relay, self._session
        while self._is_wanted():
            if run.plan.ready is not None:
                await run.plan.ready()
            if self._ahead is not None:
                return True
            if session.is_worn:
                await session.close()
            yields_for = self._yields_for()
            if yields_for == 0 and self._reserve():
                return True
            wait = self._scheduler.holds.hold(relay).until - run.clock.now()
            if wait == math.inf:
                return False
            relay.idle += yields_for == 0
            try:
                if session.is_open and wait >= IDLE_SESSION_KEPT:
                    await run.life.pause(IDLE_SESSION_KEPT)
                    if run.life.ending is None and run.scheduler.queues.in_hand == 0:
                        await session.close()
                else:
                    await run.life.pause(max(wait, yields_for))
                    if session.is_open and run.clock.monotonic() - session.used_at >= IDLE_SESSION_KEPT:
                        await session.close()  # other relays do the work
            finally:
                relay.idle -= yields_for == 0
        return False

    def _is_wanted(self) -> bool:
        """Whether this worker may go on to another message."""
        relay = self._relay
        # Who has no session leaves first: a limit that was lowered costs no session that may stay.
        health = relay.health
        is_one_too_many = health.is_crowded if self._session.is_open else relay.workers > health.limit
        return self._run.life.ending is None and not relay.is_out and not is_one_too_many

    def _yields_for(self) -> float:
        """Seconds for which it takes no message, which would only wait here while other relays could have it."""
        run, relay = self._run, self._relay
        if self._scheduler.is_alone:
            return 0.0
        now = run.clock.monotonic()
        wait = max(relay.health.resume_at - now, relay.rate_wait(now) - OTHER_RELAY_CHECKED_AFTER)
        if wait <= 0 and not self._session.is_open and not relay.health.may_open(now):
            return OTHER_RELAY_CHECKED_AFTER
        if relay.is_on_trial and relay.trying not in (None, self._session):
            return OTHER_RELAY_CHECKED_AFTER
        return max(0.0, wait)

    def _reserve(self) -> bool:
        """Sets a message apart and begins to prepare it; whether there was one."""
        while (booking := self._scheduler.reserve(self._session.use)) is not None:
            self._ahead = self._prepare(booking)
            if self._ahead is not None:
                return True
        return False

    def _prepare(self, booking: Booking, *, at_once: bool = False) -> Prepared | None:
        """The message of what is booked; None when it cannot be made, which is its outcome."""
        try:
            return self._run.preparer.prepare(booking, at_once=at_once)
        except TemplateError as error:
            record_unmade(self._run, booking, error)
            return None

    def _give_back_ahead(self) -> None:
        """It goes by another session, which may have it at once."""
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            self._relay.has_tried(self._session)
            self._scheduler.give_back(ahead.booking)
            if self._run.has_several:
                self._run.life.nudge()

    # -- sending

    async def _deliver(self) -> None:
        """Sends what is prepared, and others as long as the session may go on; or gives it back."""
        run, relay, session, ahead = self._run, self._relay, self._session, self._ahead
        if ahead is None:
            return
        try:
            await ahead.message()
            line = await session.ready(ahead.booking)
            if line is not None and not (await relay.account.granted() and await self._turn_comes(ahead.booking)):
                line = None
        except BaseException:
            self._give_back_ahead()
            raise
        if line is None or run.life.ending is not None or relay.is_out:
            self._give_back_ahead()
            return
        if line.usable:  # else it was closed while it waited for its turn
            try:
                with relay.silence.awaiting():
                    await line.carry(self._next)
            except BaseException:
                self._give_back_ahead()
                raise
        if not self._is_slow or ahead is self._ahead:
            self._give_back_ahead()
        relay.has_tried(session)
        session.rests(line)

    async def _turn_comes(self, booking: Booking) -> bool:
        """Waits until the rates let the message go; then it is its turn until the next await.

        False: nothing is to go any more, because the run ended; or another relay may have it sooner.
        """
        run, relay = self._run, self._relay
        within = IDLE_SESSION_KEPT if self._scheduler.is_to_yield(booking) else math.inf
        async with relay.turn:
            while (wait := relay.rate_wait(run.clock.monotonic())) > 0:
                if wait > within:
                    return False
                if wait < SHORT_WAIT:
                    await run.clock.sleep(wait)
                elif not await run.life.pause(wait):
                    return False
            booking.is_next = True
            return True

    def _next(self) -> Transfer | None:
        """What the session may begin this instant: called at the moment that the next envelope is written."""
        run, relay, session = self._run, self._relay, self._session
        while True:
            ahead = self._ahead
            if (ahead is None or not ahead.booking.is_next) and not self._may_go_on():
                return None
            if ahead is None and self._is_slow:
                if not self._reserve():
                    return None
                ahead = self._ahead
            if ahead is not None and not ahead.is_ready:
                return None
            found = self._scheduler.take(session.use, None if ahead is None else ahead.booking)
            if found.__class__ is Hold:
                return None
            booking: Booking = found  # type: ignore[assignment]
            if (
                not booking.is_next and relay.workers < relay.most_connections
            ):  # otherwise that was done when it was reserved
                self._enlarge()
            if ahead is not None:
                self._ahead = None
                if self._is_slow and self._may_go_on():
                    self._reserve()
                message, first_at = ahead.now(), ahead.first_at
            else:
                first_at = booking.job.delivery.first_at or run.clock.now()
                try:
                    message = run.plan.compose(booking.job, first_at)
                except TemplateError as error:
                    record_unmade(run, booking, error)
                    continue
            session.under_way += 1
            attempt = Attempt(
                message,
                run=run,
                session=session,
                booking=booking,
                conclude=self._conclude,
                first_at=first_at,
                at=run.clock.now(),
                began=run.clock.monotonic(),
            )
            return self._with_copies(attempt) if self._has_copies else attempt

    def _may_go_on(self) -> bool:
        """Whether this worker may begin another message on the session it has."""
        run, relay, session = self._run, self._relay, self._session
        if run.life.ending is not None or relay.error is not None or relay.is_on_trial or run.plan.ready is not None:
            return False
        if session.line is None or session.is_spent:
            return False
        now, health = run.clock.monotonic(), relay.health
        if health.resume_at > now or (run.shaper.has_fewer_connections and health.is_crowded):
            return False
        return not session.is_worn_at(now)

    def _with_copies(self, first: Attempt) -> Transfer:
        """`first` and, in the same transaction, the copies of its message that may go this instant."""
        scheduler, refused = self._scheduler, None
        attempts, message = [first], first.message
        while len(attempts) < self._most_copies and (booking := scheduler.take_copy(first.booking)) is not None:
            prepared = self._prepare(booking, at_once=True)
            if prepared is None:
                continue
            copy = prepared.now()
            both = joined(message, copy)
            if both is None:
                if copy.envelope.reverse_path != message.envelope.reverse_path:
                    self._most_copies = 1  # each copy has a reverse path of its own, and so have those of other rows
                refused = booking
                break
            self._session.under_way += 1
            attempts.append(replace(first, message=copy, booking=booking, first_at=prepared.first_at, own={}))
            message = both
        scheduler.queues.release_copies(first.booking.job)
        if refused is not None:
            scheduler.give_back(refused)
        return first if len(attempts) == 1 else GroupedAttempt(message, attempts=attempts, too_many=self._takes_at_most)

    def _takes_at_most(self, paths: int) -> None:
        self._most_copies = min(self._most_copies, paths)

    def _conclude(self, provider: str, decision: ThrottleDecision, event: Reply | Fault) -> None:
        """What the verdict on a message means for its provider, the relay and the campaign."""
        run, relay, session, verdict = self._run, self._relay, self._session, decision.verdict
        if isinstance(event, Reply) and verdict.scope in (Scope.RECIPIENT, Scope.MESSAGE, Scope.PROVIDER):
            session.carries()
        if pause := decision.pause_at(run.clock.now()):
            run.pause_account(relay, pause, f"{relay.name} says: {event}")
        elif verdict.stops:
            run.leave_out(relay, event)
        elif verdict.strikes:
            pass  # counted where its outcome is recorded
        elif run.throttle(decision, event, relay, provider):
            run.record_success(relay)  # it works, and says how it wants to be treated
        elif verdict.scope in (Scope.RECIPIENT, Scope.MESSAGE):
            run.record_success(relay)
        elif not verdict.drops:
            relay.is_on_trial = relay.is_on_trial or verdict.probes
            run.record_failure(relay, event, asked=decision.asked)
        elif not session.is_spent:  # else it follows from what ended the session
            relay.is_on_trial = relay.is_on_trial or verdict.probes
            session.fails(event, decision)
        session.is_spent = session.is_spent or verdict.drops


# -- A run from its first session to its last: for each relay a bounded set of workers that grows as far as it accepts.


Task = Callable[[], Awaitable[object]]


class Starter:
    """Starts work in a task group from plain calls, also from those of a transport, which are made in no task.

    There a task group may not be asked: where sniffio is installed, anyio asks it which library is running, and sniffio
    knows only by the current task.
    """

    def __init__(self, group: TaskGroup) -> None:
        self._group = group
        self._waiting: deque[Task] = deque()
        self._open = 0  # waiting or running
        self._changed = anyio.Event()

    def start(self, work: Task) -> None:
        """`work()` begins soon, if the group is not cancelled before."""
        self._open += 1
        self._waiting.append(work)
        self._changed.set()

    async def until_done(self) -> None:
        """Starts what it is asked to, until all of it has ended."""
        while self._open:
            await self._changed.wait()
            self._changed = anyio.Event()
            while self._waiting:
                self._group.start_soon(self._see_through, self._waiting.popleft())

    async def _see_through(self, work: Task) -> None:
        try:
            await work()
        finally:
            self._open -= 1
            self._changed.set()


class Engine:
    """Delivers what is open in the store of `plan`; every outcome is durable before it is reported.

    `stop()` lets the transactions under way finish and begins no others.  Cancelling the task in `run()` aborts them;
    recipients whose message was sent to its end without a reply are in doubt then.
    """

    def __init__(self, plan: Plan) -> None:
        self._run = Run(plan)

    def stop(self) -> None:
        """Begin nothing more.  May be called at any time, from the loop's own thread."""
        self._run.life.end(Ending(was_stopped=True))

    async def run(self) -> Ending:
        """Works until nothing is left that may go within the pace's `wait`, or until it is stopped.

        Raises `OutboxError` if what is known at the end cannot be made durable.
        """
        self._run.begin()
        try:
            async with anyio.create_task_group() as group:
                starter = Starter(group)
                for relay in self._run.relays:
                    relay.account.use(starter.start)
                    self._enlarge(relay, starter)
                group.start_soon(self._watch)
                await starter.until_done()
                group.cancel_scope.cancel()
        finally:
            await self._run.aclose()
        return await self._run.conclude()

    async def _watch(self) -> None:
        """Says which relays do not answer although it is their turn: after 10 s, then once a minute."""
        run = self._run
        while True:
            await run.clock.sleep(SILENCE_NOTED_AFTER / 2)
            for relay in run.relays:
                if silence := relay.silence.to_tell(run.clock.monotonic(), moved_at=relay.moved_at):
                    run.tell(relay, f"{relay.name} has not answered for {say_duration(silence)}; waiting for it")

    def _enlarge(self, relay: RelayState, starter: Starter) -> None:
        """One more sender, if there may be one more: called for the first, and whenever a job was found."""
        run, health = self._run, relay.health
        if run.life.ending is None and not relay.is_out and relay.workers < (health.limit if health.is_proven else 1):
            relay.workers += 1
            starter.start(Worker(run, relay, enlarge=lambda: self._enlarge(relay, starter)).work)
