"""One command at a time and its replies, over a transport on which nothing else is said."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import cast

from bulkmail.model.outcome import Breakage, Fault, Reply, Stage
from bulkmail.model.quantities import say_duration
from bulkmail.smtp.replies import RawReply, ReplyError, ReplyParser
from bulkmail.smtp.tap import Tap, TappedTransport

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
