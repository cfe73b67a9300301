"""The session of one sender: opened when it may be, left when it is worn, and what its end says of the relay."""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio

from bulkmail.engine.contracts import Connection, Sessions
from bulkmail.engine.relay_state import RelayState, SessionUse
from bulkmail.engine.run import Run
from bulkmail.engine.scheduler import Booking
from bulkmail.model.outcome import Breakage, Fault, Reply, Scope, Stage
from bulkmail.model.shaper import ThrottleDecision
from bulkmail.model.timing import IDLE_SESSION_KEPT
from bulkmail.smtp.replies import SessionRefused

log = logging.getLogger("bulkmail.engine")


class WorkerSession:
    """Holds at most one open line at a time; `enlarge` is called when one was opened and others may follow."""

    def __init__(self, run: Run, relay: RelayState, *, enlarge: Callable[[], None]) -> None:
        self._run = run
        self.relay = relay
        self._enlarge = enlarge
        self.line: Connection | None = None
        self.use = SessionUse(relay)
        self.used_at = 0.0
        self.carried = 0  # messages whose recipient got an outcome of its own
        self.under_way = 0  # messages
        self.is_spent = False  # not to be used again, because of what came of a message
        self._opened_at = 0.0
        self._is_leaving = False  # the owner is, for good
        self._is_closed = False  # by us

    @property
    def is_open(self) -> bool:
        """Whether there is a session, be it alive or not."""
        return self.line is not None

    def carries(self) -> None:
        """A recipient got an outcome of its own."""
        self.carried += 1
        if self.carried == 1:
            self.relay.health.carried()

    def is_left(self) -> None:
        """It ends because of us, in the middle of a transaction: that says nothing of the relay."""
        self._is_closed = True

    def leave(self) -> None:
        """Its owner is not there any more, and it will be closed."""
        if self.is_open and not self._is_leaving:
            self._is_leaving = True
            self.relay.health.leaving += 1

    async def ready(self, booking: Booking) -> Connection | None:
        """An open session whose turn is near; None when this sender is not to have one, or another relay has."""
        run, relay = self._run, self.relay
        if self.line is not None and not self.line.usable:
            self.rests(self.line)
        elif self.is_worn:
            await self.close()
        while run.life.ending is None and not relay.is_out:
            now = run.clock.monotonic()
            hold = max(relay.health.resume_at - now, relay.wait_for_turn(now) - IDLE_SESSION_KEPT)
            if hold > IDLE_SESSION_KEPT and self.line is not None:
                await self.close()
            is_open = hold <= 0 and self.line is not None
            if is_open and relay.may_try(self):
                return self.line
            if hold <= 0 and relay.workers > relay.health.limit:
                return None
            if not is_open and hold <= 0 and relay.health.may_open(now):
                await self._open()
            elif run.scheduler.is_to_yield(booking):
                return None
            elif is_open:
                await run.life.pause(IDLE_SESSION_KEPT)
            elif (unopened := relay.health.wait(now)) <= 0:
                await run.life.pause(hold if hold > 0 else IDLE_SESSION_KEPT)
            elif not run.gives_up(relay):
                run.tell_wait(relay)
                await run.life.pause(min(max(hold, unopened), relay.health.patience_left(now) or unopened))
        return None

    async def _open(self) -> None:
        """Opens a session, or acts on why that failed; gives up as soon as the run ends."""
        run, relay = self._run, self.relay
        relay.health.begin(run.clock.monotonic())
        try:
            with relay.silence.awaiting(), run.life.opening() as opening:
                self.line = await relay.connect()
        except BaseException as error:
            relay.health.failed()
            if not isinstance(error, SessionRefused):
                raise
            self._refused(error.event)
            return
        finally:
            run.life.nudge()
        if opening.cancelled_caught:  # the run ends, and nothing would be sent over it
            relay.health.failed()
            return
        relay.health.opened()
        run.throttling.say_fewer(relay)
        self._opened_at = self.used_at = run.clock.monotonic()
        self.carried, self.is_spent, self._is_closed = 0, False, False
        if run.scheduler.is_alone:  # else it has to deal with a message first, or one that hangs would hold many
            self._enlarge()
        run.plan.observe(Sessions(relay.health.open, relay.name))

    def _refused(self, event: Reply | Fault) -> None:
        run, relay = self._run, self.relay
        log.info("session refused", extra={"stage": event.stage.value, "why": str(event)})
        decision, health = run.plan.feedback.decide(event), relay.health
        asked = max(decision.suspend if health.open else decision.asked, decision.login_wait)
        misspelt = decision.is_unanswered and not health.is_proven
        # Of a relay that serves us already, a refusal says only that it wants no more sessions; not so of a login.
        stops = decision.verdict.stops and not (health.open and decision.declines_session)
        health.back_off(run.clock.monotonic(), jitter=run.plan.rng(), asked=asked)
        if pause := decision.pause_at(run.clock.now()):
            run.pause_account(relay, pause, f"{relay.name} says: {event}")
        elif stops or (misspelt and not run.has_several):
            run.leave_out(relay, event)
        elif decision.is_exhausted and health.open:
            run.throttling.ran_out(event, relay)
        elif health.open:
            run.throttling.refused(event, relay, others=health.open)
        else:
            run.record_failure(relay, event, asked=asked)
            if misspelt and run.has_no_answer():
                run.give_up(relay, event)

    @property
    def is_worn(self) -> bool:
        """Whether it should carry no more, because of its age or of what it has carried."""
        return self.line is not None and self.is_worn_at(self._run.clock.monotonic())

    def is_worn_at(self, now: float) -> bool:
        """As `is_worn`, of a session that is open at `now` (monotonic seconds)."""
        relay, line = self.relay, self.line
        if self.use.full or now - self._opened_at >= relay.session_age:
            return True
        return line is not None and line.transactions >= relay.messages_per_session

    def rests(self, line: Connection) -> None:
        """Nothing is under way on `line`: it is kept for the next message, or dropped if it takes none."""
        self.used_at = self._run.clock.monotonic()
        if self.is_spent or not line.usable:
            if not (self.is_spent or self.carried or self._is_closed):
                fault = Fault(Stage.MAIL, Breakage.LOST, line.closed_because)
                self.fails(fault, self._run.plan.feedback.decide(fault))
            self.drop()

    def fails(self, event: Reply | Fault, decision: ThrottleDecision) -> None:
        """The session is over, and the relay does not say how it wants to be treated.

        One that did its work is replaced.  One that carried nothing while others do is one more than the relay takes.
        """
        run, relay, scope, asked = self._run, self.relay, decision.verdict.scope, decision.asked
        if not self.carried and relay.health.fruitful:
            run.throttling.refused(event, relay, others=relay.health.open - 1)
        elif self.carried and decision.dismisses and not asked:
            if not run.is_dismissal(relay, self.carried) and scope is not Scope.SESSION:
                run.record_failure(relay, event)
        elif not self.carried or scope is not Scope.SESSION:
            run.record_failure(relay, event, asked=asked)

    async def close(self) -> None:
        """Sends QUIT if the server still listens."""
        line = self.line
        if line is not None and line.usable:
            self._is_closed = True
            with anyio.CancelScope(shield=True):  # a few seconds at most, by the line's own clock
                await line.quit()
        self.drop()

    def drop(self) -> None:
        """The session is over."""
        if self.line is None:
            return
        run, health = self._run, self.relay.health
        was_lost = self.is_spent or not (self.line.usable or self._is_closed)
        self.line.abort()
        self.line = None
        self.use.renew()
        if self._is_leaving:
            self._is_leaving = False
            health.leaving -= 1
        health.closed(run.clock.monotonic(), carried=self.carried, was_lost=was_lost, jitter=run.plan.rng())
        run.plan.observe(Sessions(health.open, self.relay.name))
