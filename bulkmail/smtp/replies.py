"""Replies as they come off the wire, octet by octet, and nothing that is not one (RFC 5321 §4.2)."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from bulkmail.model.reply import printable

LONGEST_REPLY = 32_768  # octets, all lines of a reply together: several times the longest EHLO answer known

_CODES = {str(code).encode(): code for code in range(200, 600)}
_SEPARATORS = (b" ", b"-", b"")  # no text may follow the code


class RawReply(NamedTuple):
    """A whole reply that is not yet matched to its command.  The text of the lines is as hostile as the server."""

    code: int
    lines: list[str]


class ReplyError(Exception):
    """What came is not a reply.  `str(error)` says why and is safe to print."""


class ReplyParser:
    """Turns octets into replies, however they are cut.  After a `ReplyError` it must not be used again.

    A bare LF also ends a line: servers of note send it now and then, and nothing can be smuggled to a client that way.
    Memory is bounded by `LONGEST_REPLY` and the largest piece fed.
    """

    __slots__ = ("_code", "_lines", "_pending", "_rest", "_size")

    def __init__(self) -> None:
        self._pending: list[bytes] = []  # whole lines, the next one last
        self._rest = b""  # the beginning of a line
        self._code = 0  # of the reply at hand, 0 between two
        self._lines: list[str] = []
        self._size = 0  # octets of the lines already taken of the reply at hand

    @property
    def has_partial(self) -> bool:
        """Whether a reply, or the beginning of one, is still inside."""
        return bool(self._rest or self._pending or self._lines)

    def feed(self, data: bytes) -> None:
        """Takes what was received; `next_reply` gives it back reply by reply."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if lines:
            lines.reverse()
            self._pending = lines + self._pending

    def next_reply(self) -> RawReply | None:
        """The next whole reply, or None until more is fed.  Raises `ReplyError`."""
        pending = self._pending
        while pending:
            line = pending.pop()
            self._size += len(line) + 1
            self._check_size(self._size)
            line = line.removesuffix(b"\r")
            code, separator, text = _read(line)
            if not code or separator not in _SEPARATORS or (self._code and code != self._code):
                raise ReplyError(self._fault(line))
            if separator == b"-":
                self._code = code
                self._lines.append(text)
                continue
            lines = self._lines
            self._code, self._lines, self._size = 0, [], 0
            lines.append(text)
            return RawReply(code, lines)
        self._check_size(self._size + len(self._rest))
        return None

    def _check_size(self, size: int) -> None:
        if size > LONGEST_REPLY:
            raise ReplyError(f"sent a reply of more than {LONGEST_REPLY:,} octets")

    def _fault(self, line: bytes) -> str:
        if line[:3] not in _CODES:
            return f"sent {_quoted(line)} where a reply begins with a code from 200 to 599"
        if line[3:4] not in _SEPARATORS:
            return f"sent {_quoted(line)} where a space or a hyphen follows the code"
        return f"sent {_quoted(line)} in the middle of a reply of code {self._code}"


@lru_cache(maxsize=64)  # most replies of a session are the same few
def _read(line: bytes) -> tuple[int, bytes, str]:
    """Code (0 where there is none), separator and text."""
    return _CODES.get(line[:3], 0), line[3:4], line[4:].decode("utf-8", "replace")


def _quoted(line: bytes) -> str:
    return f'"{printable(line[:200].decode("utf-8", "replace"), 60)}"'
