"""What a refusal is about, by its words: who or what it names, and whether it speaks of a limit.

The subject decides, not a single word: "the user you are trying to contact is receiving mail at a rate ..." is about
that mailbox, "message submission rate for this client ..." is about us.  Of four layers the first that fits decides:
what names the recipient, what speaks of a limit on sending (`lexicon`), what names us (`subjects`), and a policy that
names nobody.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from bulkmail.model import lexicon, subjects
from bulkmail.model.pattern import lazy_pattern
from bulkmail.model.reply import Reply, Stage
from bulkmail.model.subjects import Subject


class Span(Enum):
    """For how long a limit holds."""

    SHORT = "seconds or minutes"
    UNSAID = "unsaid"
    HOUR = "an hour"
    DAY = "a day or longer"


class Meaning(NamedTuple):
    """What a refusal says.  `span` is that of a limit on sending, None where no such limit is spoken of."""

    subject: Subject
    span: Span | None = None


_LOGIN_CODES = frozenset({530, 534, 535, 538})  # RFC 4954 §6
_AFTER_RECIPIENT = frozenset({Stage.RCPT, Stage.DATA, Stage.BODY, Stage.END})


def read(reply: Reply) -> Meaning:
    """What `reply`, a refusal, is about."""
    if reply.code in _LOGIN_CODES:
        return Meaning(Subject.LOGIN)
    whole = _reason(plain(reply.text))
    text = lexicon.ADVICE.compiled.sub("", whole)
    may_name_recipient = reply.stage in _AFTER_RECIPIENT
    if reply.stage is not Stage.RCPT and not reply.enhanced:  # the recipient was taken before, or is not named yet
        text = subjects.OWN_MAILBOX.compiled.sub(" own mailbox ", text)
        text = subjects.FOR_MAILBOX.compiled.sub(" for own mailbox", text)
        whole = subjects.OWN_MAILBOX.compiled.sub(" own mailbox ", whole)
    if (framed := _framed(text)) is not None:
        return Meaning(framed)
    if may_name_recipient and _is_recipients_alone(text, reply):
        return Meaning(Subject.RECIPIENT)
    is_recipients = may_name_recipient and bool(
        lexicon.RECIPIENT.search(text) or lexicon.RECIPIENT_CODE.fullmatch(reply.enhanced)
    )
    is_theirs = is_recipients and not lexicon.OURS.search(text)
    if not is_theirs and (span := _limit(whole, stage=reply.stage)) is not None:
        return Meaning(Subject.SENDING, span)
    if is_recipients and not _is_ours_all_the_same(text, reply):
        return Meaning(Subject.RECIPIENT)
    subject = _named(whole, reply)
    if subject is Subject.UNKNOWN and may_name_recipient:
        return Meaning(_unstated(text, reply, names_address="ipaddr" in whole))
    return Meaning(subject)


def _reason(text: str) -> str:
    """What of `text` is this server's own: without the words for a code, another's reply and what went well."""
    for words in (lexicon.STANDARD, lexicon.QUOTED, lexicon.PRAISE):
        text = words.compiled.sub("", text)
    return text


def _framed(text: str) -> Subject | None:
    """Who of us the words behind "recipient address rejected:" name; None where they name the recipient or nobody."""
    if (frame := lexicon.FRAME.search(text)) is None:
        return None
    words = text[frame.end() :]
    if lexicon.RECIPIENT_ALONE.search(text) or lexicon.RECIPIENT_HEAD.search(words) or lexicon.RECIPIENT.search(words):
        return None
    return next((subject for subject, named in subjects.NAMED if named.search(words) and subject in _FRAMED), None)


_FRAMED = frozenset(
    {Subject.AUTHENTICATION, Subject.BLOCK_LIST, Subject.CLIENT, Subject.LOGIN, Subject.RELAYING}
)  # "sender not allowed" there may be the recipient's wish


def _is_recipients_alone(text: str, reply: Reply) -> bool:
    """Whether this can be said of a recipient only."""
    if lexicon.RECIPIENT_RAW.search(reply.text):
        return True
    if lexicon.RECIPIENT_ALONE.search(text) and not lexicon.OWN_LIMIT.search(text):
        return True
    head, ours = lexicon.RECIPIENT_HEAD.search(text), lexicon.SENDER_ITSELF.search(text)
    if head is not None or ours is not None:  # what is said first decides
        return ours is None or (head is not None and head.start() < ours.start())
    if _has_mailbox_code(text, reply) and not lexicon.OF_SENDING.search(text):
        return True
    if reply.stage is not Stage.RCPT or not lexicon.RECIPIENT_HEAD_UNLESS_SENDING.search(text):
        return False
    return reply.enhanced.endswith(".2.1") or not lexicon.SENDING.search(text)


def _has_mailbox_code(text: str, reply: Reply) -> bool:
    """Whether the enhanced code is that of a mailbox, or of a recipient whose address the words name."""
    if reply.stage is Stage.RCPT and lexicon.MAILBOX_CODE.fullmatch(reply.enhanced):
        return True
    return bool(lexicon.RECIPIENT_CODE.fullmatch(reply.enhanced) and lexicon.FOR_ADDRESS.search(text))


def _is_ours_all_the_same(text: str, reply: Reply) -> bool:
    """Whether `text`, which has words or a code of the recipient's, is about us."""
    if lexicon.SENDER_ITSELF.search(text) or reply.enhanced[1:] in subjects.CODES:
        return True
    relaying = lexicon.RELAY_ITSELF.search(text)
    state = lexicon.RECIPIENT_STATE.search(text)
    return relaying is not None and (state is None or relaying.start() < state.start())


def _unstated(text: str, reply: Reply, *, names_address: bool) -> Subject:
    """Whether a policy refuses (RFC 3463 §3.8: X.7.*), or hints at us, and names neither recipient nor content."""
    is_policy = reply.enhanced.startswith(".7.", 1) or lexicon.POLICY.search(text) is not None
    is_account = reply.stage is not Stage.RCPT and "account" in text
    is_hint = is_account or names_address or lexicon.HINTS_AT_US.search(text) is not None
    other = lexicon.NAMES_SOMEBODY if reply.stage is Stage.RCPT else lexicon.NAMES_CONTENT
    if not (is_policy or is_hint) or other.search(text) or lexicon.NAMES_RECIPIENT.search(text):
        return Subject.UNKNOWN
    return Subject.HINTED if is_hint else Subject.UNSTATED


def _named(text: str, reply: Reply) -> Subject:
    if (subject := subjects.CODES.get(reply.enhanced[1:])) is not None:
        return subject
    layers = [subjects.NAMED]
    if subjects.REFUSED.search(text):
        layers.append(subjects.NAMED_WITH_REFUSAL)
    for subject, pattern in (entry for layer in layers for entry in layer):
        if pattern.search(text):
            return subject
    if reply.stage is not Stage.RCPT and ("own mailbox" in text or subjects.OWN_MAILBOX.search(text)):
        return Subject.ACCOUNT
    return Subject.UNKNOWN


def _limit(text: str, *, stage: Stage) -> Span | None:
    """For how long a limit on sending holds that `text` speaks of; None when it speaks of none."""
    text = lexicon.OTHER_LIMITS.compiled.sub(" ; ", text)
    span = _span(text)
    is_ours = bool(lexicon.OURS.search(text))
    if span is not Span.HOUR and lexicon.DATE.search(text):
        span = Span.DAY
    if lexicon.RATE.search(text) or lexicon.TOO_MUCH.search(text):
        return span or Span.SHORT
    names_limit = bool(lexicon.LIMIT.search(text))
    is_spent = bool(lexicon.SPENT.search(text))
    # A bare "quota exceeded" may be a mailbox's, unless nobody is named yet.
    is_sending = is_ours or span is not None or stage not in _AFTER_RECIPIENT or bool(lexicon.BARE_LIMIT.search(text))
    if (names_limit and is_spent and is_sending) or _is_per_time(text):
        if span is None:
            return Span.UNSAID if lexicon.USED_UP.search(text) else Span.SHORT
        return span
    return None


def _is_per_time(text: str) -> bool:
    """Whether `text` says how many messages a time allows."""
    return bool(lexicon.PER_TIME.search(text) and (lexicon.ALLOWED.search(text) or lexicon.SPENT.search(text)))


def _span(text: str) -> Span | None:
    if lexicon.HOUR.search(text) and not lexicon.DAY_FIRST.search(text):
        return Span.HOUR
    if lexicon.DAY.search(text):
        return Span.DAY
    return Span.SHORT if lexicon.SHORT.search(text) else None


# --- the text, made plain ---------------------------------------------------------------------------------------------

_URL = lazy_pattern(r"<?\b(?:https?://|www\.)\S+")
_ADDRESS = lazy_pattern(r"<[^<>\s]*@[^<>\s]*>|[\w.+=-]+@[\w.-]+")
_IP = lazy_pattern(r"\[?\b\d{1,3}(?:\.\d{1,3}){3}\b\]?|\[?\b[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){3,7}\b\]?", re.IGNORECASE)
_HOST = lazy_pattern(r"<?\b(?:[a-z0-9_](?:[a-z0-9_-]{0,62})\.)+[a-z][a-z0-9-]*[a-z0-9]\b>?", re.IGNORECASE)
_EXCEPTIONS = lazy_pattern(r"\b(?:STOREDRV|RESOLVER|SMTPSEND)[.\w:]*")
_HUMPS = lazy_pattern(r"(?<=[a-z])(?=[A-Z][a-z])")
_NOT = lazy_pattern(r"\b(can|is|are|was|were|do|does|did|has|have|would|could|should|may|must)n[’']t\b")
_SIGNS = lazy_pattern(r"[-_“”\"’'`*#()\[\]{}]+")


def plain(text: str) -> str:
    """`text` in small letters and plain words: `@` for an address, `ipaddr`, `~` for a host name, and no links.

    Of a link or a host name the name of a block list is left.

    `SendAsDeniedException` becomes four words, `isn't` two, and a hyphen or an underscore a space.
    """
    text = _ADDRESS.sub(" @ ", _URL.sub(lambda found: f" {_list_name(found[0])} ", text))
    text = _IP.sub(" ipaddr ", text)
    text = _EXCEPTIONS.sub(lambda found: found[0].replace(".", " ").replace(":", " "), text)
    text = _HOST.sub(lambda found: f" ~ {_list_name(found[0])} ", text)
    text = _HUMPS.sub(" ", text).lower()
    text = (
        _NOT.sub(r"\1 not", text).replace("can't", "can not").replace("won't", "will not").replace("cannot", "can not")
    )
    text = re.sub(r"\be-mail", "email", text)
    text = re.sub(r"[’']s\b", " s", text)
    return " ".join(_SIGNS.sub(" ", text).split())


def _list_name(host: str) -> str:
    """The part of a host name by which a block list is known."""
    found = lexicon.LIST_NAME.search(host.lower())
    return found[0] if found else ""
