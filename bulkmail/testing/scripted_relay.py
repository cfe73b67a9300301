"""A mail relay on loopback that answers as a test's script says and records what it receives."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping, Sequence
from types import TracebackType

from bulkmail.testing.answers import Lines, Script
from bulkmail.testing.scripted_connection import ScriptedConnection
from bulkmail.testing.scripted_conversation import Notes, RelayPart, ScriptedConversation, TakenMessage

EXTENSIONS = ("SIZE 33554432", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "X-BULKMAIL-SANDBOX")
MECHANISMS = ("PLAIN", "LOGIN", "CRAM-MD5")


class ScriptedRelay:
    """An SMTP server for tests, running inside `async with`; `host` and `port` say where.

        async with ScriptedRelay(rcpt=["451 4.2.1 busy", "250 ok"], end=[Drop()]) as relay:
            ...
        assert relay.messages == []

    Each step takes a script (see `answers.Script`): one answer for ever, several that are used up in order by all
    sessions together, or a function of the path; without one, or with None, the usual answer is given.  `body` is for
    the moment when content begins to arrive.  An answer 221 or 421 closes the connection.

    `auth` are the users and passwords known; without it no login is offered or needed.  `tls` offers STARTTLS, or is
    spoken from the first byte if `implicit`.  `receive_buffer` makes the kernel's buffer small, in bytes.  `is_lmtp`:
    it greets by LHLO and answers the end for each recipient (RFC 2033).  With `socket_path` it listens there.

    Noted are: `messages` taken; `commands`, a content being "." and an AUTH without its secret; `auth_attempts`;
    `sessions`, and `peak_sessions` at a time; and `violations`: where the client broke the rules, in sentences.
    """

    def __init__(
        self,
        *,
        greeting: Script = None,
        ehlo: Script = None,
        helo: Script = None,
        starttls: Script = None,
        mail: Script = None,
        rcpt: Script = None,
        data: Script = None,
        body: Script = None,
        end: Script = None,
        rset: Script = None,
        quit: Script = None,
        login: Script = None,
        extensions: Sequence[str] = EXTENSIONS,
        auth: Mapping[str, str] | None = None,
        mechanisms: Sequence[str] = MECHANISMS,
        tls: ssl.SSLContext | None = None,
        implicit: bool = False,
        receive_buffer: int = 0,
        is_lmtp: bool = False,
        socket_path: str = "",
    ) -> None:
        self.host = "127.0.0.1"
        self.port = 0
        self.sessions = 0
        self.peak_sessions = 0
        self._notes = Notes()
        self._is_implicit = implicit
        self._receive_buffer = receive_buffer
        scripts = {
            "greeting": greeting,
            "ehlo": ehlo,
            "helo": helo,
            "starttls": starttls,
            "mail": mail,
            "rcpt": rcpt,
            "data": data,
            "body": body,
            "end": end,
            "rset": rset,
            "quit": quit,
            "auth": login,
        }
        self._part = RelayPart(
            scripts={step: Lines(script) for step, script in scripts.items()},
            extensions=extensions,
            logins=auth or {},
            mechanisms=mechanisms,
            tls=tls,
            is_implicit=implicit,
            is_lmtp=is_lmtp,
        )
        self._socket_path = socket_path
        self._server: asyncio.Server | None = None
        self._talks: dict[ScriptedConnection, asyncio.Task[None]] = {}

    @property
    def messages(self) -> list[TakenMessage]:
        """The messages taken, in the order of their ends."""
        return self._notes.messages

    @property
    def commands(self) -> list[str]:
        """Every command line of every session, in the order of arrival."""
        return self._notes.commands

    @property
    def violations(self) -> list[str]:
        """Where a client broke the rules: bare CR or LF, 8-bit unannounced, talking out of turn."""
        return self._notes.violations

    @property
    def auth_attempts(self) -> int:
        """How many AUTH commands came."""
        return self._notes.auth_attempts

    @property
    def open_sessions(self) -> int:
        """How many sessions there are now."""
        return len(self._talks)

    async def __aenter__(self) -> ScriptedRelay:
        if self._socket_path:
            self._server = await asyncio.get_running_loop().create_unix_server(
                lambda: ScriptedConnection(self._begin), self._socket_path
            )
            return self
        listener = socket.socket(proto=socket.IPPROTO_TCP)  # named, or asyncio would leave Nagle’s algorithm on
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self._receive_buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        listener.bind((self.host, 0))
        self.port = listener.getsockname()[1]
        self._server = await asyncio.get_running_loop().create_server(
            lambda: ScriptedConnection(self._begin), sock=listener, ssl=self._part.tls if self._is_implicit else None
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Closes every session and takes no more; also in the middle of a test."""
        if self._server is not None:
            self._server.close()
            self._server = None
        talks = dict(self._talks)
        for connection, task in talks.items():
            task.cancel()
            connection.abort()
        if talks:
            await asyncio.wait([*talks.values(), *(connection.lost for connection in talks)], timeout=1)

    def _begin(self, connection: ScriptedConnection) -> None:
        self.sessions += 1
        conversation = ScriptedConversation(connection, self._part, self._notes, number=self.sessions)
        task = asyncio.get_running_loop().create_task(conversation.run())
        task.add_done_callback(self._ended)
        self._talks[connection] = task
        self.peak_sessions = max(self.peak_sessions, len(self._talks))
        connection.lost.add_done_callback(lambda _: self._talks.pop(connection, None))

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._notes.violations.append(f"the script failed: {error!r}")
