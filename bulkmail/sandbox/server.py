"""The embedded server: real SMTP on loopback, on the caller's own event loop, that keeps what it is sent."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from aiosmtpd.smtp import SMTP, Envelope, Session

from bulkmail.model.errors import RelayError
from bulkmail.sandbox.faults import FaultInjector, Faults
from bulkmail.sandbox.maildir import Maildir
from bulkmail.smtp.replies import SANDBOX
from bulkmail.text import printable

LARGEST_MESSAGE = 33_554_432  # bytes, announced by SIZE (RFC 1870)

NO_FAULTS = Faults()

_LONGEST_LINE = 1_001  # bytes: 998, CRLF and the transparency dot (RFC 5321 §4.5.3.1.6)
_READ_AHEAD = 65_536  # bytes

log = logging.getLogger(__name__)
_server_log = logging.getLogger("mail.log")  # aiosmtpd's own: whole messages at debug, client mistakes at warning


class Sandbox:
    """A server that accepts everything and delivers nothing: each message of each recipient becomes a file.

    `async with Sandbox(folder) as sandbox:` serves `sandbox.host`, `sandbox.port` until the block ends; sessions that
    are open then are broken off.  `port` 0 takes any free one.  Offers SIZE, 8BITMIME and SMTPUTF8, no TLS, no login.
    """

    def __init__(self, maildir: Path, *, host: str = "127.0.0.1", port: int = 0, faults: Faults = NO_FAULTS) -> None:
        """Raises `RelayError` when mail cannot be kept in `maildir`.  `faults` are what goes wrong on purpose."""
        self.host = host
        self.port = port
        self.maildir = Maildir(maildir)
        self.trouble = FaultInjector(faults)
        self._keeper = _Keeper(self.maildir, self.trouble)
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    @property
    def kept(self) -> int:
        """How many messages were kept so far, one a recipient."""
        return self._keeper.kept

    async def __aenter__(self) -> Sandbox:
        """Raises `RelayError` when nothing can listen at host and port."""
        if _server_log.level == logging.NOTSET:  # a level that was set is kept
            _server_log.setLevel(logging.CRITICAL + 1)
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(self._connection, self.host, self.port)
        except (OSError, OverflowError) as error:
            raise RelayError(
                f"the sandbox cannot listen at {printable(self.host)} port {self.port}: "
                f"{getattr(error, 'strerror', None) or error}",
                hint="--port 0 takes any free one",
            ) from None
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None  # noqa: S101 - entered
        self._server.close()
        # Before wait_closed(), which from Python 3.12 on waits for the connections.
        tasks = [connection.break_off() for connection in self._connections]
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _connection(self) -> _Connection:
        return _Connection(self._keeper, self._connections)


class _Connection(SMTP):
    """aiosmtpd's protocol, known to the sandbox while open, with a reader that takes more than two lines at a time."""

    line_length_limit = _READ_AHEAD  # what the reader is made with

    def __init__(self, keeper: _Keeper, connections: set[_Connection]) -> None:
        super().__init__(
            keeper,
            data_size_limit=LARGEST_MESSAGE,
            enable_SMTPUTF8=True,
            hostname="sandbox.localhost",  # given, because aiosmtpd would ask the DNS for ours
            ident="bulkmail sandbox, keeps mail and delivers nothing",
            loop=asyncio.get_running_loop(),
        )
        self.line_length_limit = _LONGEST_LINE  # what a message is judged by
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connections.add(self)
        self._serving.add_done_callback(_retrieve)

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.discard(self)
        super().connection_lost(error)

    def break_off(self) -> asyncio.Task[None]:
        """Ends the session now, which must be open; the task that serves it is done soon."""
        cast(asyncio.Transport, self.transport).abort()
        self._serving.cancel()
        return self._serving

    @property
    def _serving(self) -> asyncio.Task[None]:
        return cast("asyncio.Task[None]", self._handler_coroutine)  # set when the connection is made


def _retrieve(task: asyncio.Task[None]) -> None:
    """A client that vanishes ends its task with ConnectionResetError; asyncio would call that never retrieved."""
    if not task.cancelled():
        task.exception()


class _Keeper:
    """aiosmtpd's handler.  Any failure here is reported as temporary: aiosmtpd alone would answer 500, for good."""

    def __init__(self, maildir: Maildir, trouble: FaultInjector) -> None:
        self.kept = 0
        self._maildir = maildir
        self._trouble = trouble

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        """Says that nothing is delivered, so that no client takes a rehearsal for the truth."""
        session.host_name = hostname
        return [*responses[:-1], f"250-{SANDBOX}", *responses[-1:]]

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Begins a transaction, unless there are too many."""
        if refusal := self._trouble.at_sender(asyncio.get_running_loop().time()):
            return refusal
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Takes a recipient, unless it is to be refused."""
        if refusal := self._trouble.at_recipient(address):
            return refusal
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Keeps one file a recipient, or none.  Exceptions end here, or aiosmtpd leaves the transaction open."""
        drops, is_kept = self._trouble.at_end(envelope.rcpt_tos[0])
        if drops and server.transport is not None:
            cast(asyncio.Transport, server.transport).abort()
        if not is_kept:
            return "451 4.3.0 lost"  # the connection is gone already
        try:
            names = self._keep(envelope)
        except OSError as error:
            return printable(f"452 4.3.1 the sandbox cannot keep mail: {error.strerror or error}")
        except Exception as error:
            return await self.handle_exception(error)
        self.kept += len(names)
        return f"250 2.0.0 kept as {names[0]}"

    async def handle_exception(self, error: Exception) -> str:
        """The reply to a command that broke the server.  The error's own words stay out: they may hold line ends."""
        log.error("sandbox command failed", exc_info=error)
        return f"451 4.3.0 the sandbox failed: {type(error).__name__}"

    def _keep(self, envelope: Any) -> list[str]:
        reverse_path = "" if envelope.mail_from == "<>" else envelope.mail_from
        names: list[str] = []
        try:
            for forward_path in envelope.rcpt_tos:
                name = self._maildir.write(reverse_path, forward_path, [envelope.content])
                names.append(name)
            for name in names:
                self._maildir.publish(name)
        except BaseException:
            for name in names:
                self._maildir.discard(name)
            raise
        return names
