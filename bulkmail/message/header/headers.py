"""Header fields as bytes: encoded (RFC 2047), folded (RFC 5322 §2.2.3), each ending in CRLF."""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Iterable, Sequence

from bulkmail.model.lazy import lazy_pattern
from bulkmail.model.recipient import Address

LONGEST_VALUE = 10_000  # characters; no header is longer, an attack may be
_PREFERRED_LINE = 78  # RFC 5322 §2.1.1
_ENCODED_LINE = 76  # RFC 2047 §2
_LONGEST_TOKEN = 900  # what stands alone on a line, after the field's name, stays under 998
_LONGEST_NAME = 50  # leaves room for an encoded word on the first line

# C0 but TAB, DEL, C1 (a text read in the wrong encoding has them), the two line separators, lone surrogates.
_FORBIDDEN = lazy_pattern("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_CALLED = {
    "\x00": "a NUL",
    "\n": "a line feed",
    "\r": "a carriage return",
    "\x7f": "a DEL",
    "\x85": "a next-line character",
    "\u2028": "a line separator",
    "\u2029": "a paragraph separator",
}
_TOKENS = lazy_pattern(" *[^ ]+")
_ATOMS = lazy_pattern(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_FIELD_NAME = lazy_pattern("[!-9;-~]+")

# Messages, digits and these five: what RFC 2047 §5 (3) lets stand in an encoded word anywhere, in a name too.
_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")
_Q = [chr(byte) if byte in _SAFE else "_" if byte == 0x20 else f"={byte:02X}" for byte in range(256)]
_Q_PLAIN = bytes([*_SAFE, 0x20])


def forbidden_in(value: str) -> str:
    """The first character of `value` that no header may hold, or nothing.  TAB is not one: it counts as a space."""
    if value.isprintable():  # nearly always, and fast
        return ""
    found = _FORBIDDEN.search(value)
    return found[0] if found else ""


def name_character(character: str) -> str:
    """`"a line feed (U+000A)"`."""
    called = "half a character" if "\ud800" <= character <= "\udfff" else _CALLED.get(character, "a control character")
    return f"{called} (U+{ord(character):04X})"


def text_field(name: str, value: str) -> bytes:
    """A field of free text, such as Subject.  `value` has nothing `forbidden_in` it and no space at its ends."""
    if value.isascii() and "=?" not in value:
        if len(name) + 2 + len(value) <= _PREFERRED_LINE:
            return f"{name}: {value}\r\n".encode("ascii")
        tokens = _TOKENS.findall(f" {value}")
        if max(map(len, tokens)) <= _LONGEST_TOKEN:
            return _fold(name, tokens)
    return _fold(name, encoded_words(value, room=_ENCODED_LINE - len(name) - 2))


def plain_field(name: str, value: str) -> bytes:
    """A field whose value machines read, such as List-Unsubscribe: never encoded.

    Raises `ValueError`, in words, for a value that would have to be.
    """
    if not value.isascii():
        raise ValueError("has characters outside ASCII; in a web address write them with | urlencode")
    tokens = _TOKENS.findall(f" {value}")
    if max(map(len, tokens)) > _LONGEST_TOKEN:
        raise ValueError(f"has a word of more than {_LONGEST_TOKEN} characters")
    return _fold(name, tokens)


def address_field(name: str, mailboxes: Iterable[tuple[str, Address]]) -> bytes:
    """A field of mailboxes, such as To.  A local part outside ASCII stands as UTF-8 (RFC 6532), all else is ASCII.

    Runs of spaces in a display name become one.
    """
    tokens: list[str] = []
    for display_name, address in mailboxes:
        if tokens:
            tokens[-1] += ","
        if display_name:
            room = _ENCODED_LINE - len(name) - 2 if not tokens else _ENCODED_LINE - 1
            tokens += _phrase(display_name, room=room)
            tokens.append(f" <{address.wire}>")
        else:
            tokens.append(f" {address.wire}")
    return _fold(name, tokens)


def list_id_field(name: str, value: str) -> bytes:
    """List-Id (RFC 2919): a text that people read and, in angle brackets, the name of the list.

    Raises `ValueError`, in words, for a value that is neither that nor the bare name.
    """
    phrase, bracket, label = value.removesuffix(">").rpartition("<")
    if not bracket:
        phrase, label = "", value
    if not _LIST_LABEL.fullmatch(label) or value.endswith(">") != bool(bracket):
        raise ValueError("is not the name of a list; write Garden news <news.shop.example>")
    phrase = phrase.strip()
    if len(phrase) >= 2 and phrase[0] == phrase[-1] == '"':
        phrase = re.sub(r"\\(.)", r"\1", phrase[1:-1])
    tokens = _phrase(phrase, room=_ENCODED_LINE - len(name) - 2) if phrase else []
    return _fold(name, [*tokens, f" <{label}>"])


_LIST_LABEL = lazy_pattern(r"(?=.{3,255}\Z)[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+")


def feedback_id_field(name: str, value: str) -> bytes:
    """Feedback-ID: up to three identifiers and the sender's, with colons between them, as Gmail counts complaints by.

    Raises `ValueError`, in words, for any other value.
    """
    parts = value.split(":")
    if not (len(parts) <= 4 and all(_IDENTIFIER.fullmatch(part) for part in parts) and 5 <= len(parts[-1]) <= 15):
        raise ValueError("is not like spring:news:gardenshop, the last part being yours and 5 to 15 characters long")
    return plain_field(name, value)


_IDENTIFIER = lazy_pattern("[!-9;-~]+")


def _phrase(display_name: str, *, room: int) -> list[str]:
    """A display name as tokens (RFC 5322 §3.2.5): as it is, quoted, or as encoded words."""
    words = " ".join(filter(None, display_name.split(" ")))
    if words.isascii() and "=?" not in words:
        is_bare = _ATOMS.fullmatch(words) is not None
        quoted = words if is_bare else '"' + words.replace("\\", "\\\\").replace('"', '\\"') + '"'
        tokens = _TOKENS.findall(f" {quoted}")
        if max(map(len, tokens)) <= _LONGEST_TOKEN:
            return tokens
    return encoded_words(words, room=room)


def _fold(name: str, tokens: Sequence[str]) -> bytes:
    """The field, broken before those tokens that no longer fit.  Each token begins with the space it is broken at.

    It is never broken right after the name: servers exist that take an empty first line for the end.
    """
    line = f"{name}:{tokens[0]}"
    lines: list[str] = []
    for token in tokens[1:]:
        if len(line) + len(token) > _ENCODED_LINE:
            lines.append(line)
            line = token
        else:
            line += token
    lines.append(line + "\r\n")
    return "\r\n".join(lines).encode()


def encoded_words(text: str, *, room: int) -> list[str]:
    """`text` as tokens ` =?utf-8?q?…?=`, the first at most `room` bytes long, in whichever encoding is shorter."""
    data = text.encode()
    quoted = len(data) + 2 * len(data.translate(None, _Q_PLAIN))
    is_quoted = quoted <= (len(data) + 2) // 3 * 4
    room = max(room, _SHORTEST_WORD) - _WORD_FRAME
    if (quoted if is_quoted else (len(data) + 2) // 3 * 4) <= room:
        return [_encoded_word(data, is_quoted=is_quoted)]
    later_room = _ENCODED_LINE - 1 - _WORD_FRAME
    if not is_quoted:  # count bytes instead: three of them in four characters
        room, later_room = room // 4 * 3, later_room // 4 * 3
    # A word is broken between characters, never inside one (RFC 2047 §5).
    start = used = 0
    tokens: list[str] = []
    for position, character in enumerate(text):
        size = _encoded(character)
        if is_quoted and character not in _UNQUOTED:
            size *= 3
        if used + size > room:
            tokens.append(_encoded_word(text[start:position].encode(), is_quoted=is_quoted))
            start, used, room = position, 0, later_room
        used += size
    tokens.append(_encoded_word(text[start:].encode(), is_quoted=is_quoted))
    return tokens


_WORD_FRAME = len("=?utf-8?q??=")
_SHORTEST_WORD = _WORD_FRAME + len("=F0=9F=8E=89")  # the longest single character
_UNQUOTED = frozenset(_Q_PLAIN.decode("ascii"))


def _encoded(character: str) -> int:
    if character < "\x80":
        return 1
    return 2 if character < "\u0800" else 3 if character < "\U00010000" else 4


def _encoded_word(data: bytes, *, is_quoted: bool) -> str:
    if is_quoted:
        return f" =?utf-8?q?{''.join([_Q[byte] for byte in data])}?="
    return f" =?utf-8?b?{b2a_base64(data, newline=False).decode('ascii')}?="


# The fields that every message gets from its own settings, or that only servers and mail readers write.
_OWNED = {
    "from": "set from",
    "to": "it comes from the list; set to_name for the name in it",
    "cc": "it would be shown without being sent",
    "bcc": "everyone would see it",
    "reply-to": "set reply_to",
    "subject": "set subject",
    "date": "bulkmail writes it",
    "message-id": "bulkmail writes it: a resend must have the same",
    "mime-version": "bulkmail writes it",
    "dkim-signature": "it must be made from the finished message",
    "received": "servers write it",
    "return-path": "set reverse_path",
    "x-bulkmail-id": "bulkmail writes it where reverse_path has {bounce}",
}
_OWNED_PREFIXES = ("content-", "resent-", "arc-")
_ADDRESS_FIELDS = frozenset({"sender", "errors-to", "disposition-notification-to", "return-receipt-to"})
_PLAIN_PREFIXES = ("list-",)
_PLAIN_FIELDS = frozenset({"in-reply-to", "references", "auto-submitted", "feedback-id", "precedence"})


def field_name_fault(name: str) -> str:
    """Why a campaign may not set the header `name` itself, in words; empty when it may (RFC 5322 §3.6.8)."""
    if not _FIELD_NAME.fullmatch(name):
        return f"{name[:_LONGEST_NAME]!r} is not the name of a header: write letters, digits and hyphens, no colon"
    if len(name) > _LONGEST_NAME:
        return f"the header name {name[:40]!r}… is longer than {_LONGEST_NAME} characters"
    lowered = name.lower()
    reason = _OWNED.get(lowered, "")
    if lowered.startswith(_OWNED_PREFIXES):
        reason = "it tells how the message is built or has travelled"
    return f"the header {name} cannot be set like this: {reason}" if reason else ""


def is_address_field(name: str) -> bool:
    """Whether a header that a campaign names holds a mailbox."""
    return name.lower() in _ADDRESS_FIELDS


def is_single(name: str) -> bool:
    """Whether a message has a header that a campaign names at most once."""
    return is_address_field(name) or is_plain_field(name) or name.lower() == "list-id"


def is_plain_field(name: str) -> bool:
    """Whether a header that a campaign names is read by machines: see `plain_field`."""
    lowered = name.lower()
    return lowered in _PLAIN_FIELDS or (lowered.startswith(_PLAIN_PREFIXES) and lowered != "list-id")
