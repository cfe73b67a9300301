"""The server's end of a connection, read line by line, strictly."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Callable
from typing import cast

from bulkmail.testing.answers import Answer, Drop, Hang, Late, Reset, Slow, Split, to_bytes

_MOST_UNREAD = 65_536  # bytes kept before reading pauses


class Gone(Exception):
    """The client has left, or was shown the door."""


class ScriptedConnection(asyncio.Protocol):
    """Reads and answers for a session; knows no SMTP.  `begin` is called with it when it is connected.

    `lost` is done when the connection is gone.
    """

    def __init__(self, begin: Callable[[ScriptedConnection], None]) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._begin = begin
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._moved = asyncio.Event()
        self._has_ended = False
        self._is_full = False
        self._unpaused = 0  # bytes read since the last pause

    # For the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._begin(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > _MOST_UNREAD:
            self._is_full = True
            self.transport.pause_reading()
        self._moved.set()

    def eof_received(self) -> bool | None:
        self._has_ended = True
        self._moved.set()
        return None

    def connection_lost(self, error: Exception | None) -> None:
        self._has_ended = True
        self._moved.set()
        if not self.lost.done():
            self.lost.set_result(None)

    # For the session.

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None  # noqa: S101
        return self._transport

    @property
    def has_input(self) -> bool:
        """Whether something has arrived that was not read yet."""
        return bool(self._buffer)

    async def line(self, *, most: int = _MOST_UNREAD, pause: float = 0.0) -> bytes:
        """Up to and with the next LF; after `most` bytes with a `pause` of seconds.  Raises `Gone` if none comes."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            await self._more()
        line = self._take(end + 1)
        self._unpaused += len(line)
        if pause and self._unpaused >= most:
            self._unpaused = 0
            await asyncio.sleep(pause)
        return line

    async def wait(self) -> None:
        """Until something is there to be read.  Raises `Gone` if nothing will."""
        while not self._buffer:
            await self._more()

    async def say(self, answer: Answer) -> None:
        """Does what the answer is.  Raises `Gone` if that ends the connection."""
        match answer:
            case str() | bytes():
                self.transport.write(to_bytes(answer))
            case Split():
                for byte in to_bytes(answer.text):
                    await asyncio.sleep(0.001)
                    self.transport.write(bytes((byte,)))
            case Late():
                await asyncio.sleep(answer.seconds)
                self.transport.write(to_bytes(answer.text))
            case Hang():
                while True:
                    await self._more()
            case Drop():
                self.transport.close()
                raise Gone
            case Reset():
                self._reset()
                raise Gone
            case Slow():
                raise TypeError("Slow() is a way to read a body, not an answer")

    async def secure(self, context: ssl.SSLContext) -> None:
        """Begins TLS.  Raises `Gone` if the client does not."""
        loop = asyncio.get_running_loop()
        try:
            secured = await loop.start_tls(self.transport, self, context, server_side=True)
        except OSError:
            secured = None
        if secured is None:  # asyncio does not tell a protocol that the handshake failed
            self.abort()
            self.connection_lost(None)
            raise Gone
        self._transport = secured

    def close(self) -> None:
        """Closes after what was said."""
        self.transport.close()

    def abort(self) -> None:
        """Closes at once."""
        self.transport.abort()

    def _reset(self) -> None:
        with contextlib.suppress(OSError):
            connection = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    async def _more(self) -> None:
        if self._has_ended:
            raise Gone
        self._moved.clear()
        await self._moved.wait()

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        if self._is_full and len(self._buffer) <= _MOST_UNREAD:
            self._is_full = False
            self.transport.resume_reading()
        return taken
