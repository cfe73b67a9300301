"""One sender: takes jobs one after the other and delivers them over a session of its own."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from bulkmail.engine.attempt import Attempt
from bulkmail.engine.desk import Desk
from bulkmail.engine.grouped_attempt import MOST_COPIES, GroupedAttempt
from bulkmail.engine.outcomes import record_unmade
from bulkmail.engine.relay_state import RelayState
from bulkmail.engine.resting import is_held, wait_for_permit
from bulkmail.engine.run import Run
from bulkmail.engine.worker_session import WorkerSession
from bulkmail.model.errors import TemplateError
from bulkmail.model.feedback import ThrottleDecision
from bulkmail.model.hold import Hold
from bulkmail.model.job import Job
from bulkmail.model.message import Message
from bulkmail.model.outcome import Scope
from bulkmail.model.reply import Fault, Reply
from bulkmail.model.status import Status
from bulkmail.model.timing import IDLE_SESSION_KEPT, OTHER_RELAY_CHECKED_AFTER, WALL_CLOCK_CHECKED_AFTER
from bulkmail.smtp.connection import Transfer
from bulkmail.smtp.envelopes import joined

log = logging.getLogger("bulkmail.engine")

DEFERRED, RESTING = "deferred deliveries", "providers that want to be left alone"
PLANNED = "the next messages are planned for then (send_at)"
DEFERRED_OR_PLANNED = "deferred deliveries and planned messages (send_at)"


class Worker:
    """Works until there is nothing left for it to do.  `enlarge` is called whenever it found a job."""

    def __init__(self, run: Run, relay: RelayState, *, enlarge: Callable[[], None]) -> None:
        self._run = run
        self._relay = relay
        self._enlarge = enlarge
        self._is_counted = True
        self._first: Attempt | None = None  # what the session was opened for
        self._session = WorkerSession(run, relay, enlarge=enlarge)
        self._desk = Desk(run, relay, self._session.use)
        self._most_copies = MOST_COPIES  # forward paths of a transaction

    async def work(self) -> None:
        """Returns when this sender is not needed any more; its session is then closed."""
        try:
            while (job := await self._next_job()) is not None:
                self._enlarge()
                await self._deliver(job)
            self._leave()  # now: while it says goodbye it is no longer there for what comes due
            await self._session.close()
        finally:
            self._desk.clear()
            self._session.drop()
            self._leave()
            self._relay.has_tried(self._session)
            self._run.nudge()

    def _leave(self) -> None:
        if self._is_counted:
            self._is_counted = False
            self._relay.workers -= 1
            self._session.leave()

    # -- jobs

    async def _next_job(self) -> Job | None:
        """The next job, waiting for one if need be; None when this sender is not needed any more."""
        run, relay = self._run, self._relay
        while self._is_wanted():
            if run.plan.ready is not None:
                await run.plan.ready()
            if self._desk.ahead is not None:
                return self._desk.ahead.job
            if self._session.is_worn:
                await self._session.close()
            hold = self._hold()
            if hold == 0 and (job := run.next_job(relay, self._session.use)) is not None:
                return job
            wait = self._wait_for_work()
            if wait is None:
                return None
            relay.idle += hold == 0
            try:
                if self._session.is_open and wait >= IDLE_SESSION_KEPT:
                    await run.pause(IDLE_SESSION_KEPT)
                    if run.ending is None and run.work.in_hand == 0:
                        await self._session.close()
                else:
                    await run.pause(max(wait, hold))
                    if self._session.is_open and run.clock.monotonic() - self._session.used_at >= IDLE_SESSION_KEPT:
                        await self._session.close()  # other relays do the work
            finally:
                relay.idle -= hold == 0
        return None

    def _is_wanted(self) -> bool:
        """Whether this sender may go on to another job."""
        run, relay = self._run, self._relay
        # Who has no session leaves first: a limit that was lowered costs no session that may stay.
        health = relay.health
        is_one_too_many = health.is_crowded if self._session.is_open else relay.workers > health.limit
        return run.ending is None and not relay.is_out and not is_one_too_many

    def _hold(self) -> float:
        """Seconds for which no job is taken, because it would only wait here while other relays could have it."""
        run, relay = self._run, self._relay
        if run.is_alone:
            return 0.0
        now = run.clock.monotonic()
        hold = max(relay.health.resume_at - now, relay.turnstile.wait - OTHER_RELAY_CHECKED_AFTER)
        if hold <= 0 and not self._session.is_open and not relay.health.may_open(now):
            return OTHER_RELAY_CHECKED_AFTER
        if relay.is_on_trial and relay.trying not in (None, self._session):
            return OTHER_RELAY_CHECKED_AFTER
        return max(0.0, hold)

    def _wait_for_work(self) -> float | None:
        """Seconds until there may be a job, or None when there will be none for this sender."""
        run = self._run
        if run.work.is_used_up:
            return None
        if is_held(self._relay):
            return wait_for_permit(run, self._relay)
        held, rests = run.held_for(self._relay)
        if run.work.in_hand:
            return min(
                IDLE_SESSION_KEPT, held
            )  # one of those may be deferred and come back; the settling of each wakes us
        if held <= OTHER_RELAY_CHECKED_AFTER:
            return held
        if self._relay.workers > 1:
            return None  # one is enough to watch
        now = run.clock.now()
        due = run.work.next_due(now, among=None if run.is_alone else run.serves(self._relay))
        due_in = math.inf if due is None else max(0.0, due - now)
        wait = min(held, due_in)
        its_turn_comes = held <= due_in and not rests  # at its lane's rate, which is waited for as others are
        if math.isinf(wait) or not (its_turn_comes or run.waits_until(now + wait)):
            return None
        if its_turn_comes:
            return wait
        if run.has_plan:  # looked at again and again: the clock on the wall may be set, the machine asleep
            due_is = DEFERRED_OR_PLANNED if run.plan.outbox.tally().with_copies(Status.DEFERRED) else PLANNED
            run.tell_waiting(Hold(now + wait, due_is if due_in <= held else RESTING))
            return min(wait, WALL_CLOCK_CHECKED_AFTER)
        run.plan.observe(Hold(now + wait, DEFERRED if due_in <= held else RESTING))
        return wait

    async def _deliver(self, job: Job) -> None:
        """Does for `job` what can be done now, and for others while the session is at it; or it goes back."""
        run = self._run
        ahead = self._desk.take() or self._desk.make(job)
        if ahead is None:
            return
        try:
            first = self._attempt(ahead.job, await ahead.message(), first_at=ahead.first_at)
            line = await self._session.ready(job)
            if line is not None and not (await self._relay.permission.granted() and await self._passes(job)):
                line = None
        except BaseException:
            run.take_back(job, self._relay)
            raise
        if line is None or run.ending is not None or self._relay.is_out:
            self._give_back(job)
            return
        first.slot = self._relay.turnstile.slot
        self._first = first
        if line.usable:  # else it was closed while it waited for its turn
            try:
                with self._relay.awaiting():
                    await line.carry(self._permitted)
            except BaseException:
                self._first_goes_back()
                raise
        self._first_goes_back()
        self._relay.has_tried(self._session)
        self._session.rests(line)

    def _first_goes_back(self) -> None:
        """What the session was opened for has not begun: another session may have it at once, and its slot."""
        if self._first is not None:
            first, self._first = self._first, None
            self._relay.turnstile.give_back(first.slot)
            self._give_back(first.job)

    async def _passes(self, job: Job) -> bool:
        """Whether the message may go now, after it has waited for its turn."""
        turnstile = self._relay.turnstile
        if self._run.is_to_yield(job, self._relay):
            return await turnstile.passes(self._run.lane_of(job), within=IDLE_SESSION_KEPT)
        return await turnstile.passes(self._run.lane_of(job))

    def _give_back(self, job: Job) -> None:
        self._relay.has_tried(self._session)
        self._run.take_back(job, self._relay)
        if self._run.has_several:
            self._run.nudge()  # another relay may be waiting for work

    def _attempt(self, job: Job, message: Message, *, first_at: float) -> Attempt:
        lane = self._run.lane_of(job)
        return Attempt(self._run, self._relay, self._session, job, message, lane, first_at, conclude=self._conclude)

    def _permitted(self) -> Transfer | None:
        """As `_more()`, as long as hours and quotas let another message begin."""
        permission = self._relay.permission
        if self._run.is_plain and permission.is_free and self._run.shaper.is_free and self._first is None:
            return self._plain()
        if not permission.take():
            return None
        transfer = self._more()
        if transfer is None:
            permission.put_back()
        return transfer

    def _more(self) -> Transfer | None:
        """What the session may begin this instant: the message that it was opened for, then whatever may go at once.

        Called at the moment that the next envelope is written, so that the rate's slot is taken then and not before.
        """
        run, relay = self._run, self._relay
        if self._first is not None:
            first, self._first = self._first, None
            first.begins()
            return self._with_copies(first)
        while self._may_go_on() and relay.turnstile.wait == 0:
            signed = self._desk.next()
            if signed is None:
                return None
            job = signed.job
            if relay.turnstile.passes_at_once(run.lane_of(job)):
                self._enlarge()
                attempt = self._attempt(job, signed.now(), first_at=signed.first_at)
                attempt.slot = relay.turnstile.slot
                return self._with_copies(attempt)
            self._give_back(job)
            return None
        return None

    def _plain(self) -> Transfer | None:
        """As `_more()`, where a message has to wait for nothing but its session, and goes alone."""
        run, relay = self._run, self._relay
        while self._may_go_on():
            now = run.clock.now()
            job = run.work.next_plain(now)
            if job is None:
                return None
            relay.in_hand += 1
            relay.moved_at = run.clock.monotonic()
            if relay.workers < relay.most_connections:
                self._enlarge()
            delivery = job.delivery
            first_at = delivery.first_at or now
            try:
                message = run.plan.compose(job, first_at)
            except TemplateError as error:
                record_unmade(run, job, relay, error)
                continue
            lane = run.lane_of_path(delivery.forward_path)
            relay.occupancy.uncounted[delivery.id] = lane, self._session.use
            return Attempt(run, relay, self._session, job, message, lane, first_at, conclude=self._conclude)
        return None

    def _with_copies(self, first: Attempt) -> Transfer:
        """`first` and, in the same transaction, the copies of its message that may go this instant.

        Each takes a slot of the rate: those who set limits count forward paths.
        """
        run, refused = self._run, None
        self._relay.permission.began(first.job.delivery.id)
        attempts, message = [first], first.message
        while len(attempts) < self._most_copies and (job := self._next_copy(first.job)) is not None:
            signed = self._desk.make_now(job)
            if signed is None:
                continue
            attempt = self._attempt(job, signed.now(), first_at=signed.first_at)
            both = joined(message, attempt.message)
            if both is None or not self._relay.turnstile.passes_at_once(run.lane_of(job)):
                if attempt.message.envelope.reverse_path != message.envelope.reverse_path:
                    self._most_copies = 1  # each copy has a reverse path of its own, and so have those of other rows
                refused = job
                break
            attempts.append(attempt)
            message = both
        run.work.release_copies(first.job)
        if refused is not None:
            run.take_back(refused, self._relay)
        return first if len(attempts) == 1 else GroupedAttempt(message, attempts, too_many=self._takes_at_most)

    def _next_copy(self, job: Job) -> Job | None:
        return self._run.next_copy(job, self._relay, self._session.use)

    def _takes_at_most(self, paths: int) -> None:
        self._most_copies = min(self._most_copies, paths)

    def _may_go_on(self) -> bool:
        """Whether this sender may begin another message on the session it has."""
        run, relay, session = self._run, self._relay, self._session
        if run.ending is not None or relay.error is not None or relay.is_on_trial or run.plan.ready is not None:
            return False
        if session.line is None or session.is_spent:
            return False
        now, health = run.clock.monotonic(), relay.health
        return health.resume_at <= now and not health.is_crowded and not session.is_worn_at(now)

    def _conclude(self, lane: str, decision: ThrottleDecision, event: Reply | Fault) -> None:
        """What the verdict on a message means for its lane, the relay and the campaign."""
        run, relay, verdict = self._run, self._relay, decision.verdict
        if isinstance(event, Reply) and verdict.scope in (Scope.RECIPIENT, Scope.MESSAGE, Scope.PROVIDER):
            self._session.carries()
        if pause := decision.pause_at(run.clock.now()):
            run.pause_account(relay, pause, f"{relay.name} says: {event}")
        elif verdict.stops:
            run.leave_out(relay, event)
        elif verdict.strikes:
            pass  # counted where its outcome was put down
        elif run.throttle(decision, event, relay, lane):
            run.record_success(relay)  # it works, and says how it wants to be treated
        elif verdict.scope in (Scope.RECIPIENT, Scope.MESSAGE):
            run.record_success(relay)
        elif not verdict.drops:
            relay.is_on_trial = relay.is_on_trial or verdict.probes
            run.record_failure(relay, event, asked=decision.asked)
        elif not self._session.is_spent:  # else it follows from what ended the session
            relay.is_on_trial = relay.is_on_trial or verdict.probes
            self._session.fails(event, verdict.scope, asked=decision.asked)
        self._session.is_spent = self._session.is_spent or verdict.drops
