"""A man in the middle: forwards TCP to a server on loopback, keeps what went through, may change what it says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Recording:
    """What went through the forwarder that listens at `port`: all connections together.

    `connects` counts them, `most_open` is the number that were open at the same moment.
    """

    port: int = 0
    connects: int = 0
    most_open: int = 0
    from_client: bytearray = field(default_factory=bytearray)
    from_server: bytearray = field(default_factory=bytearray)


@asynccontextmanager
async def forwarding(port: int, *, change: Callable[[bytes], bytes] = lambda data: data) -> AsyncIterator[Recording]:
    """Forwards to `port`; `change` is given each piece that the server says, and gives what the client is notified."""
    recording = Recording()
    open_writers: set[asyncio.StreamWriter] = set()
    now_open = 0

    async def pump(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray, work: Callable[[bytes], bytes]
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                kept += data
                writer.write(work(data))
                await writer.drain()
        writer.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal now_open
        now_open += 1
        recording.connects += 1
        recording.most_open = max(recording.most_open, now_open)
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
            open_writers.update((writer, there_writer))
            await asyncio.gather(
                pump(reader, there_writer, recording.from_client, lambda data: data),
                pump(there_reader, writer, recording.from_server, change),
            )
        finally:
            now_open -= 1

    server = await asyncio.start_server(forward, "127.0.0.1", 0)
    recording.port = server.sockets[0].getsockname()[1]
    try:
        yield recording
    finally:
        server.close()
        for writer in open_writers:
            writer.close()
        await asyncio.sleep(0.05)
