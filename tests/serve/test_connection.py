"""Connections to the public side that try to stay for ever, or to be too many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from bulkmail.serve import client_connection
from bulkmail.serve.client_connection import BoundedConnection

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
TIMEOUT = 0.3


async def app(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    assert scope["type"] == "http"
    if scope["path"] == "/slow":
        await asyncio.sleep(3 * TIMEOUT)
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def serving() -> AsyncIterator[Callable[[], Awaitable[Streams]]]:
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, http=BoundedConnection, ws="none", log_config=None, lifespan="off"
    )
    server = uvicorn.Server(config)
    server.capture_signals = _left_alone  # type: ignore[method-assign]
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    opened: list[asyncio.StreamWriter] = []

    async def connect() -> Streams:
        streams = await asyncio.open_connection("127.0.0.1", port)
        opened.append(streams[1])
        return streams

    try:
        yield connect
    finally:
        for writer in opened:
            writer.close()
        server.should_exit = True
        await task


class _left_alone:
    """In place of uvicorn's signal handlers."""

    def __enter__(self) -> None: ...

    def __exit__(self, *exc_info: object) -> None: ...


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_connection, "HEAD_TIMEOUT", TIMEOUT)


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection is closed or cut."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("first", [b"", b"GET / HTTP/1.1\r\nX-A: "], ids=["silent", "half-a-head"])
async def test_connection_without_a_whole_head_is_cut(first: bytes) -> None:
    async with serving() as connect:
        reader, writer = await connect()
        writer.write(first)

        async def drip() -> None:
            while first:
                await asyncio.sleep(TIMEOUT / 10)
                writer.write(b"a")

        dripping = asyncio.create_task(drip())
        assert await rest_of(reader) == b""
        dripping.cancel()


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
async def test_second_head_on_a_connection_has_to_come_in_time_as_well() -> None:
    async with serving() as connect:
        reader, writer = await connect()
        writer.write(REQUEST)
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        writer.write(b"GET / HT")
        assert await rest_of(reader) == b""


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
async def test_answer_may_take_longer_than_a_head() -> None:
    async with serving() as connect:
        reader, writer = await connect()
        writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")


async def test_connections_beyond_the_limit_wait_and_then_are_reported_to_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_connection, "MOST_CONNECTIONS", 3)
    monkeypatch.setattr(client_connection, "MOST_WAITING", 2)
    async with serving() as connect:
        held = [await connect() for _ in range(5)]
        answer = await rest_of((await connect())[0])
        assert answer.startswith(b"HTTP/1.1 503") and b"Retry-After: 30" in answer
        held[3][1].write(REQUEST)
        held[0][1].write(REQUEST)
        assert (await held[0][0].readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        held[1][1].close()
        assert (await held[3][0].readuntil(b"ok")).startswith(b"HTTP/1.1 200")
