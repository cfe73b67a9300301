"""One connection's conversation as lines that are safe to show: secrets hidden, bodies cut, controls escaped.

The code that runs a login reports where it begins and ends, so no mechanism need be known here.  The secrets
themselves are known from the start: a server may repeat them at any time.
"""

from __future__ import annotations

import asyncio
import binascii
import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from typing import Any, cast
from urllib.parse import quote_from_bytes

US, THEM, EVENT, CONTENT = ">", "<", "*", "|"

LONGEST_LINE = 400  # characters shown of a line
BODY_LINES = 4  # shown of a message
_SHORTEST_ECHO = 4  # bytes: a shorter word is found in every sentence
_PIECE = 8  # bytes of a secret that are enough to hide a line: a server may cut what it repeats

Show = Callable[[str, str], None]  # sign, text


def escaped(data: bytes, size: int | None = None) -> str:
    """`data` as printable text of bounded length: a backslash is doubled, what is not printable becomes one.

    `size` is how many bytes there were if `data` is only the beginning.
    """
    text = data[:LONGEST_LINE].replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    if not text.isprintable():
        text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    size = len(data) if size is None else size
    if size > LONGEST_LINE or len(text) > LONGEST_LINE:
        return f"{text[:LONGEST_LINE]}… ({size:,} bytes)"
    return text


class _LineCutter:
    """Bytes of one direction cut into lines, however they come; of each only its beginning is kept."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._size = 0

    @property
    def has_partial(self) -> bool:
        return self._size > 0

    @property
    def beginning(self) -> bytes:
        return bytes(self._kept)

    def take(self, data: bytes) -> tuple[bytes, bytes] | None:
        """The beginning of the line that ends in `data`, and what follows it; None if none ends there."""
        end = data.find(b"\n")
        self._keep(data if end < 0 else data[:end])
        if end < 0:
            return None
        return bytes(self._kept.removesuffix(b"\r")), data[end + 1 :]

    def shown(self) -> str:
        """The line at hand, which is done with."""
        size = self._size - self._kept.endswith(b"\r")
        text = escaped(bytes(self._kept.removesuffix(b"\r")), size)
        self._kept.clear()
        self._size = 0
        return text

    def _keep(self, piece: bytes) -> None:
        # A few bytes more than are shown: a secret may begin within what is shown and end behind it.
        self._kept += piece[: max(0, LONGEST_LINE + 2 + _PIECE - len(self._kept))]
        self._size += len(piece)


class _Secrets:
    """What no line of the server may show: passwords and tokens, and what a login said of them."""

    def __init__(self, secrets: Iterable[str], username: str) -> None:
        self._username = username.encode("utf-8", "replace").lower()
        self._words: set[bytes] = set()
        self._short: list[re.Pattern[bytes]] = []
        self._pieces: set[bytes] = set()
        for secret in filter(None, secrets):
            plain = secret.encode("utf-8", "replace")
            if len(plain) < _SHORTEST_ECHO:
                self._short.append(re.compile(rb"(?<![0-9a-z])" + re.escape(plain.lower()) + rb"(?![0-9a-z])"))
                continue
            for form in _forms(plain):
                self._add(form)

    def add_response(self, word: bytes, pieces: Iterable[bytes]) -> None:
        """A login has said `word`, which decoded has `pieces`.  The user name and parts of it are no secrets."""
        unknown = {piece.lower() for piece in pieces if piece.lower() not in self._username}
        if unknown:
            self._add(word)
        self._words |= {piece for piece in unknown if len(piece) >= _SHORTEST_ECHO}

    def are_in(self, line: bytes) -> bool:
        line = line.lower()
        return (
            any(word in line for word in self._words)
            or any(pattern.search(line, 3) for pattern in self._short)
            or (bool(self._pieces) and any(line[at : at + _PIECE] in self._pieces for at in range(len(line))))
        )

    def _add(self, secret: bytes) -> None:
        secret = secret.lower()
        if len(secret) >= _SHORTEST_ECHO:
            self._words.add(secret)
        self._pieces |= {secret[at : at + _PIECE] for at in range(len(secret) - _PIECE + 1)}


def _forms(secret: bytes) -> Iterator[bytes]:
    """As it is, in hexadecimal, for addresses of the web, and in base64 wherever it stands in what was encoded."""
    yield secret
    yield secret.hex().encode()
    yield quote_from_bytes(secret, safe="").encode()
    for before in range(3):
        # The first and last bytes share their digits with what stands around.
        encoded = b64encode(bytes(before) + secret)
        yield encoded[4 if before else 0 : len(encoded) // 4 * 4 - 4]


class _Kind(Enum):
    """What the bytes are that we write."""

    COMMANDS = "commands"
    DATA = "content after 354"
    CHUNK = "content after BDAT"


_BDAT = re.compile(rb"BDAT +([0-9]{1,18})(?: +LAST)?", re.IGNORECASE)
_END = b"\r\n.\r\n"


class Tap:
    """Sees both directions of one connection in the clear, in order, and shows them line by line."""

    def __init__(self, show: Show, *, secrets: Iterable[str] = (), username: str = "") -> None:
        self._show = show
        self._secrets = _Secrets(secrets, username)
        self._ours = _LineCutter()
        self._theirs = _LineCutter()
        self._kind = _Kind.COMMANDS
        self._wants_data = False  # DATA was said and no 354 has come
        self._left = 0  # bytes of the chunk that are still to come
        self._tail = b""  # the last bytes of the content after 354
        self._size = 0  # of the content so far
        self._lines = 0  # of the content, shown
        self._login = ""  # what is being logged in with, while that lasts
        self._responses: set[bytes] = set()  # what the login has said so far

    def note(self, what: str) -> None:
        """Something happened that is no part of the conversation."""
        self._flush()
        line = what.encode("utf-8", "replace")
        self._show(EVENT, "(hidden: it holds a login secret)" if self._secrets.are_in(line) else escaped(line))

    @contextmanager
    def hidden(self, what: str) -> Iterator[None]:
        """While this lasts, of what we say only the size is shown, and nothing of the server's challenges."""
        self._flush()
        self._login = what
        try:
            yield
        finally:
            self._flush()
            self._login = ""
            self._responses.clear()

    def said(self, data: bytes | memoryview) -> None:
        """We write `data`."""
        rest = bytes(data)
        if self._login:
            self._remember(rest)
            self._show(US, f"({self._login}: {len(rest):,} bytes hidden)")
            return
        while rest:
            if self._kind is _Kind.COMMANDS:
                rest = self._command(rest)
            elif self._kind is _Kind.DATA:
                rest = self._data(rest)
            else:
                rest = self._chunk(rest)

    def heard(self, data: bytes) -> None:
        """The server sent `data`."""
        rest = data
        while (taken := self._theirs.take(rest)) is not None:
            line, rest = taken
            self._show(THEM, self._reply(line, self._theirs.shown()))
            if line.startswith(b"354") and line[3:4] != b"-" and self._wants_data:
                self._begin(_Kind.DATA)

    def closed(self, why: str) -> None:
        """The connection is at its end."""
        if self._kind is not _Kind.COMMANDS:
            self._end_content(f"{self._size:,} bytes, cut off")
        self.note(why)

    # What we write.

    def _command(self, rest: bytes) -> bytes:
        taken = self._ours.take(rest)
        if taken is None:
            return b""
        line, rest = taken
        self._show(US, self._ours.shown())
        if line.upper() == b"DATA":
            self._wants_data = True
        elif found := _BDAT.fullmatch(line):
            self._begin(_Kind.CHUNK, left=int(found[1]))
        return rest

    def _begin(self, kind: _Kind, *, left: int = 0) -> None:
        self._wants_data = False
        if kind is _Kind.CHUNK and not left:
            return
        self._kind, self._left, self._tail = kind, left, b"\r\n"
        self._size = self._lines = 0

    def _data(self, rest: bytes) -> bytes:
        joined = self._tail + rest
        end = joined.find(_END)
        if end < 0:
            self._body(rest)
            self._tail = joined[-4:]
            return b""
        used = end + len(_END) - len(self._tail)
        self._body(rest[: max(0, used - 3)])
        self._end_content(f"{self._size:,} bytes")
        self._show(US, ".")
        return rest[used:]

    def _chunk(self, rest: bytes) -> bytes:
        piece, rest = rest[: self._left], rest[self._left :]
        self._left -= len(piece)
        self._body(piece)
        if not self._left:
            self._end_content(f"{self._size:,} bytes")
        return rest

    def _body(self, piece: bytes) -> None:
        self._size += len(piece)
        while self._lines < BODY_LINES and (taken := self._ours.take(piece)) is not None:
            self._show(CONTENT, self._ours.shown())
            self._lines += 1
            piece = taken[1]

    def _end_content(self, what: str) -> None:
        if self._ours.has_partial:
            self._show(CONTENT, self._ours.shown())
        self._kind = _Kind.COMMANDS
        self._show(CONTENT, f"({what})")

    # What is hidden.

    def _reply(self, line: bytes, text: str) -> str:
        if self._login and line.startswith(b"3"):
            return f"{escaped(line[:3])} ({max(0, len(line) - 4):,} bytes hidden)"
        if self._secrets.are_in(line):
            return f"{escaped(line[:3])} (hidden: it repeats a login secret)"
        if self._login and any(response in line for response in self._responses):
            return f"{escaped(line[:3])} (hidden: it repeats what the login said)"
        return text

    def _remember(self, data: bytes) -> None:
        """What was said in the login, as it was and decoded: a server may repeat it in its answer."""
        words = data.split()
        for word in words[2:] if words[:1] == [b"AUTH"] and not self._responses else words:
            said: set[bytes] = set()
            with suppress(binascii.Error):
                said.update(re.split(rb"[\0\1]", binascii.a2b_base64(word)))
            said |= {piece.rpartition(b" ")[2] for piece in said}  # "auth=Bearer …"
            self._secrets.add_response(word, said)
            self._responses |= {piece for piece in (word, *said) if len(piece) >= _SHORTEST_ECHO}

    def _flush(self) -> None:
        """Lines that have not ended are shown as they are: what comes next is no part of them."""
        if self._theirs.has_partial:
            line = self._theirs.beginning
            self._show(THEM, self._reply(line, self._theirs.shown()))
        if self._ours.has_partial and self._kind is _Kind.COMMANDS:
            self._show(US, self._ours.shown())


TAP = "bulkmail tap"  # what `get_extra_info` knows it by


class TappedTransport(asyncio.Transport):
    """Hands everything on to `transport`, and what passes in either direction to `tap` as well."""

    def __init__(self, transport: asyncio.Transport, tap: Tap) -> None:
        super().__init__()
        self._transport = transport
        self._tap = tap

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._tap.said(bytes(data))
        self._transport.write(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._transport.set_protocol(TappedProtocol(cast(asyncio.Protocol, protocol), self._tap))

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._transport.get_protocol()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._tap if name == TAP else self._transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def write_eof(self) -> None:
        self._transport.write_eof()

    def can_write_eof(self) -> bool:
        return self._transport.can_write_eof()

    def is_reading(self) -> bool:
        return self._transport.is_reading()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()


class TappedProtocol(asyncio.Protocol):
    """Hands everything on to `protocol`."""

    def __init__(self, protocol: asyncio.Protocol, tap: Tap) -> None:
        self._protocol = protocol
        self._tap = tap

    def data_received(self, data: bytes) -> None:
        self._tap.heard(data)
        self._protocol.data_received(data)

    def eof_received(self) -> bool | None:
        self._tap.note("the server has closed its side")
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._protocol.connection_lost(error)  # it may still read what the connection had left
        self._tap.closed(f"closed: {error}" if error else "closed")
