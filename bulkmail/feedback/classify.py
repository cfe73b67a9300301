"""What a report means: hard, soft, blocked, delayed, delivered or unclear, by words first and digits after them."""

from __future__ import annotations

import re
import tomllib
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from bulkmail.feedback.notice import RecipientNotice
from bulkmail.model import verdict
from bulkmail.model.feedback_event import MOST_WORDS, FeedbackKind
from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.model.outcome import Outcome, Reason, Stage, make_reply
from bulkmail.model.wording import plain
from bulkmail.text import printable

_LONGEST = 4_000  # characters of a text that are held against the table


class BounceReason(StrEnum):
    """Why a message came back, in the word that reports and `bulkmail suppress` show."""

    UNKNOWN_USER = "unknown-user"
    UNKNOWN_DOMAIN = "unknown-domain"
    NULL_MX = "null-mx"
    MOVED = "moved"
    DISABLED = "disabled"
    MAILBOX_FULL = "mailbox-full"
    TOO_BIG = "too-big"
    MALFORMED = "malformed"
    NOT_NOW = "not-now"
    DNS = "dns"
    NETWORK = "network"
    EXPIRED = "expired"
    DELAYED = "delayed"
    REFUSED = "refused"
    POLICY = "policy"
    CONTENT = "content"
    SPAM = "spam"
    BLOCK_LIST = "block-list"
    AUTHENTICATION = "authentication"
    REVERSE_DNS = "reverse-dns"
    RELAYING = "relaying"
    OUR_HOST = "our-host"
    OUR_SENDER = "our-sender"
    DELIVERED = "delivered"
    UNCLEAR = "unclear"


class BounceVerdict(NamedTuple):
    """What a rule of `data/bounces.toml` says.  A rule without a text goes by the digits alone."""

    kind: FeedbackKind
    reason: BounceReason


BounceRule = verdict.Rule[BounceVerdict]


@dataclass(frozen=True, slots=True)
class NoticeMeaning:
    """What one notice means.  `code` and `enhanced` are the digits that were found, `words` is safe to print."""

    kind: FeedbackKind
    reason: str
    code: int | None = None
    enhanced: str = ""
    words: str = ""


def _table(name: str, entries: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads(files("bulkmail").joinpath("data", name).read_text("utf-8"))[entries]
    return found


@cache
def provider_rules() -> tuple[verdict.ReplyRule, ...]:
    """What single providers say in words of their own: the table by which replies in our own sessions are judged."""
    return tuple(map(verdict.rule_of, _table("replies.toml", "reply")))


@cache
def rules() -> tuple[BounceRule, ...]:
    """The table, in its order."""
    return tuple(
        verdict.Rule(
            codes=("",),
            verdict=BounceVerdict(FeedbackKind(table["kind"]), BounceReason(table["reason"])),
            text=_words(table.get("text", "")),
            but_not=_words(table.get("but_not", "")),
            enhanced=_codes(table.get("enhanced", "")),
            unless=_codes(table.get("unless", "")),
            examples=tuple(table["examples"]),
        )
        for table in _table("bounces.toml", "bounce")
    )


def _words(text: str | list[str]) -> re.Pattern[str] | None:
    return re.compile(text if isinstance(text, str) else "|".join(text)) if text else None


def _codes(text: str) -> tuple[re.Pattern[str], ...]:
    return tuple(map(verdict.enhanced_pattern, text.split()))


def classify(notice: RecipientNotice, text: str = "") -> NoticeMeaning:
    """What `notice` means; `text` is the whole notification, asked last."""
    code, enhanced = _digits(notice.diagnostic)
    reported = notice.diagnostic or notice.text
    if not notice.diagnostic:
        code, enhanced = _digits(notice.text)
    enhanced = _best_enhanced(enhanced, notice.status)
    words = printable(_shown(reported) or _shown(text), MOST_WORDS)
    if notice.action in ("delivered", "relayed", "expanded") or notice.status.startswith("2"):
        return NoticeMeaning(FeedbackKind.DELIVERED, BounceReason.DELIVERED, code, enhanced, words)
    whole = f"{notice.diagnostic}\n{notice.text}"
    kind, reason = _meaning(notice, text, code, enhanced)
    if kind is FeedbackKind.HARD and _BEFORE_RCPT.search(reported):
        kind, reason = FeedbackKind.BLOCKED, BounceReason.OUR_SENDER  # no recipient was named yet
    if reason is BounceReason.UNKNOWN_USER and not enhanced.startswith("5.1.") and _AFTER_CONTENT.search(whole):
        kind, reason = FeedbackKind.SOFT, BounceReason.REFUSED  # it took the recipient: a filter may say so, too
    if reason is BounceReason.UNKNOWN_DOMAIN and enhanced.startswith("4"):
        kind, reason = FeedbackKind.SOFT, BounceReason.DNS
    is_waiting = not notice.action and kind is not FeedbackKind.HARD and _STILL_TRYING.search(notice.text or text)
    if notice.action == "delayed" or is_waiting:
        return NoticeMeaning(FeedbackKind.DELAYED, reason or BounceReason.DELAYED, code, enhanced, words)
    return NoticeMeaning(kind, reason, code, enhanced, words)


def _meaning(notice: RecipientNotice, text: str, code: int | None, enhanced: str) -> tuple[FeedbackKind, BounceReason]:
    said = notice.diagnostic or notice.text
    if said and (found := by_words(said, enhanced)) is not None:
        return found
    for rule in rules():
        if rule.text is None and rule.verdict is not None and rule.fits_words("", enhanced):
            # The server may contradict the program that wrote the status.
            if rule.verdict.kind is FeedbackKind.HARD and code in _OF_STORAGE:
                return FeedbackKind.SOFT, BounceReason.MAILBOX_FULL
            return rule.verdict
    if said and (code or enhanced) and (judged := _by_judge(said, code, enhanced)) is not None:
        return judged
    for reported in (notice.text, text):
        if reported and (found := by_words(reported, enhanced)) is not None:
            return found
    if enhanced.startswith("4") or (code is not None and 400 <= code < 500):
        return FeedbackKind.SOFT, BounceReason.NOT_NOW
    if enhanced.startswith("5") or code or notice.action:
        return FeedbackKind.SOFT, BounceReason.REFUSED
    return FeedbackKind.UNCLEAR, BounceReason.UNCLEAR


def by_words(words: str, enhanced: str = "") -> BounceVerdict | None:
    """What the first entry of the table says whose text, and whose digits where it has any, fit."""
    text = _SIGNS.sub(" ", _SENTENCE_END.sub(" | ", plain(words[:_LONGEST])))
    return next((rule.verdict for rule in rules() if rule.text is not None and rule.fits_words(text, enhanced)), None)


_SENTENCE_END = lazy_pattern(r"[.;!?]+(?=\s|$)")
_SIGNS = lazy_pattern(r"(?:[^\w@~/.'|]|[.'](?!\w))+")  # a word and the next, whatever stands between them

_KINDS = {
    Reason.UNKNOWN_USER: (FeedbackKind.HARD, BounceReason.UNKNOWN_USER),
    Reason.MOVED: (FeedbackKind.HARD, BounceReason.MOVED),
    Reason.ADDRESS_REFUSED: (FeedbackKind.SOFT, BounceReason.REFUSED),
    Reason.MAILBOX_FULL: (FeedbackKind.SOFT, BounceReason.MAILBOX_FULL),
    Reason.GREYLISTED: (FeedbackKind.SOFT, BounceReason.NOT_NOW),
    Reason.TOO_BIG: (FeedbackKind.SOFT, BounceReason.TOO_BIG),
    Reason.RECIPIENT_RULE: (FeedbackKind.BLOCKED, BounceReason.POLICY),
    Reason.POLICY: (FeedbackKind.BLOCKED, BounceReason.POLICY),
    Reason.CONTENT_REFUSED: (FeedbackKind.BLOCKED, BounceReason.CONTENT),
    Reason.BLOCK_LISTED: (FeedbackKind.BLOCKED, BounceReason.BLOCK_LIST),
    Reason.UNAUTHENTICATED: (FeedbackKind.BLOCKED, BounceReason.AUTHENTICATION),
    Reason.CLIENT_REFUSED: (FeedbackKind.BLOCKED, BounceReason.OUR_HOST),
    Reason.SENDER_REFUSED: (FeedbackKind.BLOCKED, BounceReason.OUR_SENDER),
    Reason.SENDER_BLOCKED: (FeedbackKind.BLOCKED, BounceReason.OUR_SENDER),
    Reason.NOT_VERIFIED: (FeedbackKind.BLOCKED, BounceReason.OUR_SENDER),
    Reason.ACCOUNT_REFUSED: (FeedbackKind.BLOCKED, BounceReason.OUR_SENDER),
    Reason.RELAYING_DENIED: (FeedbackKind.BLOCKED, BounceReason.RELAYING),
    Reason.LOGIN_REQUIRED: (FeedbackKind.BLOCKED, BounceReason.RELAYING),
    Reason.THROTTLED: (FeedbackKind.SOFT, BounceReason.NOT_NOW),
    Reason.QUOTA: (FeedbackKind.SOFT, BounceReason.NOT_NOW),
}


def _by_judge(reported: str, code: int | None, enhanced: str) -> tuple[FeedbackKind, BounceReason] | None:
    """What the judge of SMTP replies says; None where only its digits spoke."""
    digits = code if code is not None and code >= 400 else 400 if enhanced.startswith("4") else 550
    stage = Stage.END if _AT_END.search(reported) else Stage.RCPT
    reply = make_reply(stage, digits, [f"{enhanced} {_shown(reported)}".strip()])
    judged = verdict.judge(reply, provider_rules())
    return None if judged.outcome is Outcome.ACCEPTED else _KINDS.get(judged.reason)


_OF_STORAGE = frozenset({452, 552})  # RFC 5321 §4.2.3: storage, quota
_STILL_TRYING = lazy_pattern(
    r"not yet been delivered|warning message only|will (?:continue|keep) (?:to )?(?:try|trying|attempt)|still trying"
    r"|attempts? will continue|will be retried|do not need to resend|no need to resend|has been (?:delayed|postponed)",
    re.IGNORECASE,
)
_BEFORE_RCPT = lazy_pattern(
    r"after mail from|our mail from|reply to (?:mail from|helo|ehlo)|refused to talk to me|after initial connection"
    r"|\[mail_?from\]|after (?:helo|ehlo)|>>> (?:mail from|helo|ehlo)[^\n]{0,200}\n\s{0,10}<<< [45]",
    re.IGNORECASE,
)
_AFTER_CONTENT = lazy_pattern(
    r"in reply to end of data|after end of data|>>> DATA\s+<<< 5\d\d [^\n]{0,500}\n5\d\d 5\.0\.0 ", re.IGNORECASE
)
_AT_END = lazy_pattern(r"end of data|final data|after i sent the message|reply to data", re.IGNORECASE)
_CODE = lazy_pattern(r"(?<![\d.\w-])([245][0-5]\d)(?=[ -]|$)(?![ -]?\d{1,3}\.\d{1,3}\.\d{1,3}\.\d)")
_ENHANCED = lazy_pattern(r"(?<![\d.])#?([245]\.\d\.\d{1,3})(?![\d]|\.\d)")


def _digits(text: str) -> tuple[int | None, str]:
    """The reply code and the enhanced code in `text`; of several, the first that refuses."""
    codes = [int(found) for found in _CODE.findall(text[:_LONGEST])]
    refusing = [code for code in codes if code >= 400 and code != 503]
    enhanced: list[str] = _ENHANCED.findall(text[:_LONGEST])
    best = next((each for each in enhanced if each[0] in "45" and not each.endswith(".0.0") and each != "5.5.1"), "")
    return next(iter(refusing or codes), None), best or next(iter(enhanced), "")


def _best_enhanced(said: str, status: str) -> str:
    """What the server said, unless it said nothing and the program that writes the report knows more."""
    if said and not said.endswith(".0.0"):
        return said
    return status or said


def _shown(text: str) -> str:
    return " ".join(text.split())
