"""One mail that came back, read: what kind of mail it is, whom it is about, and what in it may prove that."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from bulkmail.feedback.classify import NoticeMeaning, classify
from bulkmail.feedback.mime import NO_FIELDS, Fields, Mail, decoded, parameter, read_fields, take_apart
from bulkmail.feedback.notice import ADDRESS, COMPLAINT, MOST_RECIPIENTS, Notices, RecipientNotice, read_notices
from bulkmail.model.feedback_event import MOST_WORDS, FeedbackKind
from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.text import printable

OUR_HEADER = "x-bulkmail-id"
"""The header of our messages whose value is a keyed token."""

_MOST_IDS = 50


@dataclass(frozen=True, slots=True)
class Reported:
    """One recipient, what is said about it, and what that means."""

    notice: RecipientNotice
    finding: NoticeMeaning


@dataclass(frozen=True, slots=True)
class FeedbackReport:
    """What a mail says, before anything in it is believed.

    `written_to` are the addresses that the mail itself came to, best first; `message_ids` those of the message that it
    quotes, with their angle brackets and the last first; `replies_to` what In-Reply-To and References name.
    `our_ids` are the values of our own header in the quoted message.  `subject` is decoded.  `at` is wall-clock
    seconds, None where the mail has no date.  `recipients` is empty for a mail that is no report about any.
    """

    kind: FeedbackKind
    recipients: tuple[Reported, ...] = ()
    written_to: tuple[str, ...] = ()
    message_ids: tuple[str, ...] = ()
    replies_to: tuple[str, ...] = ()
    our_ids: tuple[str, ...] = ()
    envelope_id: str = ""
    subject: str = ""
    author: str = ""
    message_id: str = ""
    at: float | None = None
    words: str = ""


def read_report(raw: bytes) -> FeedbackReport:
    """What the mail in `raw` says.  Never raises, and looks at a bounded part of them."""
    mail = take_apart(raw)
    notices = read_notices(mail)
    if (complaint := _complaint(mail, notices)) is not None:
        return complaint
    if _is_unsubscribe(mail):  # some programs send these by themselves, too
        return _report(mail, FeedbackKind.UNSUBSCRIBE, Notices((), "", NO_FIELDS), ())
    if _is_auto_reply(mail):
        return _report(mail, FeedbackKind.AUTO_REPLY, Notices((), "", NO_FIELDS), ())
    if not (notices.is_standard or _is_from_a_server(mail) or _says_so(mail)):
        return _report(mail, FeedbackKind.UNCLEAR, notices, ())
    found = tuple(Reported(notice, _found(notice, notices.text)) for notice in notices.recipients)
    kinds = {each.finding.kind for each in found}
    return _report(mail, kinds.pop() if len(kinds) == 1 else FeedbackKind.UNCLEAR, notices, found)


def _found(notice: RecipientNotice, text: str) -> NoticeMeaning:
    if notice.action == COMPLAINT:
        return NoticeMeaning(FeedbackKind.SPAM_COMPLAINT, "abuse", words=printable(notice.diagnostic, MOST_WORDS))
    return classify(notice, text)


def _report(mail: Mail, kind: FeedbackKind, notices: Notices, found: tuple[Reported, ...]) -> FeedbackReport:
    fields, quoted = mail.fields, notices.quoted
    subject = decoded(fields.get("subject"))[:1_000]
    ids = [_message_id(value) for value in quoted.values("message-id")]
    ids += _ID_IN_TEXT.findall(notices.text) if not ids else []
    return FeedbackReport(
        kind=kind,
        recipients=found,
        written_to=_written_to(fields),
        message_ids=_unique(reversed([each for each in ids if each])),
        replies_to=_unique(_ID.findall(" ".join(fields.values("in-reply-to", "references"))[:10_000])),
        our_ids=_unique([*quoted.values(OUR_HEADER), *_OUR_ID_IN_TEXT.findall(notices.text)]),
        envelope_id=notices.envelope_id[:200],
        subject=subject,
        author=_address(fields.get("from")),
        message_id=_message_id(fields.get("message-id")),
        at=_seconds(fields.get("date")),
        words=printable(subject, MOST_WORDS),
    )


# --- spam complaints --------------------------------------------------------------------------------------------------

_ABUSE = {"abuse", "fraud", "other", "complaint", "miscategorized"}


def _complaint(mail: Mail, notices: Notices) -> FeedbackReport | None:
    """An ARF report (RFC 5965), or what Microsoft sends instead; None for any other mail."""
    part = next(mail.of_type("message/feedback-report"), None)
    fields = read_fields(part.text.strip("\n")) if part is not None else NO_FIELDS
    quoted = notices.quoted
    if part is None:
        if not ("x-hmxmroriginalrecipient" in quoted and _JMRP.search(mail.fields.get("subject"))):
            return None
        kind, reason = FeedbackKind.SPAM_COMPLAINT, "abuse"
        named = quoted.values("x-hmxmroriginalrecipient")
    else:
        feedback = re.match(r"[\w-]{0,40}", fields.get("feedback-type").lower())
        reason = feedback[0] if feedback else ""
        kind = _KINDS.get(reason, FeedbackKind.UNCLEAR)
        named = fields.values("original-rcpt-to", "removal-recipient") or quoted.values("to")
    addresses = {address.lower(): address for value in named for address in ADDRESS.findall(value[:2_000])}
    words = printable(next((p.text for p in mail.of_type("text/plain")), ""), MOST_WORDS)
    finding = NoticeMeaning(kind, reason or "unclear", words=words)
    found = tuple(Reported(RecipientNotice(address), finding) for address in list(addresses.values())[:MOST_RECIPIENTS])
    return _report(mail, kind, notices, found or (Reported(RecipientNotice(""), finding),))


_KINDS = {
    "abuse": FeedbackKind.SPAM_COMPLAINT,
    "fraud": FeedbackKind.SPAM_COMPLAINT,
    "opt-out": FeedbackKind.UNSUBSCRIBE,
    "opt-out-list": FeedbackKind.UNSUBSCRIBE,
}
_JMRP = lazy_pattern(r"complaint about message from", re.IGNORECASE)


# --- what is no report ------------------------------------------------------------------------------------------------

_SERVER = lazy_pattern(r"mailer-?daemon|postmaster|mail delivery|post_?master|mail administrator", re.IGNORECASE)
_BOUNCED = lazy_pattern(
    r"undeliver|returned (?:e-?mail|to sender)|(?:mail|message|delivery) (?:delivery )?(?:system )?"
    r"(?:status|fail|error|problem|delay|report|notification)|failure (?:notice|delivery)|failed (?:mail|delivery)"
    r"|non[- ]?delivery|could not be delivered|delivery (?:has )?failed|rejected|bounce|nondeliverable|unzustellbar"
    r"|non remis|エラー|配信",
    re.IGNORECASE,
)
_AWAY = lazy_pattern(
    r"\bauto(?:matic(?:ally)?|mated)?[ :_-]{0,2}(?:reply|respon[sd]\w*|generated reply|antwort)"
    r"|\bout of (?:the )?office|\bvacation\b|\baway (?:from|until)|\bon (?:holiday|leave|vacation)"
    r"|\babwesen|\babsence\b|\babsent\b|\bfuera de (?:la )?oficina|"
    r"\bassente\b|\bfuori ufficio|\bafwezig|\bautorespon|自動返信|自动回复",
    re.IGNORECASE,
)
_UNSUBSCRIBE = lazy_pattern(
    r"^\s*(?:(?:re|aw|fwd?):\s*)?(?:please )?(?:unsubscribe|opt[- ]?out|remove me|abmelden|d[eé]sabonn\w*)\b", re.I
)


def _is_auto_reply(mail: Mail) -> bool:
    """Whether a person's mailbox answered by itself (RFC 3834), and no server about a message.

    Bounces of some servers say `Auto-Submitted: auto-replied`, too: what reports a delivery is looked for first.
    """
    fields = mail.fields
    if next(mail.of_type("message/delivery-status"), None) is not None or "x-failed-recipients" in fields:
        return False
    subject = decoded(fields.get("subject"))
    if _is_from_a_server(mail) or _BOUNCED.search(subject):
        return False
    auto = fields.get("auto-submitted").strip().lower()
    names = {name for name, _ in fields.all}
    return (
        auto.startswith("auto-replied")
        or bool(names & {"x-autoreply", "x-autorespond", "x-autoresponse"})
        or fields.get("x-apple-action").upper() == "VACATION"
        or fields.get("precedence").lower() == "auto_reply"
        or bool(_AWAY.search(subject))
    )


def _is_unsubscribe(mail: Mail) -> bool:
    """Whether its subject asks to be removed from the list, in a mail that reports no delivery."""
    subject = decoded(mail.fields.get("subject"))
    return not _is_from_a_server(mail) and _UNSUBSCRIBE.match(subject) is not None


def _is_from_a_server(mail: Mail) -> bool:
    author = decoded(" ".join(mail.fields.values("from", "sender")))
    return _SERVER.search(author) is not None or mail.fields.get("return-path").strip() == "<MAILER-DAEMON>"


def _says_so(mail: Mail) -> bool:
    """Whether it reports a delivery in its subject, by a field, or as a notification of a service."""
    fields = mail.fields
    report_type = parameter(fields.get("content-type"), "report-type").lower()
    return (
        _BOUNCED.search(decoded(fields.get("subject"))) is not None
        or "x-failed-recipients" in fields
        or report_type == "delivery-status"
        or any(part.text.lstrip().startswith("{") for part in mail.parts[:1])
        or fields.get("return-path").strip() == "<>"
    )


# --- fields -----------------------------------------------------------------------------------------------------------

_ID = lazy_pattern(r"<[^\s<>]{1,500}>")
_ID_IN_TEXT = lazy_pattern(r"message-id:\s{0,5}(<[^\s<>@]{1,250}@[^\s<>]{1,250}>)", re.IGNORECASE)
_OUR_ID_IN_TEXT = lazy_pattern(rf"{OUR_HEADER}:[ \t]{{0,5}}([A-Za-z0-9.=-]{{8,100}})", re.IGNORECASE)
_FOR = lazy_pattern(r"\bfor\s+<?([^\s<>;]{1,254}@[^\s<>;]{1,254})>?")


def _written_to(fields: Fields) -> tuple[str, ...]:
    values = fields.values(
        "delivered-to", "x-original-to", "envelope-to", "x-envelope-to", "x-delivered-to", "to", "cc"
    )
    found = [address for value in values for address in ADDRESS.findall(value[:5_000])]
    found += [each for value in fields.values("received") for each in _FOR.findall(value)]
    return _unique(found)


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value.strip() for value in values))[:_MOST_IDS]


def _message_id(value: str) -> str:
    found = _ID.search(value)
    return found[0] if found else ""


def _address(value: str) -> str:
    found = ADDRESS.findall(value[:2_000])
    return found[-1] if found else ""


def _seconds(value: str) -> float | None:
    """The date of a mail, if it is one that a calendar has."""
    try:
        moment = parsedate_to_datetime(value[:200])
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return seconds if 0 < seconds < datetime(2200, 1, 1, tzinfo=UTC).timestamp() else None
