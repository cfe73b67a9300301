"""What a service reports by webhook, in the form of a mail that came back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from hashlib import blake2b
from typing import Any

from bulkmail.feedback.classify import NoticeMeaning, classify
from bulkmail.feedback.feedback_report import FeedbackReport, Reported
from bulkmail.feedback.matching import Arrived
from bulkmail.feedback.notice import RecipientNotice
from bulkmail.message.verp import FIELD
from bulkmail.model.feedback_event import FeedbackKind

MOST_RECIPIENTS = 100
LONGEST = 2_000  # characters of a text
_OURS = FIELD.lower()
_QUOTED = re.compile(rf"^{re.escape(FIELD)}:\s*([a-z2-7]{{13,40}})\s*$", re.IGNORECASE | re.MULTILINE)
_QUOTED_ID = re.compile(r"^Message-ID:\s*(<[^<>\s]{1,300}>)\s*$", re.IGNORECASE | re.MULTILINE)

# What says nothing about an address, and comes in for every message.
_OF_NO_INTEREST = {"send", "sent", "delivery", "delivered", "open", "opened", "click", "clicked", "accepted"}
_OF_NO_INTEREST |= {"subscriptionchange", "rendering failure"}
_OF_NO_INTEREST |= {f"email.{what}" for what in ("sent", "delivered", "opened", "clicked", "scheduled")}


def arrived(provider: str, reported: dict[str, Any], body: bytes, *, now: float) -> list[Arrived]:
    """The reports of a call that is proved; none for what is of no interest.  Never raises."""
    try:
        reports = list(_READERS[provider](reported))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):  # not as the service documents it
        reports = [FeedbackReport(FeedbackKind.UNCLEAR)]
    digest = blake2b(body, digest_size=16).hexdigest()
    return [
        Arrived(f"{provider}:{digest}:{number}", report, body, f"webhook {provider}", now)
        for number, report in enumerate(reports)
    ]


def _report(
    kind: FeedbackKind,
    addresses: Iterable[tuple[RecipientNotice, NoticeMeaning]],
    *,
    ids: Iterable[object] = (),
    ours: Iterable[object] = (),
    at: object = None,
) -> FeedbackReport:
    recipients = tuple(Reported(notice, finding) for notice, finding in list(addresses)[:MOST_RECIPIENTS])
    found = dict.fromkeys(_bracketed(str(each)) for each in ids if each)
    return FeedbackReport(
        recipients[0].finding.kind if recipients else kind,
        recipients,
        message_ids=tuple(found),
        our_ids=tuple(str(each) for each in ours if each),
        at=_moment(at),
    )


def _of_kind(address: object, kind: FeedbackKind, reason: str) -> tuple[RecipientNotice, NoticeMeaning]:
    return RecipientNotice(_text(address)), NoticeMeaning(kind, reason)


def _bounce(
    address: object, *, status: object = "", words: object = "", is_permanent: bool, text: object = ""
) -> tuple[RecipientNotice, NoticeMeaning]:
    """By the server's words and digits; where they say nothing, what the service calls permanent is still no proof that
    there is no such mailbox, and counts softly.
    """
    notice = RecipientNotice(_text(address), status=_text(status), diagnostic=_text(words), text=_text(text))
    finding = classify(notice)
    if finding.kind is FeedbackKind.UNCLEAR:
        finding = NoticeMeaning(FeedbackKind.SOFT, "bounced", finding.code, finding.enhanced, finding.words)
    if finding.kind is FeedbackKind.HARD and not is_permanent:
        finding = NoticeMeaning(FeedbackKind.SOFT, finding.reason, finding.code, finding.enhanced, finding.words)
    return notice, finding


def _ses(reported: dict[str, Any]) -> Iterable[FeedbackReport]:
    if reported["Type"] != "Notification":
        return
    event = json.loads(reported["Message"])
    kind = str(event.get("eventType") or event.get("notificationType") or "").lower()
    if kind in _OF_NO_INTEREST:
        return
    mail = event.get("mail", {})
    headers = [(str(each["name"]).lower(), each["value"]) for each in mail.get("headers", ())]
    ids = [value for name, value in headers if name == "message-id"] + [mail.get("commonHeaders", {}).get("messageId")]
    ours = [value for name, value in headers if name == _OURS]
    if kind == "bounce":
        bounce = event["bounce"]
        found = [
            _bounce(
                each["emailAddress"],
                status=each.get("status", ""),
                words=str(each.get("diagnosticCode", "")).removeprefix("smtp;").strip(),
                is_permanent=bounce.get("bounceType") == "Permanent",
            )
            for each in bounce["bouncedRecipients"]
        ]
        yield _report(FeedbackKind.UNCLEAR, found, ids=ids, ours=ours, at=bounce.get("timestamp"))
    elif kind == "complaint":
        complaint = event["complaint"]
        is_spam = complaint.get("complaintFeedbackType") in (None, "abuse", "fraud", "virus", "other")
        meant = FeedbackKind.SPAM_COMPLAINT if is_spam else FeedbackKind.UNCLEAR
        found = [_of_kind(each["emailAddress"], meant, "complaint") for each in complaint["complainedRecipients"]]
        yield _report(meant, found, ids=ids, ours=ours, at=complaint.get("timestamp"))
    elif kind == "deliverydelay":
        found = [
            _of_kind(each["emailAddress"], FeedbackKind.DELAYED, "delayed")
            for each in event["deliveryDelay"]["delayedRecipients"]
        ]
        yield _report(FeedbackKind.DELAYED, found, ids=ids, ours=ours)
    else:
        yield FeedbackReport(FeedbackKind.UNCLEAR)


def _mailgun(reported: dict[str, Any]) -> Iterable[FeedbackReport]:
    event = reported["event-data"]
    kind, address = str(event["event"]).lower(), event.get("recipient")
    if kind in _OF_NO_INTEREST:
        return
    headers = event.get("message", {}).get("headers", {})
    ids = [headers.get("message-id")]
    ours = [value for name, value in {**headers, **event.get("user-variables", {})}.items() if name.lower() == _OURS]
    at = event.get("timestamp")
    if kind == "failed":
        status = event.get("delivery-status", {})
        words = " ".join(str(status[each]) for each in ("code", "enhanced-code", "message") if status.get(each))
        found = _bounce(
            address,
            status=status.get("enhanced-code") or "",
            words=words,
            text=status.get("description", ""),
            is_permanent=event.get("severity") == "permanent",
        )
        yield _report(FeedbackKind.UNCLEAR, [found], ids=ids, ours=ours, at=at)
    elif kind in ("complained", "unsubscribed"):
        meant = FeedbackKind.SPAM_COMPLAINT if kind == "complained" else FeedbackKind.UNSUBSCRIBE
        yield _report(meant, [_of_kind(address, meant, kind)], ids=ids, ours=ours, at=at)
    else:
        yield FeedbackReport(FeedbackKind.UNCLEAR)


def _postmark(reported: dict[str, Any]) -> Iterable[FeedbackReport]:
    kind = str(reported["RecordType"]).lower()
    if kind in _OF_NO_INTEREST:
        return
    content = _text(reported.get("Content"), 100_000)
    metadata = reported.get("Metadata") or {}
    ours = [value for name, value in metadata.items() if str(name).lower() == _OURS] + _QUOTED.findall(content)
    ids = [*_QUOTED_ID.findall(content), metadata.get("message-id"), reported.get("MessageID")]
    at = reported.get("BouncedAt")
    if kind == "bounce":
        found = _bounce(
            reported["Email"],
            words=reported.get("Details", ""),
            text=reported.get("Description", ""),
            is_permanent=reported.get("Type") in ("HardBounce", "BadEmailAddress"),
        )
        yield _report(FeedbackKind.UNCLEAR, [found], ids=ids, ours=ours, at=at)
    elif kind == "spamcomplaint":
        meant = FeedbackKind.SPAM_COMPLAINT
        yield _report(meant, [_of_kind(reported["Email"], meant, "complaint")], ids=ids, ours=ours, at=at)
    else:
        yield FeedbackReport(FeedbackKind.UNCLEAR)


def _standard(reported: dict[str, Any]) -> Iterable[FeedbackReport]:
    kind, data = str(reported["type"]).lower(), reported["data"]
    if kind in _OF_NO_INTEREST:
        return
    headers = [(str(each["name"]).lower(), each["value"]) for each in data.get("headers") or ()]
    ours = [value for name, value in headers if name == _OURS]
    ids = [value for name, value in headers if name == "message-id"] + [data.get("message_id")]
    to = data.get("to") or ()
    addresses = [to] if isinstance(to, str) else list(to)
    at = reported.get("created_at")
    if kind == "email.bounced":
        bounce = data.get("bounce") or {}
        found = [
            _bounce(each, words=bounce.get("message", ""), is_permanent=bounce.get("type") == "Permanent")
            for each in addresses
        ]
        yield _report(FeedbackKind.UNCLEAR, found, ids=ids, ours=ours, at=at)
    elif kind in ("email.complained", "email.unsubscribed"):
        meant = FeedbackKind.SPAM_COMPLAINT if kind == "email.complained" else FeedbackKind.UNSUBSCRIBE
        yield _report(meant, [_of_kind(each, meant, kind[6:]) for each in addresses], ids=ids, ours=ours, at=at)
    else:
        yield FeedbackReport(FeedbackKind.UNCLEAR)


_READERS: dict[str, Callable[[dict[str, Any]], Iterable[FeedbackReport]]] = {
    "ses": _ses,
    "mailgun": _mailgun,
    "postmark": _postmark,
    "standard": _standard,
}


def _text(value: object, longest: int = LONGEST) -> str:
    return str(value or "")[:longest]


def _bracketed(message_id: str) -> str:
    return f"<{message_id.strip().strip('<>')}>"


def _moment(at: object) -> float | None:
    """Seconds, whether it is a number of them or an ISO 8601 time."""
    try:
        return float(at) if isinstance(at, int | float) else datetime.fromisoformat(str(at)).timestamp()
    except (ValueError, OverflowError):
        return None
