"""How the messages of one outbox are made, and how they are signed where that takes long."""

from __future__ import annotations

from dataclasses import replace

from bulkmail.engine.contracts import Compose, Sign
from bulkmail.message.compose.composer import Composer
from bulkmail.message.compose.hook import Hook
from bulkmail.message.compose.ready_made import message_of
from bulkmail.model.errors import BulkmailError
from bulkmail.model.job import Job
from bulkmail.model.keys import Keys
from bulkmail.model.message import Envelope, Message
from bulkmail.outbox.outbox import Outbox


def composing(outbox: Outbox, *, keys: Keys, on_message: Hook | None) -> tuple[Compose, Sign | None]:
    """What makes the message of a job; None beside it where it is signed already."""
    campaign = outbox.campaign
    if campaign is None:
        return _ready_made, None
    composer = Composer(campaign, run_id=outbox.run_id, keys=keys, on_message=on_message)
    make = composer.draft if composer.is_slow_to_sign else composer.compose

    def compose(job: Job, first_at: float) -> Message:
        if job.recipient is None:
            return _ready_made(job, first_at)
        at, recipient = job.delivery, job.recipient
        if outbox.is_grouped:
            recipient = replace(recipient, rows=outbox.rows_of(at.row))
        return make(recipient, row=at.row, forward_path=at.forward_path, date=first_at, delivery=at.id)

    return compose, composer.sign if composer.is_slow_to_sign else None


def _ready_made(job: Job, first_at: float) -> Message:
    if job.content is None:
        raise BulkmailError(f"row {job.delivery.row} of the outbox has no message")
    envelope = Envelope(job.reverse_path, job.delivery.forward_path)
    return message_of(job.content, envelope=envelope, message_id=job.message_id)
