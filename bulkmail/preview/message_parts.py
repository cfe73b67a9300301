"""One message taken apart, for a page or a terminal."""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Iterator
from email.message import EmailMessage
from typing import cast

from bulkmail.message.html.framed import Picture
from bulkmail.model.delivery import Message
from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.text import count, printable


@dataclass(frozen=True, slots=True)
class ShownFile:
    """Something beside the message itself.  `name` is safe to print and perhaps empty.

    `size_bytes` is as decoded; of an attached message, its parts without their headers.
    """

    name: str
    content_type: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ShownParts:
    """The message as text and as HTML, each None if it is not there, with LF line ends; and all the rest, in order.

    Both are as the message has them: neither is safe to print.
    """

    text: str | None
    html: str | None
    enclosures: tuple[ShownFile, ...]


def parse(message: Message) -> EmailMessage:
    """What a mail program would make of `message`."""
    return email.message_from_bytes(b"".join(message.buffers), policy=email.policy.default)


def take_parts(message: EmailMessage) -> ShownParts:
    """The first text and the first HTML part that are not attachments are the message.  Takes any message."""
    text: str | None = None
    html: str | None = None
    enclosures: list[ShownFile] = []
    for part in _leaves(message):
        kind = part.get_content_type()
        is_message_file = part.get_content_disposition() != "attachment"
        if is_message_file and kind == "text/plain" and text is None:
            text = _decoded(part)
        elif is_message_file and kind == "text/html" and html is None:
            html = _decoded(part)
        else:
            enclosures.append(ShownFile(_filename(part), printable(kind, 100), len(_encoded(part))))
    return ShownParts(text, html, tuple(enclosures))


def header(message: EmailMessage, name: str, *, longest: int = 1_000) -> str:
    """The header decoded and safe to print.  The email package parses when asked, and some headers make it fail."""
    try:
        return printable(str(message.get(name, "")), longest)
    except Exception:
        return "(cannot be read)"


def headers(message: EmailMessage, *, most: int = 100) -> Iterator[tuple[str, str]]:
    """All header fields in the message's order, repeated ones too, decoded and safe to print; at most `most`."""
    for number, (name, value) in enumerate(message.raw_items()):
        if number == most:
            return
        try:
            shown = str(message.policy.header_fetch_parse(name, value))
        except Exception:  # as in header()
            shown = "(cannot be read)"
        yield printable(name, 60), printable(shown, 2_000)


_IMAGE = lazy_pattern(r"image/[\w.+-]{1,60}")


def pictures(message: EmailMessage) -> dict[str, Picture]:
    """The pictures of a message that have a Content-ID, by it."""
    found = {}
    for part in _leaves(message):
        name = header(part, "Content-ID").strip("<> ")
        kind = part.get_content_type()
        if name and _IMAGE.fullmatch(kind):
            found[name] = Picture(kind, _encoded(part))
    return found


def _leaves(message: EmailMessage) -> Iterator[EmailMessage]:
    """The parts that hold something.  An attached message is one of them, whatever is inside."""
    waiting: list[EmailMessage] = [message]
    while waiting:
        part = waiting.pop()
        if part.is_multipart() and part.get_content_maintype() != "message":
            waiting += cast("list[EmailMessage]", part.get_payload())[::-1]
        else:
            yield part


def _encoded(part: EmailMessage) -> bytes:
    """The decoded content; an attached message has its parts' in a row."""
    decoded = [inner.get_payload(decode=True) for inner in part.walk()]
    return b"".join(raw for raw in decoded if isinstance(raw, bytes))


def _decoded(part: EmailMessage) -> str:
    raw = _encoded(part)
    try:
        text = raw.decode(part.get_content_charset("utf-8"), "replace")
    except (LookupError, ValueError):  # no such charset, or no name for one
        text = raw.decode("utf-8", "replace")
    return text.replace("\r\n", "\n")


def _filename(part: EmailMessage) -> str:
    try:
        return printable(part.get_filename() or "", 200)
    except Exception:  # as in header()
        return "(cannot be read)"


MOST_LINES = 500  # of the message that are shown
LONGEST_LINE = 2_000  # characters

_FIRST = ("From", "To", "Cc", "Bcc", "Reply-To", "Subject", "Date", "Message-ID")
_MACHINERY = lazy_pattern(r"MIME-Version|Content-.*|DKIM-Signature", re.IGNORECASE)
_MOST_HEADERS = 50
_LABEL = 10  # columns


def plain_view(message: EmailMessage) -> str:
    """Headers, the text part or a note that there is none, and what is enclosed; ends in a line end."""
    parts = take_parts(message)
    lines = [*_headers(message), "", *_message(parts)]
    if parts.html is not None and parts.text is not None:
        lines += ["", f"Also as HTML ({say_size(len(parts.html.encode('utf-8', 'replace')))})."]
    if parts.enclosures:
        lines += ["", "Enclosed:", *map(_enclosed, parts.enclosures)]
    return "\n".join(lines) + "\n"


def _headers(message: EmailMessage) -> list[str]:
    """Those that people look at first, then the rest in the message's order, without those that are about encoding."""
    names = {name.lower(): name for name in message.keys() if not _MACHINERY.fullmatch(name)}  # noqa: SIM118 - repeats
    first = [name for name in _FIRST if names.pop(name.lower(), None)]
    shown = [*first, *names.values()][:_MOST_HEADERS]
    return [f"{printable(name, 60) + ':':<{_LABEL}} {header(message, name)}".rstrip() for name in shown]


def _message(parts: ShownParts) -> list[str]:
    if parts.text is None:
        return ["(no text part: the message is HTML only)" if parts.html is not None else "(the message has no text)"]
    lines = parts.text.rstrip().split("\n")
    shown = [_clean(line) for line in lines[:MOST_LINES]]
    if len(lines) > MOST_LINES:
        shown.append(f"… and {count(len(lines) - MOST_LINES, 'more line')}")
    return shown


def _clean(line: str) -> str:
    """`printable()` word by word, so that what is set in columns stays in columns."""
    words = re.sub(r"[^ ]+", lambda word: printable(word[0], LONGEST_LINE), line[: LONGEST_LINE + 1].expandtabs())
    return words.rstrip() if len(line) <= LONGEST_LINE else words[: LONGEST_LINE - 1] + "…"


def _enclosed(enclosure: ShownFile) -> str:
    return f"  {enclosure.name or '(no name)'}  {enclosure.content_type}, {say_size(enclosure.size_bytes)}"


def say_size(size_bytes: int) -> str:
    """`"812 bytes"`, `"12.3 KB"`, `"4.0 MB"`; a KB is 1,000 bytes."""
    if size_bytes < 1_000:
        return count(size_bytes, "byte")
    if size_bytes < 999_950:
        return f"{size_bytes / 1_000:.1f} KB"
    return f"{size_bytes / 1_000_000:,.1f} MB"
