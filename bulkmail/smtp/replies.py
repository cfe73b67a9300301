"""What a server says: replies off the wire, what EHLO offers, and one command at a time with its replies."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from functools import lru_cache
from typing import NamedTuple, cast

from bulkmail.model.lazy import dataclass
from bulkmail.model.outcome import Breakage, Fault, Reply, Stage
from bulkmail.model.quantities import say_duration
from bulkmail.smtp.tap import Tap, TappedTransport
from bulkmail.text import printable

# -- Replies as they come off the wire, byte by byte, and nothing that is not one (RFC 5321 §4.2).


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


# -- What a server said it can do in its answer to EHLO.


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The extensions a session may use (RFC 5321 §4.1.1.1).  All absent after a mere HELO.

    `size_limit`: bytes, 0 if SIZE is offered without a limit, None if it is not offered (RFC 1870).
    `auth_mechanisms`: upper case, in the server's order (RFC 4954).  `sandbox`: the server says that it delivers
    nothing, as ours do.
    """

    pipelining: bool = False
    chunking: bool = False
    size_limit: int | None = None
    smtputf8: bool = False
    eight_bit_mime: bool = False
    starttls: bool = False
    dsn: bool = False
    requiretls: bool = False
    sandbox: bool = False
    auth_mechanisms: tuple[str, ...] = ()


SANDBOX = "X-BULKMAIL-SANDBOX"
"""The keyword by which a server says that it delivers nothing (RFC 5321 §4.1.1.1: one of our own begins with X)."""

_MECHANISM = re.compile(r"[A-Z0-9_-]{1,20}")  # RFC 4422 §3.1
_SIZE = re.compile(r"[0-9]{1,20}")  # RFC 1870 §4


def parse_capabilities(lines: Iterable[str]) -> Capabilities:
    """The capabilities in the lines of an EHLO answer; the first line is the server's name.  Never raises."""
    extensions: dict[str, list[str]] = {}
    for line in list(lines)[1:]:
        # "AUTH=LOGIN" is how servers before RFC 4954 said it, and some still say it beside the new form.
        words = re.sub(r"^AUTH=", "AUTH ", line.upper()).split()
        if words:
            extensions.setdefault(words[0], []).extend(words[1:])
    return Capabilities(
        pipelining="PIPELINING" in extensions,
        chunking="CHUNKING" in extensions,
        size_limit=_size_limit(extensions.get("SIZE")),
        smtputf8="SMTPUTF8" in extensions,
        eight_bit_mime="8BITMIME" in extensions,
        starttls="STARTTLS" in extensions,
        dsn="DSN" in extensions,
        requiretls="REQUIRETLS" in extensions,
        sandbox=SANDBOX in extensions,
        auth_mechanisms=tuple(dict.fromkeys(word for word in extensions.get("AUTH", ()) if _MECHANISM.fullmatch(word))),
    )


def _size_limit(words: list[str] | None) -> int | None:
    if words is None:
        return None
    return int(words[0]) if words and _SIZE.fullmatch(words[0]) else 0


# -- One command at a time and its replies, over a transport on which nothing else is said.


_MOMENTS = {
    Stage.CONNECT: " in the TLS handshake",
    Stage.GREETING: " where a server greets",
    Stage.EHLO: " after EHLO",
    Stage.STARTTLS: " after STARTTLS",
    Stage.AUTH: " in the middle of the login",
}


def alert_behind(error: BaseException | None) -> ssl.SSLError | None:
    """The alert because of which the connection was lost: in TLS 1.3 our certificate is judged after the handshake."""
    while error is not None:
        if isinstance(error, ssl.SSLError) and "_ALERT_" in (error.reason or ""):
            return error
        error = error.__cause__ or error.__context__
    return None


class SessionRefused(Exception):
    """No session: `event` is the reply or the fault, with the stage at which it happened.  Nothing was sent."""

    def __init__(self, event: Reply | Fault) -> None:
        super().__init__(str(event))
        self.event = event


class Dialogue(asyncio.Protocol):
    """What is said and answered before mail is sent, or instead of that.

    `peer` is what the server is called in sentences; `tap` shows what passes.  Nothing may come that was not asked for:
    it would be taken for the answer to the next command.
    Four of its methods are asyncio's, and five make the fault of a stage.
    """

    def __init__(self, *, peer: str, tap: Tap | None = None) -> None:
        self._peer = peer
        self._tap = tap
        self._transport: asyncio.Transport | None = None
        self._parser = ReplyParser()
        self._replies: list[RawReply] = []
        self._violation = ""
        self._cause: Exception | None = None  # of the end of the connection
        self._came = asyncio.Event()
        self._gone = asyncio.get_running_loop().create_future()

    @property
    def transport(self) -> asyncio.Transport:
        """What it is held over, for questions about it."""
        assert self._transport is not None  # noqa: S101
        return self._transport

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended, or is about to."""
        return self._gone.done() or self.transport.is_closing()

    def hide(self, secrets: Sequence[str]) -> None:
        """From now on no reply may be shown to repeat these."""
        self._parser = ReplyParser(secrets)

    async def ask(self, command: bytes, *, stage: Stage, patience: float, replies: int = 1) -> list[RawReply]:
        """Writes `command`; its replies, each within `patience` seconds.  Raises `SessionRefused` with a fault."""
        self.check(stage)
        if not self.transport.is_closing():
            if self._tap is not None:
                self._tap.said(command)
            self.transport.write(command)
        return [await self.answer(stage=stage, patience=patience) for _ in range(replies)]

    async def answer(self, *, stage: Stage, patience: float) -> RawReply:
        """One more reply to what was asked last, or the greeting.  Raises `SessionRefused` with a fault."""
        if not await self.comes(patience):
            self.abort()
            raise self.overdue(stage, patience)
        if self._violation or not self._replies:
            raise self._ended(stage)
        return self._replies.pop(0)

    async def comes(self, seconds: float) -> bool:
        """Whether a reply, or the end of the connection, comes within that time."""
        try:
            async with asyncio.timeout(seconds):
                while not (self._replies or self._violation or self._gone.done()):
                    self._came.clear()
                    await self._came.wait()
        except TimeoutError:
            return False
        return True

    def check(self, stage: Stage) -> None:
        """Raises `SessionRefused` if anything came that was not asked for, or the connection is over."""
        if not self._violation and (self._replies or self._parser.has_partial):
            self._violate("said something before it was asked")
        if self._violation or self._gone.done():
            raise self._ended(stage)

    async def start_tls(self, context: ssl.SSLContext, host: str, *, patience: float) -> None:
        """Goes over to TLS.  Raises what the handshake raises."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(patience):
            secured = await loop.start_tls(
                self.transport, self, context, server_hostname=host, ssl_handshake_timeout=patience
            )
        if secured is None:  # it was lost meanwhile
            raise ConnectionResetError
        self._transport = secured

    def release(self) -> asyncio.Transport:
        """The transport, for another protocol; what passes is still shown."""
        return self.transport if self._tap is None else TappedTransport(self.transport, self._tap)

    async def leave(self, *, patience: float) -> None:
        """Says QUIT and lets the connection go, within `patience` seconds."""
        try:
            await self.ask(b"QUIT\r\n", stage=Stage.MAIL, patience=patience)
            self.transport.close()
            await asyncio.wait({self._gone}, timeout=patience)
        except SessionRefused:
            pass
        finally:
            self.abort()

    def abort(self) -> None:
        """Lets the connection go at once."""
        if self._transport is not None:
            self._transport.abort()

    def refused(self, stage: Stage, kind: Breakage, what: str) -> SessionRefused:
        """`what` is said of the server."""
        return SessionRefused(Fault(stage, kind, f"{self._peer} {what}"))

    def overdue(self, stage: Stage, patience: float) -> SessionRefused:
        """The server let that many seconds pass."""
        what = f"did not {'go on' if stage in _MOMENTS else 'answer'}{_MOMENTS.get(stage, '')}"
        return self.refused(stage, Breakage.TIMEOUT, f"{what} within {say_duration(patience)}")

    def lost(self, stage: Stage) -> SessionRefused:
        """The connection ended."""
        return self.refused(stage, Breakage.LOST, f"closed the connection{_MOMENTS.get(stage, '')}")

    @property
    def alert(self) -> ssl.SSLError | None:
        """The alert because of which the connection was lost."""
        return alert_behind(self._cause)

    def _ended(self, stage: Stage) -> SessionRefused:
        if self._violation:
            return self.refused(stage, Breakage.DESYNC, self._violation)
        return self.lost(stage)

    def _violate(self, what: str) -> None:
        self._violation = what
        self.abort()

    # For the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._tap is not None:
            self._tap.heard(data)
        try:
            for reply in self._parser.replies(data):
                self._replies.append(reply)
        except ReplyError as error:
            self._violate(str(error))
        self._came.set()

    def eof_received(self) -> bool | None:
        if self._tap is not None:
            self._tap.note("the server has closed its side")
        return None

    def connection_lost(self, error: Exception | None) -> None:
        self._cause = error
        if not self._gone.done():
            self._gone.set_result(None)
        self._came.set()
