"""Content as it travels: CRLF line ends, and the transfer encoding that suits the text (RFC 2045 §6)."""

from __future__ import annotations

import re
import struct
from binascii import b2a_base64, b2a_qp
from collections.abc import Iterable
from io import BytesIO
from typing import NamedTuple

from bulkmail.model.lazy import lazy_pattern

LONGEST_LINE = 998  # bytes without CRLF, RFC 5322 §2.1.1

_ASCII = bytes(range(128))
_BASE64_LINE = 76  # RFC 2045 §6.8
_BASE64_STRETCH = 57 * 1024  # bytes: whole lines


def forbidden_in_text(text: str) -> str:
    """The first character of `text` that no message can hold, NUL or half a surrogate pair, or nothing."""
    try:
        # Bytes, because a text outside Latin-1 is searched ten times as slowly as they are.
        return "\0" if b"\0" in text.encode() else ""
    except UnicodeEncodeError as error:
        return "\0" if "\0" in text else text[error.start]


def normalised(text: str) -> str:
    """`text` with LF line ends only, and exactly one at its end."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.rstrip("\n") + "\n"


def encode_text(text: str) -> tuple[bytes, bytes]:
    """The name of the transfer encoding that suits a `normalised` text, and its lines in it, ending in CRLF.

    7bit for what is plain already, quoted-printable for what is mostly so, base64 for scripts that quoting would swell.
    No line is longer than 76, none is a lone dot or begins with `From `, none ends in a space; an `=` in a 7bit or
    quoted-printable body is always followed by a hexadecimal digit or CRLF, so that `=_` in a boundary never occurs.
    """
    if is_mostly_foreign(0, 0, (text,)):
        return b"base64", base64_lines(text.encode().replace(b"\n", b"\r\n")) + b"\r\n"
    lines = text.split("\n")
    body = b"\r\n".join(map(_quoted.__getitem__, lines))
    # Quoting only ever adds bytes: if none but the CRs came in, no line needed any.
    if len(body) == len(text) + len(lines) - 1:
        return b"7bit", body
    return b"quoted-printable", body


class LineCount(NamedTuple):
    """How many bytes of a text are outside ASCII, and how many it has."""

    foreign: int
    size: int


def line_count(text: str) -> LineCount:
    """Counts the bytes of `text` in UTF-8."""
    if text.isascii():
        return LineCount(0, len(text))
    data = text.encode()
    return LineCount(len(data.translate(None, _ASCII)), len(data))


def is_mostly_foreign(foreign: int, size: int, texts: Iterable[str]) -> bool:
    """Whether base64 is shorter than quoted-printable for `texts` and `size` more bytes, `foreign` outside ASCII.

    Quoting makes a byte three, base64 makes three four: a sixth of them outside ASCII is where they meet.
    """
    for text in texts:
        counted = line_count(text)
        foreign += counted.foreign
        size += counted.size
    return foreign * 6 > size


def base64_lines(data: bytes) -> bytes:
    """`data` in base64, in lines of 76, without a line end after the last."""
    if len(data) <= _BASE64_STRETCH:
        return _base64_stretch(data)
    # Stretch by stretch: the lines of a file of megabytes, each an object, would take many times its size.
    view, encoded = memoryview(data), BytesIO()  # which gives out what it holds without a copy
    for start in range(0, len(data), _BASE64_STRETCH):
        encoded.write(b"\r\n" if start else b"")
        encoded.write(_base64_stretch(view[start : start + _BASE64_STRETCH]))
    return encoded.getvalue()


def _base64_stretch(data: bytes | memoryview) -> bytes:
    encoded = b2a_base64(data, newline=False)
    whole = len(encoded) - len(encoded) % _BASE64_LINE
    lines = [line for (line,) in struct.iter_unpack(f"{_BASE64_LINE}s", encoded[:whole])]
    if whole < len(encoded):
        lines.append(encoded[whole:])
    return b"\r\n".join(lines)


class _QuotedLines(dict[str, bytes]):
    """Lines in quoted-printable, remembered: most lines of a message are the same for everyone."""

    _MOST = 4096
    LONGEST = 1000

    def __missing__(self, line: str) -> bytes:
        quoted = _quote(line)
        if len(line) <= self.LONGEST:
            if len(self) >= self._MOST:
                self.clear()
            self[line] = quoted
        return quoted


def _quote(line: str) -> bytes:
    quoted = b2a_qp(line.encode())
    if quoted.startswith(b"From ") or b"\nFrom " in quoted:
        # A mailbox file would make it ">From " (RFC 4155); a soft line break, unlike =46, keeps the line under 76.
        quoted = _FROM.sub(b"F=\nrom ", quoted)
    return quoted.replace(b"\n", b"\r\n")


_FROM = lazy_pattern(rb"^From ", re.MULTILINE)
_quoted = _QuotedLines()


def quoted_line(line: str) -> bytes:
    """One line, without its end, in quoted-printable."""
    return _quoted[line] if len(line) <= _QuotedLines.LONGEST else _quote(line)


_FAULT = lazy_pattern(rb"\0|\r(?!\n)|(?<!\r)\n|[^\r\n]{%d}" % (LONGEST_LINE + 1))


def fault_in(content: bytes) -> str:
    """What of `content` no server must be sent (RFC 5321 §2.3.8, §4.5.3.1.6), in words; empty when it is right."""
    found = _FAULT.search(content)
    if found:
        line = content.count(b"\n", 0, found.start()) + 1
        match found[0]:
            case b"\0":
                return f"line {line} holds a NUL byte"
            case b"\r" | b"\n":
                name = "CR" if found[0] == b"\r" else "LF"
                return f"line {line} has a bare {name}"
            case _:
                return f"line {line} is longer than {LONGEST_LINE} bytes"
    return "" if content.endswith(b"\r\n") else "the last line does not end in CRLF"
