"""One connection to a relay that carries messages: opened, used for many, then left."""

from __future__ import annotations

import ssl

from bulkmail.model.message import Message
from bulkmail.model.relay import Relay
from bulkmail.model.reply import Fault, Reply, Stage, printable
from bulkmail.smtp.capabilities import Capabilities
from bulkmail.smtp.envelopes import unsendable
from bulkmail.smtp.line import Line, Mark, Transfer
from bulkmail.smtp.opening import Credentials, SessionRefused, open_transport
from bulkmail.smtp.timeouts import Timeouts
from bulkmail.smtp.transactions import Transactions

__all__ = ["Credentials", "Session", "SessionRefused", "Timeouts"]


class Session:
    """A session that is past its login.  Never two commands in flight, never a reply booked to another message."""

    def __init__(self, line: Line, capabilities: Capabilities, *, quit_timeout: float) -> None:
        self.capabilities = capabilities
        self.opened_at = line.loop.time()
        self._line = line
        self._quit_timeout = quit_timeout
        self._latest: Transfer | None = None

    @classmethod
    async def open(
        cls,
        relay: Relay,
        credentials: Credentials | None,
        *,
        tls_context: ssl.SSLContext | None,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
    ) -> Session:
        """A session with `relay`: connected, secured and logged in as its URL says, with one login attempt at most.

        `tls_context` is from `tls.make_tls_context`; None makes one for this session alone.  Raises `SessionRefused`,
        and `ConfigError` for settings that no server could do anything about.
        """
        transport, capabilities = await open_transport(relay, credentials, tls_context=tls_context, timeouts=timeouts)
        line = Line(transport, Transactions(capabilities, peer=printable(relay.host, 80)), timeouts=timeouts)
        return cls(line, capabilities, quit_timeout=timeouts.quit)

    @property
    def usable(self) -> bool:
        """Whether a message may be begun.  Once False it stays so."""
        return self._line.is_usable

    @property
    def transactions(self) -> int:
        """Messages begun on this session so far."""
        return self._line.begun

    @property
    def reached_end(self) -> bool:
        """Whether an octet of the terminator of the message begun last was handed to the transport."""
        return self._latest is not None and self._latest.stage is Stage.END

    async def transact(self, message: Message, mark: Mark) -> Reply | Fault:
        """Sends `message`; the reply that decides it, or the fault, with the stage.

        `mark(done)` is called when the envelope is written; the terminator waits until `done(None)` was called.
        `done(error)` aborts the session before the terminator, and `error` is raised here.  Cancellation aborts the
        session wherever it is: unless `reached_end`, the message is certainly not delivered.
        """
        self._latest = None
        if (fault := unsendable(message, self.capabilities)) is not None:
            return fault
        self._latest = transfer = self._line.begin(message, mark)
        try:
            return await transfer.decided
        except BaseException:
            self.abort()
            raise

    async def quit(self) -> None:
        """Ends the session in good manners, within a few seconds; never raises but for cancellation."""
        if self.usable:
            await self._line.leave(patience=self._quit_timeout)
        else:
            self.abort()

    def abort(self) -> None:
        """Ends the session at once.  A message under way comes back as a fault."""
        self._line.abort()
