"""Calendar invitations (RFC 5545) made from a template: what a cell holds stays within its property."""

from __future__ import annotations

import re

from markupsafe import Markup

from bulkmail.model.lazy import lazy_pattern

LONGEST_LINE = 75  # bytes, RFC 5545 §3.1

_METHOD = lazy_pattern(r"^METHOD:([A-Za-z-]+)[ \t\r]*$", re.MULTILINE | re.IGNORECASE)
_ESCAPES = {"\\": "\\\\", ";": "\\;", ",": "\\,", "\n": "\\n", '"': "'"}
_SPECIAL = lazy_pattern('\r\n|[\\\\;,\n\r"\x85\u2028\u2029]')
_CONTROL = lazy_pattern("[\x00-\x08\x0b-\x1f\x7f]")


def escape_value(value: object) -> object:
    """A value as RFC 5545 §3.3.11 writes text; what the template calls `safe` stays as it is.

    Double quotes become single ones, because no parameter can hold them (§3.2).
    """
    if isinstance(value, Markup):
        return value
    text = _SPECIAL.sub(lambda found: _ESCAPES.get(found[0], "\\n"), str(value))
    return _CONTROL.sub("", text)


def method_of(template: str) -> str:
    """What the calendar asks for, `REQUEST` as a rule, or empty when it does not say."""
    found = _METHOD.search(template)
    return found[1].upper() if found else ""


def folded(calendar: str) -> str:
    """The object with lines of at most 75 bytes and without empty ones."""
    return "\n".join(_fold(line) for line in calendar.split("\n") if line.strip()) + "\n"


def _fold(line: str) -> str:
    line = line.rstrip("\r")
    if len(line) <= LONGEST_LINE and line.isascii():
        return line
    pieces, piece, size = [], "", 0
    for character in line:
        raw = len(character.encode("utf-8", "surrogatepass"))
        if size + raw > LONGEST_LINE:
            pieces.append(piece)
            piece, size = " ", 1
        piece += character
        size += raw
    return "\n".join([*pieces, piece])
