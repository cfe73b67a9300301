"""One sender: takes jobs one after the other and delivers them over a session of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio

from bulkmail.engine.explain import explain
from bulkmail.engine.ports import Done, Ending, Line, Sessions, Settled, Waiting
from bulkmail.engine.run import IDLE, Run
from bulkmail.model.delivery import Attempt, Delivery, settle
from bulkmail.model.errors import OutboxError, TemplateError
from bulkmail.model.message import Message
from bulkmail.model.reply import Breakage, Fault, Reply, Stage
from bulkmail.model.verdict import Scope, Verdict, judge
from bulkmail.outbox.outbox import Job, Mark, Release, Settlement
from bulkmail.smtp.session import SessionRefused

log = logging.getLogger("bulkmail.engine")

# A relay where nothing answers at the very first try is more likely misspelt than busy.
_HOPELESS_AT_FIRST = {Breakage.REFUSED, Breakage.NO_SUCH_HOST, Breakage.UNREACHABLE}


class Sender:
    """Works until there is nothing left for it to do.  `enlarge` is called whenever it found a job."""

    def __init__(self, run: Run, *, enlarge: Callable[[], None]) -> None:
        self._run = run
        self._enlarge = enlarge
        self._is_counted = True
        self._line: Line | None = None
        self._opened_at = 0.0

    async def work(self) -> None:
        """Returns when this sender is not needed any more; its session is then closed."""
        try:
            while (job := await self._next_job()) is not None:
                self._enlarge()
                await self._deliver(job)
            self._leave()  # now: while it says goodbye it is no longer there for what comes due
            await self._close()
        finally:
            self._drop()
            self._leave()
            self._run.nudge()

    def _leave(self) -> None:
        if self._is_counted:
            self._is_counted = False
            self._run.senders -= 1

    # -- jobs

    async def _next_job(self) -> Job | None:
        """The next job, waiting for one if need be; None when this sender is not needed any more."""
        run = self._run
        while run.ending is None and run.senders <= run.health.limit:
            if run.plan.ready is not None:
                await run.plan.ready()
            if (job := run.work.next(run.clock.now())) is not None:
                return job
            wait = self._wait_for_work()
            if wait is None:
                return None
            if self._line is not None and wait >= IDLE:
                await run.pause(IDLE)
                if run.ending is None and run.work.in_hand == 0:
                    await self._close()
            else:
                await run.pause(wait)
        return None

    def _wait_for_work(self) -> float | None:
        """Seconds until there may be a job, or None when there will be none for this sender."""
        run = self._run
        if run.work.is_used_up or (run.senders > 1 and not run.work.in_hand):
            return None
        if run.work.in_hand:
            return IDLE  # one of those may be deferred and come back; the settling of each wakes us
        due = run.work.next_due()
        if due is None or due - run.clock.now() > run.plan.pace.wait:
            return None
        run.plan.observe(Waiting(due, "deferred deliveries"))
        return max(0.0, due - run.clock.now())

    async def _deliver(self, job: Job) -> None:
        """Does for `job` what can be done now; if nothing could, it goes back."""
        run = self._run
        first_at = job.delivery.first_at or run.clock.now()
        try:
            message = run.plan.compose(job, first_at)
        except TemplateError as error:
            run.plan.outbox.invalidate(job.delivery.row, str(error))
            run.work.settled(job.delivery.id)
            return
        try:
            line = await self._ready_line()
            if line is not None and not await run.turnstile.passes():
                line = None
        except BaseException:
            run.work.take_back(job)
            raise
        if line is None or run.ending is not None:
            run.work.take_back(job)
            return
        await self._transact(job, line, message=message, first_at=first_at)

    # -- the transaction

    async def _transact(self, job: Job, line: Line, *, message: Message, first_at: float) -> None:
        run = self._run
        at, began = run.clock.now(), run.clock.monotonic()
        is_marked = False

        def mark(done: Done) -> None:
            nonlocal is_marked
            is_marked = True
            run.journal.put(Mark(job.delivery.id, message.message_id, first_at, message.digest()), done)

        def attempt(event: Reply | Fault) -> Attempt:
            return Attempt(at, run.clock.monotonic() - began, run.plan.relay_name, event, judge(event))

        is_reused = line.transactions > 0
        try:
            event = await line.transact(message, mark)
        except OutboxError as error:  # the mark could not be made: the terminator did not leave
            run.work.take_back(job)
            run.end(Ending(error))
            return
        except BaseException:
            if line.reached_end:
                stopped = Fault(Stage.END, Breakage.STOPPED, "stopped by us before the server answered")
                self._settle(job, attempt(stopped))
            else:
                self._release(job, is_marked=is_marked)
            raise
        if is_reused and isinstance(event, Fault) and event.stage is Stage.MAIL and event.kind is Breakage.LOST:
            # The server had closed an old session; on a fresh one it may be quite willing.
            self._release(job, is_marked=is_marked)
            return
        tried = attempt(event)
        self._settle(job, tried)
        self._heed(tried.verdict, event=event, line=line, is_reused=is_reused)

    def _settle(self, job: Job, attempt: Attempt) -> None:
        run = self._run
        delivery = settle(job.delivery, attempt, run.plan.pace.retry, dice=run.plan.dice())
        run.journal.put(
            Settlement(delivery, attempt),
            lambda error: self._told(error, job=job, delivery=delivery, attempt=attempt),
        )

    def _told(self, error: BaseException | None, *, job: Job, delivery: Delivery, attempt: Attempt) -> None:
        """The outcome is durable, or will not be: then the row stays at its mark, which a later run finds in doubt."""
        run = self._run
        run.work.settled(delivery.id)
        if error is not None:
            run.end(Ending(error if isinstance(error, OutboxError) else OutboxError(f"the outbox failed: {error}")))
            return
        run.plan.observe(Settled(delivery, attempt, job.recipient))
        if run.work.in_hand == 0 or delivery.status.is_open:
            run.nudge()

    def _release(self, job: Job, *, is_marked: bool) -> None:
        """The job is as it was: nothing of it left that could have been delivered."""
        if is_marked:
            self._run.journal.put(Release(job.delivery.id), lambda error: None)
        self._run.work.take_back(job)

    def _heed(self, verdict: Verdict, *, event: Reply | Fault, line: Line, is_reused: bool) -> None:
        """What the verdict means for the relay and the campaign."""
        run, now = self._run, self._run.clock.monotonic()
        if verdict.stops:
            run.end(Ending(explain(event, relay=run.plan.relay_name)))
        elif verdict.scope in (Scope.RECIPIENT, Scope.MESSAGE):
            run.health.fine()
        elif verdict.scope is Scope.SESSION and is_reused:
            pass  # it did its work before; a new one takes its place
        else:
            if isinstance(event, Reply) and event.code == 432:
                run.health.lower_limit()
            run.health.trouble(now, dice=run.plan.dice())
            self._give_up_if_hopeless(event, now=now)
        if verdict.drops or not line.usable:
            self._drop()

    def _give_up_if_hopeless(self, event: Reply | Fault, *, now: float) -> None:
        run = self._run
        if run.health.is_hopeless(now):
            run.end(Ending(explain(event, relay=run.plan.relay_name, patience=run.plan.pace.patience)))

    # -- the session

    async def _ready_line(self) -> Line | None:
        """An open session whose turn is near; None when this sender is not to have one."""
        run = self._run
        if self._line is not None and (not self._line.usable or self._is_worn(self._line)):
            await self._close()
        while run.ending is None:
            now = run.clock.monotonic()
            hold = max(run.health.resume_at - now, run.turnstile.wait - IDLE)
            if hold > IDLE and self._line is not None:
                await self._close()
            if hold > 0:
                await run.pause(hold)
            elif self._line is not None:
                return self._line
            elif run.senders > run.health.limit:
                return None
            elif run.health.may_open(now):
                await self._open()
            else:
                await run.pause(IDLE)
        return None

    async def _open(self) -> None:
        """Opens a session, or heeds why that failed."""
        run = self._run
        run.health.opening += 1
        try:
            self._line = await run.plan.connect()
        except SessionRefused as refusal:
            self._refused(refusal.event)
            return
        finally:
            run.health.opening -= 1
            run.nudge()
        self._opened_at = run.clock.monotonic()
        run.health.open += 1
        run.health.is_proven = True
        run.plan.observe(Sessions(run.health.open))

    def _refused(self, event: Reply | Fault) -> None:
        run, now = self._run, self._run.clock.monotonic()
        log.info("session refused", extra={"stage": event.stage.value, "why": str(event)})
        misspelt = isinstance(event, Fault) and event.kind in _HOPELESS_AT_FIRST and not run.health.is_proven
        if misspelt or judge(event).stops:
            run.end(Ending(explain(event, relay=run.plan.relay_name)))
        elif isinstance(event, Reply) and run.health.open:
            run.health.lower_limit()  # it serves the others: it has just enough of us
        else:
            run.health.trouble(now, dice=run.plan.dice())
            self._give_up_if_hopeless(event, now=now)

    def _is_worn(self, line: Line) -> bool:
        pace = self._run.plan.pace
        age = self._run.clock.monotonic() - self._opened_at
        return line.transactions >= pace.messages_per_session or age >= pace.session_age

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
            self._run.health.open -= 1
            self._run.plan.observe(Sessions(self._run.health.open))
