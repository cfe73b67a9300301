"""What the workers of one run share: the scheduler, the relays and how they do, and what is written down."""

from __future__ import annotations

from dataclasses import replace

from bulkmail.engine.account import Account
from bulkmail.engine.contracts import Ending, Notice
from bulkmail.engine.explain import explain, explain_failing, explain_left_out, explain_rest
from bulkmail.engine.journal import Journal
from bulkmail.engine.lifetime import Lifetime
from bulkmail.engine.plan import Plan, make_shaper
from bulkmail.engine.prepare import Preparer
from bulkmail.engine.relay_state import RelayState
from bulkmail.engine.scheduler import Scheduler
from bulkmail.engine.telling import Telling
from bulkmail.engine.throttling import Throttling
from bulkmail.model.breaker import Breaker
from bulkmail.model.errors import BulkmailError, OutboxError
from bulkmail.model.feedback import ThrottleDecision
from bulkmail.model.hold import Hold
from bulkmail.model.outcome import Scope
from bulkmail.model.reply import Fault, Reply
from bulkmail.model.units import say_duration
from bulkmail.text import count, printable

LONGEST_NOTICE = 2_000  # characters


class Run:
    """The state that all workers share.  Every change is made in one plain call, so that nothing needs a lock."""

    def __init__(self, plan: Plan) -> None:
        self.telling = Telling(plan.observe, by_one=plan.ready is not None)
        self.plan = plan = replace(plan, observe=self.telling)
        self.clock = plan.clock
        self.life = Lifetime(plan.clock)
        self.journal = Journal(plan.store)
        self.shaper = plan.shaper or make_shaper(plan.lanes, plan.pace)
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
            self.telling.flush()
            for relay in self.relays:
                await relay.account.settle()

    def store_failed(self, error: BaseException) -> None:
        """Nothing can be read or recorded any more."""
        self.life.end(Ending(as_store_error(error)))

    # -- relays

    def record_success(self, relay: RelayState) -> None:
        """The relay dealt with a message, whatever it thought of it."""
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
