"""Replies as they come off the wire, octet by octet, and nothing that is not one (RFC 5321 §4.2)."""

from __future__ import annotations

from typing import NamedTuple

from bulkmail.model.reply import printable

LONGEST_REPLY = 32_768  # octets, all lines of a reply together: several times the longest EHLO answer known


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

    __slots__ = ("_buffer", "_code", "_lines", "_searched", "_size")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0  # octets of the buffer that are known to hold no LF
        self._code = b""
        self._lines: list[str] = []
        self._size = 0  # octets of the lines already taken of the reply at hand

    @property
    def has_partial(self) -> bool:
        """Whether a reply, or the beginning of one, is still inside."""
        return bool(self._buffer or self._lines)

    def feed(self, data: bytes) -> None:
        """Takes what was received; `next_reply` gives it back reply by reply."""
        self._buffer += data

    def next_reply(self) -> RawReply | None:
        """The next whole reply, or None until more is fed.  Raises `ReplyError`."""
        buffer = self._buffer
        while True:
            if not buffer:
                return None
            end = buffer.find(b"\n", self._searched)
            size = self._size + (end + 1 if end >= 0 else len(buffer))
            if size > LONGEST_REPLY:
                raise ReplyError(f"sent a reply of more than {LONGEST_REPLY:,} octets")
            if end < 0:
                self._searched = len(buffer)
                return None
            self._size = size
            line = bytes(buffer[:end])
            del buffer[: end + 1]
            self._searched = 0
            if self._take_line(line):
                reply = RawReply(int(self._code), self._lines)
                self._code, self._lines, self._size = b"", [], 0
                return reply

    def _take_line(self, line: bytes) -> bool:
        """Whether this line is the last of its reply."""
        line = line.removesuffix(b"\r")
        code, separator = line[:3], line[3:4]
        if len(code) < 3 or not code.isdigit() or code[0] not in b"2345":
            raise ReplyError(f"sent {_quoted(line)} where a reply begins with a code from 200 to 599")
        if separator not in (b" ", b"-", b""):
            raise ReplyError(f"sent {_quoted(line)} where a space or a hyphen follows the code")
        if self._code and code != self._code:
            raise ReplyError(f"sent {_quoted(line)} in the middle of a reply of code {self._code.decode()}")
        self._code = code
        self._lines.append(line[4:].decode("utf-8", "replace"))
        return separator != b"-"


def _quoted(line: bytes) -> str:
    return f'"{printable(line[:200].decode("utf-8", "replace"), 60)}"'
