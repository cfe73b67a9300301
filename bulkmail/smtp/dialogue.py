"""Single questions to a relay over an open session: a command, its replies, and how long they took."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bulkmail.model.reply import Breakage, Fault, Stage
from bulkmail.model.units import say_duration
from bulkmail.smtp.opening import SessionRefused
from bulkmail.smtp.replies import RawReply, ReplyError, ReplyParser


class Asking(asyncio.Protocol):
    """Owns a connected transport that is past its opening; sends no mail.

    `peer` is who answers, as people know it; `secrets` are what no reply may be shown to repeat.
    """

    def __init__(self, transport: asyncio.Transport, *, peer: str, secrets: Sequence[str] = ()) -> None:
        self.transport = transport
        self._peer = peer
        self._parser = ReplyParser(secrets)
        self._replies: list[RawReply] = []
        self._broken = ""
        self._came = asyncio.Event()
        self._gone = asyncio.get_running_loop().create_future()
        transport.set_protocol(self)

    async def ask(self, command: bytes, *, stage: Stage, patience: float, replies: int = 1) -> list[RawReply]:
        """Writes `command`; its replies, each within `patience` seconds.  Raises `SessionRefused` with a fault."""
        if not self.transport.is_closing():
            self.transport.write(command)
        return [await self._next(stage, patience) for _ in range(replies)]

    async def more(self, *, stage: Stage, patience: float) -> RawReply:
        """One reply more to what was asked last.  Raises `SessionRefused` with a fault."""
        return await self._next(stage, patience)

    async def leave(self, *, patience: float) -> None:
        """Says QUIT and lets the connection go, within `patience` seconds."""
        try:
            await self.ask(b"QUIT\r\n", stage=Stage.MAIL, patience=patience)
            self.transport.close()
            await asyncio.wait({self._gone}, timeout=patience)
        except SessionRefused:
            pass
        finally:
            self.transport.abort()

    async def _next(self, stage: Stage, patience: float) -> RawReply:
        try:
            async with asyncio.timeout(patience):
                while not self._replies and not self._broken:
                    self._came.clear()
                    await self._came.wait()
        except TimeoutError:
            self.transport.abort()
            kind, what = Breakage.TIMEOUT, f"did not answer within {say_duration(patience)}"
        else:
            if self._replies:
                return self._replies.pop(0)
            kind, what = Breakage.LOST, self._broken
        raise SessionRefused(Fault(stage, kind, f"{self._peer} {what}"))

    # For the transport.

    def data_received(self, data: bytes) -> None:
        try:
            for reply in self._parser.replies(data):
                self._replies.append(reply)
        except ReplyError as error:
            self._broken = f"broke the protocol: it {error}"
            self.transport.abort()
        self._came.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._broken = self._broken or "closed the connection"
        self._came.set()
        if not self._gone.done():
            self._gone.set_result(None)
