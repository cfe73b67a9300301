"""A scripted relay in a thread of its own, for tests with or without an event loop."""

from __future__ import annotations

import asyncio
import email
import email.policy
import threading
from email.message import EmailMessage
from types import TracebackType
from typing import Any

from bulkmail.testing.scripted_conversation import TakenMessage
from bulkmail.testing.scripted_relay import ScriptedRelay


class ThreadedRelay:
    """A `ScriptedRelay` that runs in a thread of its own, inside `with`; it takes the same scripts.

        with ThreadedRelay(rcpt=["550 5.1.1 no such user", None]) as relay:
            report = bulkmail.send_sync(campaign, people, relay=relay.url)
        assert report.failed and len(relay.inbox) == 1

    `url` is what to send through.  Nothing is delivered; `messages` and `inbox` have what was taken.
    """

    def __init__(self, **scripts: Any) -> None:
        self._scripts = scripts
        self._relay = ScriptedRelay()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self._is_ready = threading.Event()

    @property
    def url(self) -> str:
        """The relay's URL, without TLS: `"smtp://127.0.0.1:49152?tls=off"`."""
        return f"smtp://{self._relay.host}:{self._relay.port}?tls=off"

    @property
    def scripted(self) -> ScriptedRelay:
        """The relay itself, with its commands, sessions and violations."""
        return self._relay

    @property
    def messages(self) -> list[TakenMessage]:
        """The messages taken, as sent, in the order of their ends."""
        return list(self._relay.messages)

    @property
    def inbox(self) -> list[EmailMessage]:
        """The same messages, read: `relay.inbox[0]["Subject"]`, `relay.inbox[0].get_body().get_content()`."""
        return [email.message_from_bytes(each.content, policy=email.policy.default) for each in self.messages]

    def __enter__(self) -> ThreadedRelay:
        self._relay = ScriptedRelay(**self._scripts)
        self._is_ready.clear()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), name="bulkmail test relay", daemon=True
        )
        self._thread.start()
        self._is_ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and self._ended is not None:
            self._loop.call_soon_threadsafe(self._ended.set)
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with self._relay:
                self._is_ready.set()
                await self._ended.wait()
        finally:
            self._is_ready.set()
            self._loop = None
