"""Replies as they come off the wire, byte by byte, and nothing that is not one (RFC 5321 §4.2)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from bulkmail.text import printable

LONGEST_REPLY = 32_768  # bytes, all lines of a reply together: several times the longest EHLO answer known

_TOO_LONG = f"sent a reply of more than {LONGEST_REPLY:,} bytes"

# The usual turn, whole or in its two parts: the end of a message is accepted, with a text; the envelope of the next.
_ACCEPTED = rb"250 ([^\r\n]*)\r\n"
_GO_AHEAD = rb"250 [^\r\n]*\r\n250 [^\r\n]*\r\n354[ ][^\r\n]*\r\n"
is_turn = re.compile(_ACCEPTED + _GO_AHEAD).fullmatch
is_acceptance = re.compile(_ACCEPTED).fullmatch
is_go_ahead = re.compile(_GO_AHEAD).fullmatch

_CODES = {str(code).encode(): code for code in range(200, 600)}
_SHORTEST_SECRET = 6  # characters; a shorter one would turn words of the reply into stars


class ReplyClass(Enum):
    """What a reply says by its code (RFC 5321 §4.2.1)."""

    COMPLETION = "2"
    INTERMEDIATE = "3"
    TRANSIENT = "4"
    PERMANENT = "5"
    CLOSING = "421"  # of any command: the server ends the session

    __hash__ = object.__hash__


_CLASSES = {code: ReplyClass("421" if code == 421 else str(code // 100)) for code in _CODES.values()}


class RawReply(NamedTuple):
    """A whole reply that is not yet matched to its command.  The text of the lines is as hostile as the server."""

    code: int
    lines: tuple[str, ...]

    @property
    def kind(self) -> ReplyClass:
        """What its code says."""
        return _CLASSES[self.code]

    def without(self, secrets: Sequence[str]) -> RawReply:
        """The reply without what it repeats of a login: some servers do."""
        lines = self.lines
        for secret in secrets:
            if len(secret) >= _SHORTEST_SECRET and any(secret in line for line in lines):
                lines = tuple(line.replace(secret, "***") for line in lines)
        return self if lines is self.lines else self._replace(lines=lines)

    def on_the_line(self) -> bytes:
        """The reply as bytes, in which every line has the same code."""
        last = len(self.lines) - 1
        return "".join(
            f"{self.code}{' ' if number == last else '-'}{line}\r\n" for number, line in enumerate(self.lines)
        ).encode("utf-8", "replace")


class ReplyError(Exception):
    """What came is not a reply.  `str(error)` says why and is safe to print."""


class ReplyParser:
    """Turns bytes into replies, however they are cut.  After a `ReplyError` it must not be used again.

    A bare LF also ends a line: servers of note send it now and then, and nothing can be smuggled to a client that way.
    So do they send an empty line inside a reply, which is passed over, and lines of one reply with different codes: of
    codes with the same first digit the last counts, as for Postfix; others have no meaning that could be relied on.
    `secrets` are what no reply may repeat.  Memory is bounded by `LONGEST_REPLY` and the largest piece fed.
    """

    __slots__ = ("_begun", "_encoded", "_rest", "_secrets", "_size")

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        self._secrets = tuple(secrets)
        self._encoded = tuple(secret.encode("utf-8", "replace") for secret in secrets if secret)
        self._rest = b""  # the beginning of a line
        self._begun: list[RawReply] = []  # the lines so far of a reply that has more
        self._size = 0  # bytes of the lines so far

    @property
    def has_partial(self) -> bool:
        """Whether the beginning of a reply is still inside."""
        return bool(self._rest or self._begun)

    def replies(self, data: bytes) -> Iterator[RawReply]:
        """The replies that are whole with these bytes.  To be used up, unless no more is fed.  Raises `ReplyError`."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._size += len(line) + 1
            if self._size > LONGEST_REPLY:
                raise ReplyError(_TOO_LONG)
            if self._begun and line in (b"", b"\r"):
                continue
            reply, is_last = self._read(line)
            if self._begun or not is_last:
                if self._begun and reply.code // 100 != self._begun[0].code // 100:
                    quoted = _quoted(line, self._secrets)
                    raise ReplyError(f"sent {quoted} in the middle of a reply of code {self._begun[0].code}")
                self._begun.append(reply)
                if not is_last:
                    continue
                reply = RawReply(reply.code, tuple(text for part in self._begun for text in part.lines))
                self._begun = []
            self._size = 0
            yield reply
        if self._size + len(self._rest) > LONGEST_REPLY:
            raise ReplyError(_TOO_LONG)

    def cleaned(self, text: bytes) -> bytes:
        """The text of a line without what it repeats of a login."""
        if not self._encoded or not any(secret in text for secret in self._encoded):
            return text
        return RawReply(0, (text.decode("utf-8", "replace"),)).without(self._secrets).lines[0].encode()

    def _read(self, line: bytes) -> tuple[RawReply, bool]:
        try:
            reply, is_last = _read(line)
        except _NoReplyLine as error:
            raise ReplyError(f"sent {_quoted(line, self._secrets)} {error}") from None
        return (reply.without(self._secrets) if self._secrets else reply), is_last


class _NoReplyLine(Exception):
    """`str(error)` says where something else was expected."""


@lru_cache(maxsize=64)  # most replies of a session are the same few
def _read(line: bytes) -> tuple[RawReply, bool]:
    """The reply that a line is, or is a part of, and whether it ends there.  Raises `_NoReplyLine`."""
    line = line.removesuffix(b"\r")
    code, separator = _CODES.get(line[:3]), line[3:4]
    if code is None:
        raise _NoReplyLine("where a reply begins with a code from 200 to 599")
    if separator not in (b" ", b"-", b""):  # no text need follow the code
        raise _NoReplyLine("where a space or a hyphen follows the code")
    return RawReply(code, (line[4:].decode("utf-8", "replace"),)), separator != b"-"


def _quoted(line: bytes, secrets: Sequence[str]) -> str:
    [text] = RawReply(0, (line.removesuffix(b"\r").decode("utf-8", "replace"),)).without(secrets).lines
    return f'"{printable(text[:200], 60)}"'
