"""What a try came to, put down: no one is notified before it is durable."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial

from bulkmail.engine.contracts import DeliveryResult, Ending
from bulkmail.engine.relay_state import RelayState
from bulkmail.engine.run import Run
from bulkmail.model.breaker import Danger, Trip
from bulkmail.model.delivery import Attempt, Delivery, accepted, settle
from bulkmail.model.errors import OutboxError, RelayError, TemplateError
from bulkmail.model.feedback import ThrottleDecision
from bulkmail.model.job import Job, PutBack, Settlement
from bulkmail.model.outcome import Reason, Scope, rejected
from bulkmail.model.reply import Breakage, Fault, Reply, Stage
from bulkmail.model.status import Status
from bulkmail.model.verdict import ACCEPTED
from bulkmail.text import printable


def record(run: Run, job: Job, relay: RelayState, event: Reply | Fault, *, at: float, took: float) -> ThrottleDecision:
    """Puts down how a try that began `at` (wall clock) ended after this many seconds; what is to be made of that."""
    decision = run.plan.feedback.decide(event)
    number = job.delivery.id
    verdict = run.breaker.spared(event, decision.verdict)
    names_us = verdict.reason is not Reason.UNSTATED_POLICY
    if verdict.strikes and not names_us:
        own = relay.strikes.is_own(number, has_others=lambda done: _has_others(run, done, settling=1))
        verdict = rejected(Scope.RECIPIENT, Reason.POLICY) if own else verdict
    decision = replace(decision, verdict=verdict)
    attempt = Attempt(at, took, relay.name, event, verdict)
    delivery = settle(job.delivery, attempt, run.plan.pace.retry, jitter=run.plan.rng())
    _put(run, job, relay, delivery, attempt)
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


def record_acceptance(run: Run, job: Job, relay: RelayState, reply: Reply, *, at: float, took: float) -> None:
    """As `record()`, of a positive reply to the end of a message, and what follows from it for the relay."""
    delivery = accepted(job.delivery, at=at)
    _put(run, job, relay, delivery, Attempt(at, took, relay.name, reply, ACCEPTED))
    trip = run.breaker.accepted(delivery.id, reply, copy_to=delivery.forward_path if delivery.is_copy else "")
    if trip is not None:
        _trips(run, trip)
    relay.strikes.accepted()
    if relay.is_on_trial or relay.is_reported or relay.health.is_failing:
        run.record_success(relay)


def _put(run: Run, job: Job, relay: RelayState, delivery: Delivery, attempt: Attempt) -> None:
    run.journal.put(Settlement(delivery, attempt), partial(_reported, run, job, relay, delivery, attempt))
    run.unsettled += 1


def _has_others(run: Run, done: Collection[int], *, settling: int = 0) -> bool:
    """Whether the run has a delivery to try that is not among `done` and whose outcome is not put down yet.

    `settling` is how many of those in hand are about to be put down.
    """
    return run.work.in_hand > run.unsettled + settling or run.work.has_others(done)


def _trips(run: Run, trip: Trip) -> None:
    """A breaker opened: who was rejected for it is pending again, and nothing more begins.

    In the instant that the outcome was put in the journal, so that one transaction takes both.
    """
    if trip.put_back:
        run.journal.put(PutBack(trip.put_back), _nothing)
    if trip.danger is not Danger.CANARY:  # which is judged when all of those messages are done
        run.end(Ending(RelayError(f"stopped, and no one is lost: {trip.sentence}", hint=trip.hint)))


def _nothing(error: BaseException | None) -> None:
    """Anyone who put the outcome beside it is notified, too."""


def record_unmade(run: Run, job: Job, relay: RelayState, error: TemplateError) -> None:
    """No message can be made for a row: it is invalid, or, when it was tried before, rejected in our words."""
    run.work.release_copies(job)
    if job.delivery.status is Status.PENDING:
        if job.delivery.row not in run.invalid_rows:  # one forward path speaks for all
            run.plan.outbox.invalidate(job.delivery.row, str(error))
            run.invalid_rows.add(job.delivery.row)
        run.settled(job.delivery.id, relay)
    else:  # a file of the row has gone since, or a hook changed its mind
        fault = Fault(Stage.MAIL, Breakage.UNSENDABLE, printable(str(error)))
        record(run, job, relay, fault, at=run.clock.now(), took=0.0)


def _reported(
    run: Run, job: Job, relay: RelayState, delivery: Delivery, attempt: Attempt, error: BaseException | None
) -> None:
    """The outcome is durable, or will not be: then the row stays at its mark, which a later run finds in doubt."""
    run.unsettled -= 1
    is_open = delivery.status is not Status.ACCEPTED and delivery.status.is_open
    run.settled(delivery.id, relay, due_at=delivery.due_at if is_open else None)
    if error is not None:
        run.end(Ending(as_outbox_error(error)))
        return
    run.plan.observe(DeliveryResult(delivery, attempt, job.recipient))
    if is_open or run.work.in_hand == 0:
        run.nudge()


def as_outbox_error(error: BaseException) -> OutboxError:
    """What to end a run with when its outbox fails."""
    if isinstance(error, OutboxError):
        return error
    if isinstance(error, MemoryError):  # which has no words of its own
        return OutboxError("the outbox failed: there is not enough memory", hint="what was recorded is safe")
    return OutboxError(f"the outbox failed: {error}")
