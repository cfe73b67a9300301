"""One message as plain text for a terminal, with nothing in it that could steer one."""

from __future__ import annotations

import re
from email.message import EmailMessage

from bulkmail.model.pattern import lazy_pattern
from bulkmail.preview.parts import Enclosure, Parts, header, take_parts
from bulkmail.text import count, printable

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


def _message(parts: Parts) -> list[str]:
    if parts.text is None:
        return [
            "(no text part: the message is HTML only)" if parts.html is not None else "(no message in this message)"
        ]
    lines = parts.text.rstrip().split("\n")
    shown = [_clean(line) for line in lines[:MOST_LINES]]
    if len(lines) > MOST_LINES:
        shown.append(f"… and {count(len(lines) - MOST_LINES, 'more line')}")
    return shown


def _clean(line: str) -> str:
    """`printable()` word by word, so that what is set in columns stays in columns."""
    words = re.sub(r"[^ ]+", lambda word: printable(word[0], LONGEST_LINE), line[: LONGEST_LINE + 1].expandtabs())
    return words.rstrip() if len(line) <= LONGEST_LINE else words[: LONGEST_LINE - 1] + "…"


def _enclosed(enclosure: Enclosure) -> str:
    return f"  {enclosure.name or '(no name)'}  {enclosure.content_type}, {say_size(enclosure.size_bytes)}"


def say_size(size_bytes: int) -> str:
    """`"812 bytes"`, `"12.3 KB"`, `"4.0 MB"`; a KB is 1,000 bytes."""
    if size_bytes < 1_000:
        return count(size_bytes, "byte")
    if size_bytes < 999_950:
        return f"{size_bytes / 1_000:.1f} KB"
    return f"{size_bytes / 1_000_000:,.1f} MB"
