"""Whom a report is about, and in which words: standard fields first (RFC 3464), then what single programs write.

Nothing here says what the words mean: see `classify`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from json import JSONDecoder
from typing import TYPE_CHECKING

from bulkmail.feedback.mime import NO_FIELDS, Fields, Mail, decoded, read_fields
from bulkmail.model.lazy import dataclass, lazy_pattern

if TYPE_CHECKING:
    from email.message import Message

MOST_RECIPIENTS = 100
"""Of one report; a mail that names more is made to cost time."""

_MOST_TEXT = 40_000  # characters of a notification that are searched
_ADDRESS = r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~\u0080-\uffff-]{1,100}@[A-Za-z0-9\u0080-\uffff](?:[\w.-]{0,200}\w)?"
ADDRESS = _ANY = lazy_pattern(rf"(?<![\w.@+=/-])(?:\"[^\"\s<>]{{1,64}}\"@[\w.-]{{1,200}}\w|{_ADDRESS})")
_WHOLE = lazy_pattern(rf"(?:\"[^\"\s<>]{{1,64}}\"@[\w.-]{{1,200}}\w|{_ADDRESS})")

# A line that is about one recipient: the address stands first, or behind what names it.
_LEADING = lazy_pattern(
    r"^[\s*><·•-]{0,40}(?:\d{3}[ -](?:\d\.\d\.\d{1,3} )?)?(?:(?:rfc822;|smtp:|to:"
    r"|(?:failed |final |original )?(?:recipient|addressee)s?(?: address)?\s{0,3}:"
    r"|address:|unknown user:?|invalid recipient:?|user:|e-?mail:|mailbox:|rcpt to:|error-for:|final-recipient:|宛先:?)"
    r"[\s\[<'\"]{0,5}(?:rfc822;\s?)?)?[\s\[(<'\"]{0,5}$",
    re.IGNORECASE,
)
_AFTER_LEADING = lazy_pattern(
    r"^[>\]\"')]{0,3}(?:$|\s*$|\s*[:;,]|\.\.\. |\s+(?:on|at) |\s*\(|\s+-|\s{2,}|\t| \.\.\.|\s+\[)"
)
_SUMMARY_TO = lazy_pattern(r"[\s*]{0,40}to:", re.IGNORECASE)
_IN_RCPT = lazy_pattern(
    r"(?:rcpt to|recipient|deliver(?:ed)?(?: message)? to|delivery to|for|to|user)[\s:;]{0,3}[<\[(\"']{0,3}$", re.I
)
_NOT_A_RECIPIENT = lazy_pattern(
    r"(?:mail from|message-?id|return-path|envelope-from|sender|from|\bid|reply-to|contact|support|helpdesk|"
    r"(?:^|\s)by|mailto)[\s:=;]{0,3}(?:rfc822;)?[<\[(\"']{0,3}$",
    re.IGNORECASE,
)
_SERVICE = lazy_pattern(r"(?:postmaster|mailer-?daemon|abuse|support|help|noreply|no-reply|mailadmin)@", re.IGNORECASE)

_SUMMARY = {"received", "return-path", "message-id", "mime-version", "x-mailer", "content-type", "delivered-to"}
_HEADER_LINE = lazy_pattern(r"[A-Za-z][A-Za-z0-9-]{1,40}:(?!//)")
_MARKER = lazy_pattern(
    r"^[ \t>*]{0,10}(?:[-=+*_]{2,}.{0,60}\b(?:original|copy of|below|returned|undelivered|headers?|unsent"
    r"|included|your message|message follows|message body|bounced)\b.{0,80}"
    r"|[^\n]{0,60}\b(?:original message"
    r" (?:headers?|follows)|message header"
    r"|a copy of (?:the|your) (?:original )?message)[^\n]{0,60}|received: (?:from|by|\().{0,300})$",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class RecipientNotice:
    """What a report says about one recipient.

    `address` is the one that was written to as far as the report tells, `other` what it became on the way (both may be
    empty).  `action` and `status` are those of RFC 3464 §2.3, in lower case, or empty.  `diagnostic` are the server's
    words, `text` what the report says to people about it.
    """

    address: str
    other: str = ""
    action: str = ""
    status: str = ""
    diagnostic: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Notices:
    """`text` is the whole notification without the message it quotes; `quoted` are that message's header fields.

    `envelope_id` is Original-Envelope-Id (RFC 3464 §2.2.1).
    """

    recipients: tuple[RecipientNotice, ...]
    text: str
    quoted: Fields
    envelope_id: str = ""

    @property
    def is_standard(self) -> bool:
        """Whether any of it came from fields of RFC 3464."""
        return any(notice.action or notice.status for notice in self.recipients)


def read_notices(mail: Mail) -> Notices:
    """Whom `mail` is about.  Never raises."""
    if (notified := read_ses(mail)) is not None:
        return notified
    text, quoted = _reported(mail)
    standard, envelope_id = _standard(mail)
    own = _own(mail, quoted)
    if standard:
        found = [_with_text(notice, text, alone=len(standard) == 1) for notice in standard]
    else:
        found = _in_words(mail, text, quoted, own)
    subject = decoded(mail.fields.get("subject"))[:500]
    return Notices(tuple(found[:MOST_RECIPIENTS]), f"{text}\n{subject}", quoted, envelope_id)


# --- notifications of Amazon SES as mail ------------------------------------------------------------------------------

_SES = {"Bounce": ("bounce", "bouncedRecipients"), "Complaint": ("complaint", "complainedRecipients")}


def read_ses(mail: Mail) -> Notices | None:
    """What a notification in JSON says that came as mail; None for any other mail."""
    text = mail.parts[0].text.strip() if mail.parts else ""
    if not text.startswith("{") or "Type" not in text[:200] or '"mail"' not in text:
        return None
    try:
        reported = JSONDecoder().raw_decode(text)[0]
        kind = reported.get("notificationType") or reported.get("eventType")
        quoted = _ses_fields(reported["mail"])
        if kind == "Delivery":
            found = [
                RecipientNotice(_clean(str(each)), action="delivered") for each in reported["delivery"]["recipients"]
            ]
        elif kind in _SES:
            name, recipients = _SES[kind]
            found = [_ses_notice(each, is_complaint=kind == "Complaint") for each in reported[name][recipients]]
        else:
            return None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return Notices(tuple(found[:MOST_RECIPIENTS]), "", quoted)


def _ses_notice(reported: dict[str, object], *, is_complaint: bool) -> RecipientNotice:
    return RecipientNotice(
        address=_clean(str(reported.get("emailAddress", ""))[:320]),
        action=COMPLAINT if is_complaint else str(reported.get("action", "failed"))[:40].lower(),
        status=str(reported.get("status", ""))[:12],
        diagnostic=str(reported.get("diagnosticCode", ""))[:2_000].removeprefix("smtp;").strip(),
    )


def _ses_fields(reported: dict[str, object]) -> Fields:
    """The headers of our message that the notification has, if that is switched on."""
    headers = reported.get("headers")
    kept = headers[:200] if isinstance(headers, list) else []
    return Fields(tuple((str(each["name"])[:100].lower(), str(each["value"])[:2_000]) for each in kept))


COMPLAINT = "complaint"
"""`RecipientNotice.action` of a spam complaint, which RFC 3464 has no word for."""

# --- the notification and what it quotes ------------------------------------------------------------------------------


def _reported(mail: Mail) -> tuple[str, Fields]:
    """What the report says itself, and the header of the message that it quotes, the last of those that it has."""
    quoted = NO_FIELDS
    texts: list[str] = []
    for part in mail.of_type(
        "message/rfc822", "text/rfc822-headers", "message/global", "message/global-headers", "message/rfc822-headers"
    ):
        fields = read_fields(part.text.lstrip("\n").partition("\n\n")[0])
        if fields.all:
            quoted = fields
    plain = [part.text for part in mail.of_type("text/plain", "text") if part.text.strip()]
    texts = plain or [part.text for part in mail.of_type("text/html")]
    reported: list[str] = []
    for text in texts:
        own, rest = _split_quote(text)
        reported.append(own)
        if rest and not quoted.all:
            quoted = rest
    text = "\n".join(reported)
    return (text if "@" in text else "\n".join([text, *texts]))[:_MOST_TEXT], quoted


def _split_quote(text: str) -> tuple[str, Fields]:
    """`text` before the header of a quoted message, and that header."""
    lines = text[: 4 * _MOST_TEXT].split("\n")
    start = 0
    while start < len(lines):
        stripped = lines[start].lstrip("> ")
        if not _HEADER_LINE.match(stripped):
            start += 1
            continue
        end, names = start, set[str]()
        while end < len(lines) and (line := lines[end].lstrip("> " if lines[start].startswith(">") else "")):
            if _HEADER_LINE.match(line):
                names.add(line.partition(":")[0].lower())
            elif not lines[end][:1].isspace():
                break
            end += 1
        if len(names) >= 3 and names & _SUMMARY and names & {"from", "to", "subject", "date", "message-id"}:
            quote = "\n".join(line.lstrip("> ") if line.startswith(">") else line for line in lines[start:end])
            return _before_marker("\n".join(lines[:start])), read_fields(quote)
        start = max(end, start + 1)
    return _before_marker(text), NO_FIELDS


def _before_marker(text: str) -> str:
    for found in _MARKER.finditer(text[:_MOST_TEXT]):
        before = text[: found.start()]
        if _ANY.search(before):
            return before
    return text


# --- fields of RFC 3464 -----------------------------------------------------------------------------------------------

_FIELD_GROUP = lazy_pattern(
    r"^(?:original|final)-recipient:[^\n]{0,1000}(?:\n(?:[\w-]{1,40}:|[ \t]+\S)[^\n]{0,1000}){0,20}",
    re.IGNORECASE | re.MULTILINE,
)
_PER_RECIPIENT = ("final-recipient", "original-recipient", "action", "x-actual-recipient")


def _standard(mail: Mail) -> tuple[list[RecipientNotice], str]:
    """The recipients that `message/delivery-status` names, or such fields in a text; and the envelope id."""
    blocks = [part.text for part in mail.of_type("message/delivery-status", "message/global-delivery-status")]
    if not blocks:
        texts = [part.text[: 4 * _MOST_TEXT] for part in mail.of_type("text/plain", "message/rfc822")]
        blocks = ["\n\n".join(_FIELD_GROUP.findall(re.sub(r"^> ?", "", text, flags=re.MULTILINE))) for text in texts]
    found: list[RecipientNotice] = []
    envelope_id = ""
    for block in blocks:
        for group in re.split(r"\n[ \t]*\n", block):
            fields = read_fields(group.strip("\n"))
            envelope_id = envelope_id or fields.get("original-envelope-id")
            if any(name in fields for name in _PER_RECIPIENT) and len(found) < MOST_RECIPIENTS:
                notice = _notice_of(fields)
                if notice.address or notice.other:
                    found.append(notice)
    return _merged(found), envelope_id


def _merged(found: Iterable[RecipientNotice]) -> list[RecipientNotice]:
    """One notice for each recipient: some programs write a group twice, the second time with more in it."""
    by_address: dict[str, RecipientNotice] = {}
    for notice in found:
        key = f"{notice.address} {notice.other}".lower()
        known = by_address.get(key)
        if known is None or (notice.diagnostic and not known.diagnostic):
            by_address[key] = notice
    return list(by_address.values())


def _notice_of(fields: Fields) -> RecipientNotice:
    final = _typed_address(fields.get("final-recipient")) or _typed_address(fields.get("x-actual-recipient"))
    original = _typed_address(fields.get("original-recipient"))
    diagnostic = " ".join(fields.values("diagnostic-code"))
    kind, semicolon, words = diagnostic.partition(";")
    if semicolon and re.fullmatch(r"\s*[\w-]{1,20}\s*", kind):
        diagnostic = words
    action = re.match(r"[a-z]*", fields.get("action").lower())
    status = re.search(r"\b[245]\.\d{1,3}\.\d{1,3}\b", fields.get("status"))
    return RecipientNotice(
        address=original or final,
        other=final if original and final != original else "",
        action=action[0] if action else "",
        status=status[0] if status else "",
        diagnostic=diagnostic.strip(),
    )


def _typed_address(value: str) -> str:
    """The address in `rfc822; ann@example.org`; empty for one that is none."""
    text = decoded(value).rpartition(";")[2] if ";" in value else value
    found = _ANY.search(text.replace("xtext;", "").strip().strip("<>"))
    return _clean(found[0]) if found else ""


# --- what programs write ----------------------------------------------------------------------------------------------


def _in_words(mail: Mail, text: str, quoted: Fields, own: set[str]) -> list[RecipientNotice]:
    named = [
        _clean(found)
        for value in mail.fields.values("x-failed-recipients", "x-failed-recipient")
        for found in _ANY.findall(value)
    ]
    if not named:
        named, is_sure = _addresses_in(text, own)
        if not is_sure:
            named = _by_flufl(mail, own | _message_ids(mail)) or named
    if not named:
        named = _quoted_recipients(quoted, own) or _addresses_in(text, set())[0]
    unique = list({address.lower(): address for address in named}.values())[:MOST_RECIPIENTS]
    has_expanded = "(expanded from:" in text
    notices = [RecipientNotice(address, _expanded_from(address, text) if has_expanded else "") for address in unique]
    return [_with_text(notice, text, alone=len(unique) == 1) for notice in notices]


def _expanded_from(address: str, text: str) -> str:
    """What Sendmail says that `address` was made of by an alias."""
    for found in _EXPANDED.finditer(text):
        if found[1].lower() == address.lower():
            return _clean(found[2])
    return ""


_EXPANDED = lazy_pattern(rf"({_ADDRESS})>?\s{{0,20}}\(expanded from:\s{{0,5}}<?({_ADDRESS})>?\)", re.IGNORECASE)


def _addresses_in(text: str, own: set[str]) -> tuple[list[str], bool]:
    """The recipients that `text` names, and whether lines of their own do.

    Else those that a summary of our message names, then those behind a word for it, then any.
    """
    tiers: dict[str, list[str]] = {"line": [], "summary": [], "first": [], "behind": [], "other": []}
    for line in text.split("\n"):
        if "@" not in line:
            continue
        for found in _ANY.finditer(line[:1_000]):
            address = _clean(found[0])
            before, after = line[: found.start()], line[found.end() :]
            if not _SERVICE.match(address) and address.lower() not in own and not _NOT_A_RECIPIENT.search(before):
                tiers[_tier(before, after)].append(address)
    if tiers["line"] or tiers["first"]:
        return tiers["line"] or tiers["first"], True
    return tiers["summary"] or tiers["behind"] or tiers["other"][:1], False


def _tier(before: str, after: str) -> str:
    if _LEADING.match(before) and _AFTER_LEADING.match(after):
        return "summary" if _SUMMARY_TO.match(before) else "line"
    if not before and after[:1].isspace():
        return "first"
    return "behind" if _IN_RCPT.search(before) else "other"


def _quoted_recipients(quoted: Fields, own: set[str]) -> list[str]:
    """Whom the quoted message went to, if that was one."""
    for names in (("x-original-to", "delivered-to", "envelope-to", "x-envelope-to"), ("to",)):
        found = {_clean(each).lower(): _clean(each) for value in quoted.values(*names) for each in _ANY.findall(value)}
        left = [address for key, address in found.items() if key not in own] or list(found.values())
        if len(left) == 1:
            return left
    return []


def _by_flufl(mail: Mail, own: set[str]) -> list[str]:
    """What the detectors of flufl.bounce find in the text parts, for the formats of single programs."""
    from email.message import Message

    all_failures = _detectors()
    message = Message()
    if "from" not in mail.fields:
        message["From"] = "unknown@invalid"  # one detector takes it for granted
    for name, value in mail.fields.all[:100]:
        if not name.startswith("content-"):
            message[name] = value[:1_000]
    message["Content-Type"] = "multipart/mixed" if len(mail.parts) > 1 else "text/plain"
    if len(mail.parts) > 1:
        for part in mail.parts[:10]:
            inner = Message()
            inner["Content-Type"] = part.content_type if part.content_type.startswith("text/") else "text/plain"
            inner.set_payload(_short_lines(part.text))
            message.attach(inner)
    else:
        message.set_payload(_short_lines(mail.parts[0].text if mail.parts else ""))
    try:
        temporary, permanent = all_failures(message)
    except Exception:  # detectors are many and old: one that stumbles has found nothing
        return []
    found = [raw.decode("utf-8", "replace") for raw in (*permanent, *temporary)]
    return [address for address in found if _WHOLE.fullmatch(address) and address.lower() not in own]


@cache
def _detectors() -> Callable[[Message], tuple[Iterable[bytes], Iterable[bytes]]]:
    """Those of flufl.bounce, whose logger would print a traceback for each hostile mail."""
    import logging

    from flufl.bounce import all_failures

    logger = logging.getLogger("flufl.bounce")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return all_failures


def _message_ids(mail: Mail) -> set[str]:
    """What looks like an address in a mail and is the name of a message."""
    found = _ID_FIELD.findall("\n".join(part.text for part in mail.parts)[: 4 * _MOST_TEXT])
    return {_clean(each).lower() for each in found}


_ID_FIELD = lazy_pattern(
    r"(?:message-?id|resent-message-id|\bid|in-reply-to|references)[:=\s]{1,3}<?([^\s<>]{1,250}@[^\s<>]{1,250})", re.I
)


def _short_lines(text: str) -> str:
    """Detectors look at each line with many patterns: a long one must not cost seconds."""
    return "\n".join(line[:500] for line in text[:_MOST_TEXT].split("\n")[:1_000])


def _own(mail: Mail, quoted: Fields) -> set[str]:
    """Our side's addresses in lower case, which a report names without being about them."""
    values = mail.fields.values("to", "delivered-to", "x-original-to", "envelope-to", "from", "reply-to", "return-path")
    values += quoted.values("from", "return-path", "sender", "reply-to", "errors-to")
    found = {_clean(address).lower() for value in values for address in _ANY.findall(value[:2_000])}
    return found - {
        _clean(address).lower() for value in quoted.values("to")[:1] for address in _ANY.findall(value[:2_000])
    }


def _with_text(notice: RecipientNotice, text: str, *, alone: bool) -> RecipientNotice:
    """`notice` with the lines that are about it; all of them where no other recipient is named."""
    if alone:
        return replace(notice, text=text.strip())
    lines = text.split("\n")
    wanted = {each.lower() for each in (notice.address, notice.other) if each}
    kept: list[str] = []
    takes = False
    for line in lines:
        named = {_clean(found).lower() for found in _ANY.findall(line[:1_000])} if "@" in line else set()
        if named & wanted:
            takes = True
        elif not line.strip() or named:
            takes = False
        if takes:
            kept.append(line)
    return replace(notice, text="\n".join(kept))


def _clean(address: str) -> str:
    return address.strip("<>'`").rstrip(".,:;").removeprefix("mailto:")
