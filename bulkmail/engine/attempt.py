"""Deliveries under way over a session, from their mark to their outcome, which is durable before it is reported."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from bulkmail.engine.contracts import ClaimLost, DeliveryResult, Ending
from bulkmail.engine.run import Run
from bulkmail.engine.scheduler import Booking
from bulkmail.engine.worker_session import WorkerSession
from bulkmail.model import delivery as deliveries
from bulkmail.model.breaker import Danger, Trip
from bulkmail.model.delivery import Invalidation, Mark, PutBack, Release, Settlement, accepted, settle
from bulkmail.model.errors import BreakerTripped, TemplateError
from bulkmail.model.outcome import Breakage, Fault, Reason, Reply, Scope, Stage, rejected
from bulkmail.model.shaper import ThrottleDecision
from bulkmail.model.tally import Status
from bulkmail.model.verdict import ACCEPTED
from bulkmail.smtp.transaction import Done, Transfer
from bulkmail.text import printable

Conclude = Callable[[str, ThrottleDecision, Reply | Fault], None]
_END = Stage.END

MOST_COPIES = 50  # forward paths of a transaction: RFC 5321 §4.5.3.1.8 asks servers for 100, some providers take 50


class Attempt(Transfer, eq=False, kw_only=True):
    """A transfer that records itself: every outcome is durable before it is reported.

    It began `at` (wall clock), which is `began` (monotonic).  `conclude` receives what an outcome other than acceptance
    means for provider, session and relay.
    """

    run: Run
    session: WorkerSession
    booking: Booking
    conclude: Conclude
    first_at: float
    at: float
    began: float
    is_lost: bool = False  # the claim

    def mark(self, done: Done) -> None:
        """Asks for the durable note that the end of this message is about to be written."""
        run, message = self.run, self.message

        def noted(error: BaseException | None) -> None:
            if isinstance(error, ClaimLost):
                self.is_lost = True
                self.session.is_left()
            elif error is not None:  # nothing can be recorded any more
                run.store_failed(error)
            done(error)

        # With several relays the mark names its own, for those who look for the message after a crash.
        relay = self.booking.session.relay.name if run.has_several else ""
        mark = Mark(self.booking.job.delivery.id, message.message_id, self.first_at, message.digest(), relay)
        run.journal.put(mark, noted)

    def decided(self, event: Reply | Fault) -> None:
        """Records what it came to."""
        run, booking, session = self.run, self.booking, self.session
        session.under_way -= 1
        if event.__class__ is Reply and event.stage is _END and 200 <= event.code < 300:
            relay, may_wait = session.relay, session.under_way > 0
            took = run.clock.monotonic() - self.began
            delivery = accepted(booking.job.delivery, at=self.at)
            attempt = deliveries.AttemptResult(self.at, took, relay.name, event, ACCEPTED)
            _put(run, booking, delivery, attempt, may_wait=may_wait)
            trip = run.breaker.accepted(delivery.id, event, copy_to=delivery.forward_path if delivery.is_copy else "")
            if trip is not None:
                _trips(run, trip)
            if relay.strikes.struck:
                relay.strikes.accepted()
            if relay.is_on_trial or relay.is_reported or relay.health.failing_since is not None:
                run.record_success(relay)
            if not session.carried:
                relay.health.carried()
            session.carried += 1
            run.throttling.accepted(relay, booking.provider)
            return
        if self.is_lost:  # its end was not written
            run.scheduler.lost(booking)
            run.life.nudge()
            return
        decision = run.plan.feedback.decide(event)
        if decision.is_untried(has_carried=session.carried > 0):
            if self.is_mark_asked:
                run.journal.put(Release(booking.job.delivery.id), _ignore)
            run.scheduler.give_back(booking)
            run.life.nudge()
            return
        took = run.clock.monotonic() - self.began
        self.conclude(booking.provider, record(run, booking, decision, event, at=self.at, took=took), event)


class GroupedAttempt(Transfer, eq=False, kw_only=True):
    """Copies of one message on their way in one transaction, each with an outcome of its own.

    Its message is that of the attempts, to the forward paths of all in their order.  The marks of all are put in the
    journal in one turn, so that one commit makes them durable; who was refused before that needs none.  `too_many`
    receives how many forward paths the server takes at a time, when it says so.
    """

    attempts: Sequence[Attempt]
    too_many: Callable[[int], None]

    def mark(self, done: Done) -> None:
        """Asks for those of all."""
        going = [attempt for number, attempt in enumerate(self.attempts) if number not in self.own]
        waiting = len(going)

        def one_done(error: BaseException | None) -> None:
            nonlocal waiting
            waiting -= 1
            if error is not None or waiting == 0:
                done(error)

        for attempt in going:
            attempt.is_mark_asked = True
            attempt.mark(one_done)

    def decided(self, event: Reply | Fault) -> None:
        """Each hears its own answer, or that to all."""
        # From the back: what goes once more goes to the head of the queue, and there the order shall be the same.
        for number, attempt in reversed(list(enumerate(self.attempts))):
            own = self.own.get(number, event)
            if number and attempt.run.plan.feedback.decide(own).splits:
                self.too_many(number)
                own = Fault(Stage.RCPT, Breakage.STOPPED, f"it goes in a transaction of its own: {own}")
            attempt.decided(own)


def _ignore(error: BaseException | None) -> None:
    """A mark that could not be taken back makes its row doubtful for the next run, which is true enough."""


# -- what they came to


def record(
    run: Run, booking: Booking, decision: ThrottleDecision, event: Reply | Fault, *, at: float, took: float
) -> ThrottleDecision:
    """Records how an attempt that began `at` (wall clock) ended after `took` seconds; returns what follows from it."""
    job, relay = booking.job, booking.session.relay
    number = job.delivery.id
    verdict = run.breaker.spared(event, decision.verdict)
    names_us = verdict.reason is not Reason.UNSTATED_POLICY
    if verdict.strikes and not names_us:
        own = relay.strikes.is_own(number, has_others=lambda done: _has_others(run, done, settling=1))
        verdict = rejected(Scope.RECIPIENT, Reason.POLICY) if own else verdict
    decision = replace(decision, verdict=verdict)
    attempt = deliveries.AttemptResult(at, took, relay.name, event, verdict)
    delivery = settle(job.delivery, attempt, run.plan.pace.retry, jitter=run.plan.rng())
    _put(run, booking, delivery, attempt)
    trip = run.breaker.note(
        number,
        event,
        verdict,
        copy_to=delivery.forward_path if delivery.is_copy else "",
        is_last=lambda: not _has_others(run, {number}),
    )
    if trip is not None:
        _trips(run, trip)
    if verdict.strikes and relay.strikes.strike(
        number, names_us=names_us, has_others=lambda done: _has_others(run, done)
    ):
        run.leave_out(relay, event)
    return decision


def record_unmade(run: Run, booking: Booking, error: TemplateError) -> None:
    """No message can be made for a row: it is invalid, or, when it was tried before, rejected in our words."""
    job = booking.job
    run.scheduler.unbook(booking)
    run.scheduler.queues.release_copies(job)
    if job.delivery.status is Status.PENDING:
        _put_invalid(run, booking, error)
    else:  # a file of the row has gone since, or a hook changed its mind
        fault = Fault(Stage.MAIL, Breakage.UNSENDABLE, printable(str(error)))
        record(run, booking, run.plan.feedback.decide(fault), fault, at=run.clock.now(), took=0.0)


def _put_invalid(run: Run, booking: Booking, error: TemplateError) -> None:
    def recorded(failure: BaseException | None) -> None:
        run.unsettled -= 1
        if isinstance(failure, ClaimLost):
            run.scheduler.lost(booking)
        else:
            run.scheduler.settled(booking)
        if failure is not None and not isinstance(failure, ClaimLost):
            run.store_failed(failure)
        elif not run.scheduler.queues.in_hand:
            run.life.nudge()

    delivery = booking.job.delivery
    run.journal.put(Invalidation(delivery.id, delivery.row, str(error)), recorded)
    run.unsettled += 1


def _put(
    run: Run,
    booking: Booking,
    delivery: deliveries.Delivery,
    attempt: deliveries.AttemptResult,
    *,
    may_wait: bool = False,
) -> None:
    """Records an outcome; `may_wait`: with the next entry, because another message of the session is under way."""

    def recorded(error: BaseException | None) -> None:
        """The outcome is durable, or will not be: then the row stays at its mark, which a later run finds in doubt."""
        run.unsettled -= 1
        if isinstance(error, ClaimLost):  # it was never marked, and another process tries it, or has tried it
            run.scheduler.lost(booking)
            run.life.nudge()
            return
        is_open = delivery.status is not Status.ACCEPTED and delivery.status.is_open
        run.scheduler.settled(booking, due_at=delivery.due_at if is_open else None)
        if error is not None:
            run.store_failed(error)
            return
        result = DeliveryResult(delivery, attempt, booking.job.recipient)
        run.telling.settled(result, is_last=not run.scheduler.queues.out)

    put = run.journal.put_by if may_wait else run.journal.put
    put(Settlement(delivery, attempt), recorded)
    run.unsettled += 1


def _has_others(run: Run, done: Collection[int], *, settling: int = 0) -> bool:
    """Whether the run has a delivery to try that is not among `done` and whose outcome is not recorded yet.

    `settling` is how many of those in hand are about to be recorded.
    """
    queues = run.scheduler.queues
    return queues.in_hand > run.unsettled + settling or queues.has_others(done)


def _trips(run: Run, trip: Trip) -> None:
    """A breaker opened: recipients rejected because of it are pending again, and nothing more begins.

    This runs as soon as the outcome is in the journal, so that one transaction records both.
    """
    if trip.put_back:
        run.journal.put(PutBack(trip.put_back), _nothing)
    if trip.danger is not Danger.CANARY:  # which is judged when all of those messages are done
        run.life.end(
            Ending(
                BreakerTripped(
                    f"Sending stopped; no recipients were lost: {trip.sentence}", sentence=trip.sentence, hint=trip.hint
                )
            )
        )


def _nothing(error: BaseException | None) -> None:
    """Nothing to do: the put of the outcome beside it has a callback of its own."""
