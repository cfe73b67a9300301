"""What a try came to, put down: nobody is told before it is durable."""

from __future__ import annotations

from bulkmail.engine.channel import Channel
from bulkmail.engine.ports import Ending, Settled
from bulkmail.engine.run import Run
from bulkmail.model.delivery import Attempt, Delivery, Status, settle
from bulkmail.model.errors import OutboxError, TemplateError
from bulkmail.model.feedback import Heeding
from bulkmail.model.reply import Breakage, Fault, Reply, Stage, printable
from bulkmail.outbox.outbox import Job, Settlement


def record(run: Run, job: Job, channel: Channel, event: Reply | Fault, *, at: float, took: float) -> Heeding:
    """Puts down how a try that began `at` (wall clock) ended after so many seconds; what is to be made of that."""
    heeding = run.plan.feedback.heed(event)
    attempt = Attempt(at, took, channel.name, event, heeding.verdict)
    delivery = settle(job.delivery, attempt, run.plan.pace.retry, dice=run.plan.dice())

    def told(error: BaseException | None) -> None:
        _told(run, job, channel, delivery, attempt, error)

    run.journal.put(Settlement(delivery, attempt), told)
    copy_to = delivery.forward_path if delivery.is_copy else ""
    if (trip := run.breaker.note(delivery.id, event, heeding.verdict, copy_to=copy_to)) is not None:
        run.trips(trip)
    return heeding


def record_unmade(run: Run, job: Job, channel: Channel, error: TemplateError) -> None:
    """No letter can be made for a row: it is invalid, or, when it was tried before, rejected in our words."""
    run.work.release_copies(job)
    if job.delivery.status is Status.PENDING:
        if job.delivery.row not in run.invalid_rows:  # one forward path speaks for all
            run.plan.outbox.invalidate(job.delivery.row, str(error))
            run.invalid_rows.add(job.delivery.row)
        run.settled(job.delivery.id, channel)
    else:  # a file of the row has gone since, or a hook changed its mind
        fault = Fault(Stage.MAIL, Breakage.UNSENDABLE, printable(str(error)))
        record(run, job, channel, fault, at=run.clock.now(), took=0.0)


def _told(
    run: Run, job: Job, channel: Channel, delivery: Delivery, attempt: Attempt, error: BaseException | None
) -> None:
    """The outcome is durable, or will not be: then the row stays at its mark, which a later run finds in doubt."""
    run.settled(delivery.id, channel, due_at=delivery.due_at if delivery.status.is_open else None)
    if error is not None:
        run.end(Ending(as_outbox_error(error)))
        return
    run.plan.observe(Settled(delivery, attempt, job.recipient))
    if run.work.in_hand == 0 or delivery.status.is_open:
        run.nudge()


def as_outbox_error(error: BaseException) -> OutboxError:
    """What to end a run with when its outbox fails."""
    if isinstance(error, OutboxError):
        return error
    if isinstance(error, MemoryError):  # which has no words of its own
        return OutboxError("the outbox failed: there is not enough memory", hint="what was recorded is safe")
    return OutboxError(f"the outbox failed: {error}")
