"""One connection in our hands: carries bytes between a transport and its transactions, and watches the time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable

from bulkmail.model.message import Message
from bulkmail.model.reply import Fault, Reply
from bulkmail.smtp.protocol import Transactions
from bulkmail.smtp.tapped import TAP
from bulkmail.smtp.timeouts import Timeouts
from bulkmail.smtp.transfer import Exchange, Step

Done = Callable[[BaseException | None], None]
Mark = Callable[[Done], None]
Decided = Callable[[Reply | Fault], None]

PROBE_PATIENCE = 30.0  # seconds; silence is an answer, too: it means no
_READ_AT_ONCE = 8_192  # bytes
_LONGEST_LEFTOVER = 262_144  # bytes read from a dead connection at the most


class Transfer(Exchange):
    """An exchange that someone on the loop waits for.

    `mark(done)` is called when the envelope is written; the terminator waits until `done(None)` was called.
    `done(error)` ends the session before the terminator.  `decided` receives the outcome, once.
    """

    __slots__ = ("decided", "mark")

    def __init__(self, message: Message, mark: Mark, decided: Decided) -> None:
        super().__init__(message)
        self.mark = mark
        self.decided = decided


More = Callable[[], Transfer | None]


class Line(asyncio.BufferedProtocol):
    """Owns a connected transport that is past greeting, TLS and login, until the end.

    All work is done where bytes arrive: there the next message is requested, and there its sender learns the outcome.
    """

    def __init__(self, transport: asyncio.Transport, transactions: Transactions, *, timeouts: Timeouts) -> None:
        self.loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[None] = self.loop.create_future()
        self._transport = transport
        self._transactions = transactions
        self._is_paused = False
        self._is_advancing = False
        # Replies are short.  Without a buffer of ours asyncio asks the system for a quarter of a megabyte each time.
        self._buffer = memoryview(bytearray(_READ_AT_ONCE))
        self._idle: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._moved_at = self.loop.time()
        self.check = transactions.check
        self._patience = {
            Step.PROBE: min(timeouts.mail, PROBE_PATIENCE),
            Step.FENCE: min(timeouts.mail, PROBE_PATIENCE),
            Step.EMPTY: timeouts.data,
            Step.RSET: timeouts.mail,
            Step.MAIL: timeouts.mail,
            Step.RCPT: timeouts.rcpt,
            Step.DATA: timeouts.data,
            Step.BODY: timeouts.block,
            Step.END: timeouts.end,
        }
        self._shortest = min(self._patience.values())
        self._duplicate = _duplicated(transport)
        transport.set_protocol(self)
        # Paused means: something of what was written is still in our own buffers.  That is what the terminator waits
        # for, unless it goes in one write with a short message.  A TLS transport pauses at its limit already.
        over_tls = transport.get_extra_info("ssl_object") is not None
        transport.set_write_buffer_limits(high=1 if over_tls else 0, low=0)

    # For the session.

    @property
    def is_usable(self) -> bool:
        """Whether a message may be begun."""
        return not (self._transactions.is_over or self._transport.is_closing())

    @property
    def begun(self) -> int:
        """Messages that were begun."""
        return self._transactions.begun

    @property
    def goodbye(self) -> str:
        """Why it is over."""
        return self._transactions.goodbye

    async def carry(self, more: More) -> None:
        """Sends what `more` gives, one message after another, until it gives None and everything is decided.

        `more` is called at the moment that the next envelope can be written, and only while the line is usable.
        Cancellation aborts: whatever is under way is notified as a fault before this is left.
        """
        self._idle = self.loop.create_future()
        self._transactions.more = more
        if self._transport.is_closing() and self._transactions.is_idle:
            self._transactions.lost()
        self._advance()
        try:
            await self._idle
        except BaseException:
            self.abort()
            raise
        finally:
            self._idle = None
            self._transactions.more = _nothing

    async def leave(self, *, patience: float) -> None:
        """Says QUIT and waits for the connection to close, but `patience` seconds at the most; only when idle."""
        limit = self.loop.call_later(patience, self.abort)
        try:
            self._transactions.leave()
            self._advance()
            await self._closed
        finally:
            limit.cancel()
            self.abort()

    def abort(self) -> None:
        """Drops the connection at once, with what is still in our buffers.  May be called at any time."""
        self._transactions.stop()
        self._advance()
        self._transport.abort()

    # For the transport.

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Bytes from the server."""
        self._transactions.receive(data)
        self._advance()

    def eof_received(self) -> bool | None:
        # Everything sent before was received.  Going through connection_lost only would first flush what we have left,
        # perhaps the terminator, to a server that has stopped talking.
        self._transactions.lost()
        self._advance()
        return None

    def connection_lost(self, error: Exception | None) -> None:
        if not self._transactions.is_over:
            # When a write fails first, replies that had already arrived are still in the socket.
            leftover = self._read_leftover()
            if (tap := self._transport.get_extra_info(TAP)) is not None:
                tap.heard(leftover)
            self._transactions.receive(leftover)
            self._transactions.lost()
        self._advance()
        if not self._closed.done():
            self._closed.set_result(None)

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._advance()

    # The work.

    def _advance(self) -> None:
        """Brings everything up to date after something has happened."""
        if self._is_advancing:  # a mark that is done at once, or a transport that resumes while it is written to
            return
        self._is_advancing = True
        transactions, transport = self._transactions, self._transport
        try:
            if transactions.settled:  # first: what a message came to may be a reason to begin no other
                self._tell()
            # A transport that is closing drops what it is given: its connection_lost will tell what came of the rest.
            while not self._is_paused and not transport.is_closing():
                output = transactions.next_output()
                if output is None:
                    break
                transport.write(output)
                if transactions.mark_wanted is not None:
                    self._ask_for_mark()
        finally:
            self._is_advancing = False
        if transactions.settled:
            self._tell()
        if transactions.is_over:
            self._close()
        else:
            self._watch()
        if self._idle is not None and not self._idle.done() and (transactions.is_over or transactions.is_idle):
            self._idle.set_result(None)

    def _tell(self) -> None:
        """Everyone whose message was decided."""
        while self._transactions.settled:
            settled, self._transactions.settled = self._transactions.settled, []
            for exchange in settled:
                assert isinstance(exchange, Transfer) and exchange.result is not None  # noqa: S101
                exchange.decided(exchange.result)

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._duplicate is not None:  # while it is open, the connection is
            self._duplicate.close()
            self._duplicate = None
        if self._transport.is_closing():
            return
        if self._transactions.has_left:
            self._transport.close()  # over TLS the server is notified that this is the end and not a cut
        else:
            self._transport.abort()

    def _ask_for_mark(self) -> None:
        transfer, self._transactions.mark_wanted = self._transactions.mark_wanted, None
        assert isinstance(transfer, Transfer)  # noqa: S101

        def done(error: BaseException | None) -> None:
            if transfer.is_marked or transfer.result is not None:
                return
            if error is not None:  # without its mark a message is not ended, and the session cannot be used for another
                self.abort()
            else:
                self._transactions.marked(transfer)
                if transfer.may_go_on:  # else the server has to say so first
                    self._advance()

        try:
            transfer.mark(done)
        except Exception as error:
            done(error)

    def _read_leftover(self) -> bytes:
        pieces: list[bytes] = []
        size = 0
        with contextlib.suppress(OSError):
            while self._duplicate is not None and size < _LONGEST_LEFTOVER and (data := self._duplicate.recv(65_536)):
                pieces.append(data)
                size += len(data)
        return b"".join(pieces)

    # The time.

    def _watch(self) -> None:
        """Something moved: the server has the whole time for its next step again.

        There is one timer, set to the shortest patience of any step and never set back: when it rings it looks for what
        the server was given the time, and is wound again.  So it never rings late, and a message costs no timer.
        """
        self._moved_at = self.loop.time()
        if self._timer is None and not self._transactions.is_idle:
            self._timer = self.loop.call_at(self._moved_at + self._shortest, self._ring)

    def _ring(self) -> None:
        self._timer = None
        awaited = self._transactions.awaited
        if awaited is None or awaited is Step.QUIT:  # anyone who says QUIT watches the time for it
            return
        now, patience = self.loop.time(), self._patience[awaited]
        if now >= self._moved_at + patience:
            self._transactions.timed_out(patience)
            self._advance()
        else:
            self._timer = self.loop.call_at(min(self._moved_at + patience, now + self._shortest), self._ring)


def _nothing() -> Transfer | None:
    """There is no message to be had."""


def _duplicated(transport: asyncio.Transport) -> socket.socket | None:
    """Another descriptor of the same plain connection, to read what a transport drops when it fails.

    None over TLS, where the bytes would mean nothing, and when there are no descriptors left.
    """
    if transport.get_extra_info("ssl_object") is not None:
        return None
    connection = transport.get_extra_info("socket")
    try:
        duplicate = socket.socket(fileno=os.dup(connection.fileno()))
    except OSError:
        return None
    duplicate.setblocking(False)
    return duplicate
