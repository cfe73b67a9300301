"""One connection to a relay that carries messages: opened, used for many, then left."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from functools import partial

from bulkmail.model.message import Message
from bulkmail.model.relay import Relay, Secret
from bulkmail.model.reply import Breakage, Fault, Reply, Stage
from bulkmail.smtp.capabilities import Capabilities
from bulkmail.smtp.connection import Done, Line, Mark, More, Transfer
from bulkmail.smtp.credentials import Credentials
from bulkmail.smtp.opening import SessionRefused, open_transport
from bulkmail.smtp.peer_policy import Manners
from bulkmail.smtp.protocol import Transactions
from bulkmail.smtp.timeouts import Timeouts
from bulkmail.smtp.trace import Trace
from bulkmail.text import printable

__all__ = ["Credentials", "Manners", "Session", "SessionRefused", "Timeouts"]


class Session:
    """A session that is past its login.  Never a reply booked to another message than its own."""

    def __init__(
        self,
        line: Line,
        capabilities: Capabilities,
        *,
        quit_timeout: float,
        learn: Callable[[], None],
        is_tired: Callable[[], bool],
    ) -> None:
        """`learn` is called when there may be something to learn; `is_tired` says whether to begin no more messages."""
        self.capabilities = capabilities
        self._learn = learn
        self._is_tired = is_tired
        self._turn = asyncio.Lock()
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
        manners: Manners | None = None,
        trace: Trace | None = None,
        proxy_password: Secret | None = None,
    ) -> Session:
        """A session with `relay`: connected, secured and logged in as its URL says, with one login attempt at most.

        `tls_context` is from `tls.make_tls_context`; None makes one for this session alone.  `manners` are what all
        sessions with this relay share; without them it is spoken to plainly.  `trace` gets the whole conversation.
        Raises `SessionRefused`, and `ConfigError` for settings that no server could do anything about.
        """
        said: list[str] = []
        transport, capabilities = await open_transport(
            relay,
            credentials,
            tls_context=tls_context,
            timeouts=timeouts,
            trace=trace,
            proxy_password=proxy_password,
            said=said,
        )
        manners = manners or Manners(is_plain=True)
        if relay.requires_tls:
            try:
                check_requiretls(relay, transport, capabilities)
            except SessionRefused:
                transport.abort()
                raise
        transactions = Transactions(
            capabilities,
            peer=printable(relay.peer, 120),
            mode=manners.mode(capabilities, is_lmtp=relay.is_lmtp),
            depth=manners.depth,
            wishes=manners.wishes(relay, capabilities),
            is_lmtp=relay.is_lmtp,
            ahead=manners.ahead,
            secrets=said,
        )
        return cls(
            Line(transport, transactions, timeouts=timeouts),
            capabilities,
            quit_timeout=timeouts.quit,
            learn=partial(manners.learn, transactions),
            is_tired=partial(manners.is_tired, transactions),
        )

    @property
    def usable(self) -> bool:
        """Whether a message may be begun.  Once False it stays so."""
        return self._line.is_usable

    @property
    def transactions(self) -> int:
        """Messages begun on this session so far."""
        return self._line.begun

    @property
    def goodbye(self) -> str:
        """Why it is over, in words for people; empty while it is not."""
        return self._line.goodbye

    @property
    def reached_end(self) -> bool:
        """Whether a byte of the terminator of the message begun last was handed to the transport."""
        return self._latest is not None and self._latest.stage is Stage.END

    async def carry(self, more: More) -> None:
        """Sends what `more` gives, one message after another, until it gives None and everything is decided.

        Anyone who calls meanwhile waits for it.  `more` is called at the very moment that the next envelope can be
        written: never for a session that is not `usable`.  What each message comes to is notified to its transfer.
        Cancellation aborts the session; whatever is under way is notified as a fault first, and unless at END is
        certainly not delivered.  A session that the server would soon end is left in good manners.
        """

        def sendable() -> Transfer | None:
            while not self._is_tired() and (transfer := more()) is not None:
                if (fault := self._line.check(transfer)) is None:
                    return transfer
                transfer.decided(fault)
            return None

        async with self._turn:
            try:
                await self._line.carry(sendable)
                if self.usable and self._is_tired():
                    await self.quit()
            finally:
                self._learn()

    async def transact(self, message: Message, mark: Mark) -> Reply | Fault:
        """Sends one message; the reply that decides it, or the fault, with the stage.

        `mark(done)` is called when the envelope is written; the terminator waits until `done(None)` was called.
        `done(error)` aborts the session before the terminator, and `error` is raised here.  Cancellation aborts the
        session wherever it is: unless `reached_end`, the message is certainly not delivered.
        """
        results: list[Reply | Fault] = []
        errors: list[BaseException] = []

        def watched(done: Done) -> None:
            def keep(error: BaseException | None) -> None:
                if error is not None:
                    errors.append(error)
                done(error)

            try:
                mark(keep)
            except Exception as error:
                errors.append(error)
                raise

        self._latest = transfer = Transfer(message, watched, results.append)
        waiting = iter((transfer,))
        await self.carry(lambda: next(waiting, None))
        if not results:  # the session was over before it began
            return Fault(Stage.MAIL, Breakage.LOST, self._line.goodbye)
        if errors and isinstance(results[0], Fault):
            raise errors[0]
        return results[0]

    async def quit(self) -> None:
        """Ends the session in good manners, within a few seconds; never raises but for cancellation."""
        if self.usable:
            await self._line.leave(patience=self._quit_timeout)
        else:
            self.abort()

    def abort(self) -> None:
        """Ends the session at once.  A message under way comes back as a fault."""
        self._line.abort()


def check_requiretls(relay: Relay, transport: asyncio.Transport, capabilities: Capabilities) -> None:
    """Raises `SessionRefused` where REQUIRETLS cannot be asked for (RFC 8689 §4.1): the relay is at fault, no row."""
    if transport.get_extra_info("ssl_object") is None:
        what = "is reached without TLS, and requiretls asks for it all the way"
    elif not capabilities.requiretls:
        what = "does not offer REQUIRETLS, so it does not promise to hand messages on over TLS only"
    else:
        return
    raise SessionRefused(Fault(Stage.EHLO, Breakage.NO_REQUIRETLS, f"{relay.place} {what}"))
