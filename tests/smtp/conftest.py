"""Both event loops for every coroutine test of this room, and factories for what they need."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from bulkmail.model.delivery import Envelope, Message
from bulkmail.model.relay import Relay
from bulkmail.smtp.credentials import Credentials
from bulkmail.smtp.opening import Timeouts
from bulkmail.testing import ScriptedRelay
from tests.connections import Single

MakeMessage = Callable[..., Message]
SessionTo = Callable[..., AbstractAsyncContextManager[Single]]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if sys.platform != "win32":
        import uvloop

        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.fixture
def make_message() -> MakeMessage:
    def make(
        *buffers: bytes,
        to: str = "ann@example.com",
        sender: str = "news@example.org",
        needs_smtputf8: bool = False,
        is_8bit: bool = False,
    ) -> Message:
        return Message(
            Envelope(sender, to),
            "<1@example.org>",
            buffers or (b"Subject: hello\r\n\r\nDear Ann\r\n",),
            needs_smtputf8=needs_smtputf8,
            is_8bit=is_8bit,
        )

    return make


@pytest.fixture
def session_to() -> SessionTo:
    """Opens a session to a scripted relay in clear text, and drops it in the end."""

    @asynccontextmanager
    async def open_session(
        relay: ScriptedRelay, *, credentials: Credentials | None = None, query: str = "tls=off", **timeouts: float
    ) -> AsyncIterator[Single]:
        where = Relay.parse(f"smtp://{relay.host}:{relay.port}?{query}")
        session = await Single.to(where, credentials, tls_context=None, timeouts=Timeouts(**timeouts))
        try:
            yield session
        finally:
            session.abort()
            await asyncio.sleep(0)  # so that the transport is notified before the loop ends

    return open_session


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose name is short enough for a Unix socket: pytest's own is too long on some systems."""
    with TemporaryDirectory(prefix="bm-") as folder:
        yield Path(folder)
