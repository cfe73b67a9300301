"""What the replies of our own sessions say of mailboxes, as events for the suppression list."""

from __future__ import annotations

from bulkmail.model.delivery import Attempt, Delivery
from bulkmail.model.feedback_event import MOST_WORDS, FeedbackEvent, FeedbackKind, Proof
from bulkmail.model.outcome import Reason, Scope
from bulkmail.model.reply import Reply
from bulkmail.model.status import Status
from bulkmail.text import printable

_NO_SUCH_MAILBOX = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.4.4"})  # RFC 3463, RFC 7505
_DISABLED = "5.2.1"  # RFC 3463 §3.3: the mailbox exists, and takes no mail for now
_GONE = frozenset({Reason.UNKNOWN_USER, Reason.MOVED})
_FULL = frozenset({Reason.MAILBOX_FULL, Reason.NOT_NOW})


def kind_of_reply(delivery: Delivery, attempt: Attempt) -> FeedbackKind | None:
    """HARD or SOFT when the outcome of a delivery says something about its mailbox, else None.

    Hard only if the verdict's scope is the recipient: what is refused for the message, the session, the relay or the
    sender says nothing about it; nor does a policy.
    """
    verdict = attempt.verdict
    if verdict.scope is not Scope.RECIPIENT or not isinstance(attempt.event, Reply):
        return None
    if delivery.status is Status.REJECTED:
        enhanced = attempt.event.enhanced or ""
        if enhanced == _DISABLED or verdict.reason in _FULL:
            return FeedbackKind.SOFT
        if verdict.reason in _GONE or enhanced in _NO_SUCH_MAILBOX:
            return FeedbackKind.HARD
        return None
    if delivery.status is Status.EXPIRED and verdict.reason in _FULL:
        return FeedbackKind.SOFT
    return None


def event_of_reply(
    delivery: Delivery, attempt: Attempt, *, run_id: str, campaign: str, list_id: str
) -> FeedbackEvent | None:
    """What a server said of a mailbox in our own session, as an event; None when it said nothing of it.

    It is about the forward path that was spoken to, which may be a copy's.  The same outcome of the same delivery has
    the same `source_id`; when it is tried again later and refused again, that is another.
    """
    kind = kind_of_reply(delivery, attempt)
    reply = attempt.event
    if kind is None or not isinstance(reply, Reply):
        return None
    return FeedbackEvent(
        source_id=f"smtp {run_id} {delivery.id} {delivery.tries}",
        kind=kind,
        at=attempt.at + attempt.took,
        proof=Proof.SMTP,
        forward_path=delivery.forward_path,
        run_id=run_id,
        campaign=campaign,
        list_id=list_id,
        row=delivery.row,
        delivery=delivery.id,
        reason=attempt.verdict.reason.value.replace(" ", "-"),
        code=reply.code,
        enhanced=reply.enhanced or "",
        words=printable(reply.text, MOST_WORDS),
        source=f"smtp {attempt.relay}",
    )
