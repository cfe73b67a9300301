"""One sender: takes jobs one after the other and delivers them over a session of its own."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial

import anyio

from bulkmail.engine.channel import IDLE, Channel
from bulkmail.engine.desk import Desk
from bulkmail.engine.occupancy import Use
from bulkmail.engine.ports import Line, Sessions, Waiting
from bulkmail.engine.resting import is_held, wait_for_permit
from bulkmail.engine.run import HELD, Run
from bulkmail.engine.together import MOST_COPIES, Together
from bulkmail.engine.trip import Trip
from bulkmail.model.feedback import Heeding
from bulkmail.model.message import Message
from bulkmail.model.reply import Breakage, Fault, Reply
from bulkmail.model.verdict import Outcome, Scope
from bulkmail.outbox.outbox import Job
from bulkmail.smtp.envelopes import joined
from bulkmail.smtp.line import Transfer
from bulkmail.smtp.session import SessionRefused

log = logging.getLogger("bulkmail.engine")

# A relay where nothing answers at the very first try is more likely misspelt than busy.
_HOPELESS_AT_FIRST = {Breakage.REFUSED, Breakage.NO_SUCH_HOST, Breakage.UNREACHABLE}


class Sender:
    """Works until there is nothing left for it to do.  `enlarge` is called whenever it found a job."""

    def __init__(self, run: Run, channel: Channel, *, enlarge: Callable[[], None]) -> None:
        self._run = run
        self._channel = channel
        self._enlarge = enlarge
        self._is_counted = True
        self._line: Line | None = None
        self._first: Trip | None = None  # what the session was opened for
        self._opened_at = 0.0
        self._used_at = 0.0
        self._has_worked = False  # the session, with some message
        self._is_spent = False  # the session is not to be used again
        self._use = Use()
        self._desk = Desk(run, channel, self._use)
        self._most_copies = MOST_COPIES  # forward paths of a transaction

    async def work(self) -> None:
        """Returns when this sender is not needed any more; its session is then closed."""
        try:
            while (job := await self._next_job()) is not None:
                self._enlarge()
                await self._deliver(job)
            self._leave()  # now: while it says goodbye it is no longer there for what comes due
            await self._close()
        finally:
            self._desk.clear()
            self._drop()
            self._leave()
            self._channel.has_tried(self)
            self._run.nudge()

    def _leave(self) -> None:
        if self._is_counted:
            self._is_counted = False
            self._channel.senders -= 1

    # -- jobs

    async def _next_job(self) -> Job | None:
        """The next job, waiting for one if need be; None when this sender is not needed any more."""
        run, channel = self._run, self._channel
        while self._is_wanted():
            if run.plan.ready is not None:
                await run.plan.ready()
            if self._desk.ahead is not None:
                return self._desk.ahead.job
            if self._line is not None and self._is_worn(self._line):
                await self._close()
            hold = self._hold()
            if hold == 0 and (job := run.next_job(channel, self._use)) is not None:
                return job
            wait = self._wait_for_work()
            if wait is None:
                return None
            channel.idle += hold == 0
            try:
                if self._line is not None and wait >= IDLE:
                    await run.pause(IDLE)
                    if run.ending is None and run.work.in_hand == 0:
                        await self._close()
                else:
                    await run.pause(max(wait, hold))
                    if self._line is not None and run.clock.monotonic() - self._used_at >= IDLE:
                        await self._close()  # other relays do the work
            finally:
                channel.idle -= hold == 0
        return None

    def _is_wanted(self) -> bool:
        """Whether this sender may go on to another job."""
        run, channel = self._run, self._channel
        return run.ending is None and not channel.is_out and channel.senders <= channel.health.limit

    def _hold(self) -> float:
        """Seconds for which no job is taken, because it would only wait here while other relays could have it."""
        run, channel = self._run, self._channel
        if run.is_alone:
            return 0.0
        now = run.clock.monotonic()
        hold = max(channel.health.resume_at - now, channel.turnstile.wait - HELD)
        if hold <= 0 and self._line is None and not channel.health.may_open(now):
            return HELD
        if channel.is_on_trial and channel.trying not in (None, self):
            return HELD
        return max(0.0, hold)

    def _wait_for_work(self) -> float | None:
        """Seconds until there may be a job, or None when there will be none for this sender."""
        run = self._run
        if run.work.is_used_up:
            return None
        if is_held(self._channel):
            return wait_for_permit(run, self._channel)
        held, rests = run.held_for(self._channel)
        if run.work.in_hand:
            return min(IDLE, held)  # one of those may be deferred and come back; the settling of each wakes us
        if held <= HELD:
            return held
        if self._channel.senders > 1:
            return None  # one is enough to watch
        now = run.clock.now()
        due = run.work.next_due(now, among=None if run.is_alone else run.serves(self._channel))
        due_in = math.inf if due is None else max(0.0, due - now)
        wait = min(held, due_in)
        its_turn_comes = held <= due_in and not rests  # at its lane's rate, which is waited for as others are
        if math.isinf(wait) or (wait > run.plan.pace.wait and not its_turn_comes):
            return None
        if not its_turn_comes:
            why = "deferred deliveries" if due_in <= held else "providers that want to be left alone"
            run.plan.observe(Waiting(now + wait, why))
        return wait

    async def _deliver(self, job: Job) -> None:
        """Does for `job` what can be done now, and for others while the session is at it; or it goes back."""
        run = self._run
        ahead = self._desk.take() or self._desk.make(job)
        if ahead is None:
            return
        try:
            first = self._trip(ahead.job, await ahead.message(), first_at=ahead.first_at)
            line = await self._ready_line(job)
            if line is not None and not (await self._channel.permission.granted() and await self._passes(job)):
                line = None
        except BaseException:
            run.take_back(job, self._channel)
            raise
        if line is None or run.ending is not None or self._channel.is_out:
            self._give_back(job)
            return
        self._first = first
        try:
            await line.carry(self._permitted)
        finally:
            if self._first is not None:  # the session was over before it could begin
                self._first = None
                self._give_back(job)
            self._channel.has_tried(self)
        self._used_at = run.clock.monotonic()
        if self._is_spent or not line.usable:
            self._drop()

    async def _passes(self, job: Job) -> bool:
        """Whether the message may go now, after it has waited for its turn."""
        turnstile = self._channel.turnstile
        if self._run.is_to_yield(job, self._channel):
            return await turnstile.passes(self._run.lane_of(job), within=IDLE)
        return await turnstile.passes(self._run.lane_of(job))

    def _give_back(self, job: Job) -> None:
        self._channel.has_tried(self)
        self._run.take_back(job, self._channel)
        if self._run.has_several:
            self._run.nudge()  # another relay may be waiting for work

    def _trip(self, job: Job, message: Message, *, first_at: float) -> Trip:
        return Trip(
            self._run,
            self._channel,
            job,
            message,
            first_at=first_at,
            has_worked=lambda: self._has_worked,
            heed=partial(self._heed, self._run.lane_of(job)),
        )

    def _permitted(self) -> Transfer | None:
        """As `_more()`, as long as hours and quotas let another message begin."""
        permission = self._channel.permission
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
        run, channel = self._run, self._channel
        if self._first is not None:
            first, self._first = self._first, None
            first.begins()
            return self._with_copies(first)
        while self._may_go_on() and channel.turnstile.wait == 0:
            signed = self._desk.next()
            if signed is None:
                return None
            job = signed.job
            if channel.turnstile.passes_at_once(run.lane_of(job)):
                self._enlarge()
                return self._with_copies(self._trip(job, signed.now(), first_at=signed.first_at))
            self._give_back(job)
            return None
        return None

    def _with_copies(self, first: Trip) -> Transfer:
        """`first` and, in the same transaction, the copies of its letter that may go this instant.

        Each takes a slot of the rate: those who set limits count forward paths.
        """
        run, refused = self._run, None
        self._channel.permission.began(first.job.delivery.id)
        trips, message = [first], first.message
        while len(trips) < self._most_copies and (job := self._next_copy(first.job)) is not None:
            signed = self._desk.make_now(job)
            if signed is None:
                continue
            trip = self._trip(job, signed.now(), first_at=signed.first_at)
            both = joined(message, trip.message)
            if both is None or not self._channel.turnstile.passes_at_once(run.lane_of(job)):
                if trip.message.envelope.reverse_path != message.envelope.reverse_path:
                    self._most_copies = 1  # each copy has a reverse path of its own, and so have those of other rows
                refused = job
                break
            trips.append(trip)
            message = both
        run.work.release_copies(first.job)
        if refused is not None:
            run.take_back(refused, self._channel)
        return first if len(trips) == 1 else Together(message, trips, too_many=self._takes_at_most)

    def _next_copy(self, job: Job) -> Job | None:
        return self._run.next_copy(job, self._channel, self._use)

    def _takes_at_most(self, paths: int) -> None:
        self._most_copies = min(self._most_copies, paths)

    def _may_go_on(self) -> bool:
        """Whether this sender may begin another message on the session it has."""
        run, line = self._run, self._line
        return (
            line is not None
            and run.plan.ready is None
            and self._is_wanted()
            and self._channel.health.resume_at <= run.clock.monotonic()
            and not self._is_spent
            and not self._channel.is_on_trial
            and not self._is_worn(line)
        )

    def _heed(self, lane: str, heeding: Heeding, event: Reply | Fault) -> None:
        """What the verdict on a message means for its lane, the relay and the campaign."""
        run, channel, verdict = self._run, self._channel, heeding.verdict
        was_of_use, self._has_worked = self._has_worked, self._has_worked or isinstance(event, Reply)
        if verdict.outcome is Outcome.ACCEPTED:
            run.complaints.accepted(channel, lane)
            run.fine(channel)
        elif pause := heeding.pause_at(run.clock.now()):
            run.pause_account(channel, pause, f"{channel.name} says: {event}")
        elif verdict.stops:
            run.leave_out(channel, event)
        elif verdict.strikes:
            pass  # counted where its outcome was put down
        elif run.heed(heeding, event, channel, lane):
            run.fine(channel)  # it works, and says how it wants to be treated
        elif verdict.scope in (Scope.RECIPIENT, Scope.MESSAGE):
            run.fine(channel)
        elif verdict.scope is not Scope.SESSION or not was_of_use:  # else it did its work; a new one takes its place
            channel.is_on_trial = channel.is_on_trial or verdict.probes
            run.trouble(channel, event, asked=heeding.asked)
        self._is_spent = self._is_spent or verdict.drops

    # -- the session

    async def _ready_line(self, job: Job) -> Line | None:
        """An open session whose turn is near; None when this sender is not to have one, or another relay has."""
        run, channel = self._run, self._channel
        if self._line is not None and (not self._line.usable or self._is_worn(self._line)):
            await self._close()
        while run.ending is None and not channel.is_out:
            now = run.clock.monotonic()
            hold = max(channel.health.resume_at - now, channel.turnstile.wait - IDLE)
            if hold > IDLE and self._line is not None:
                await self._close()
            is_open = hold <= 0 and self._line is not None
            if is_open and channel.may_try(self):
                return self._line
            if hold <= 0 and channel.senders > channel.health.limit:
                return None
            if not is_open and hold <= 0 and channel.health.may_open(now):
                await self._open()
            elif run.is_to_yield(job, channel):
                return None
            else:
                await run.pause(hold if hold > 0 else IDLE)
        return None

    async def _open(self) -> None:
        """Opens a session, or heeds why that failed."""
        run, channel = self._run, self._channel
        channel.health.opening += 1
        try:
            self._line = await channel.connect()
        except SessionRefused as refusal:
            self._refused(refusal.event)
            return
        finally:
            channel.health.opening -= 1
            run.nudge()
        self._opened_at = self._used_at = run.clock.monotonic()
        self._has_worked = self._is_spent = False
        channel.health.open += 1
        channel.health.is_proven = True
        if run.is_alone:  # else it has to deal with a letter first, or one that hangs would hold many
            self._enlarge()
        run.plan.observe(Sessions(channel.health.open, channel.name))

    def _refused(self, event: Reply | Fault) -> None:
        run, channel = self._run, self._channel
        log.info("session refused", extra={"stage": event.stage.value, "why": str(event)})
        heeding = run.plan.feedback.heed(event)
        misspelt = isinstance(event, Fault) and event.kind in _HOPELESS_AT_FIRST and not channel.health.is_proven
        if pause := heeding.pause_at(run.clock.now()):
            run.pause_account(channel, pause, f"{channel.name} says: {event}")
        elif heeding.verdict.stops or (misspelt and not run.has_several):
            run.leave_out(channel, event)
        elif channel.health.open and run.heed(heeding, event, channel, ""):
            pass  # it serves the others: it has just enough of us
        elif isinstance(event, Reply) and channel.health.open:
            run.complaints.refused(event, channel)
        elif isinstance(event, Fault) and event.kind is Breakage.EXHAUSTED and channel.health.open:
            run.complaints.ran_out(event, channel)
        else:
            run.trouble(channel, event, asked=heeding.asked)
            if misspelt and run.nobody_answers():
                run.give_up(channel, event)

    def _is_worn(self, line: Line) -> bool:
        age = self._run.clock.monotonic() - self._opened_at
        is_old = line.transactions >= self._channel.messages_per_session or age >= self._channel.session_age
        return is_old or self._use.full > 0

    async def _close(self) -> None:
        """Says goodbye if the session still listens."""
        line = self._line
        if line is not None and line.usable:
            with anyio.CancelScope(shield=True):  # a few seconds at most, by the line's own clock
                await line.quit()
        self._drop()

    def _drop(self) -> None:
        if self._line is not None:
            self._line.abort()
            self._line = None
            self._use.renew()
            self._channel.health.open -= 1
            self._run.plan.observe(Sessions(self._channel.health.open, self._channel.name))
