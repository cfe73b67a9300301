"""One open connection to a relay: carries bytes between a transport and the protocol, and watches the time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import Self

from bulkmail.smtp.opening import Access, Timeouts, check_requiretls, open_dialogue
from bulkmail.smtp.peer_policy import CloseReason, PeerPolicy
from bulkmail.smtp.protocol import Protocol
from bulkmail.smtp.replies import SessionRefused
from bulkmail.smtp.tap import TAP
from bulkmail.smtp.transaction import Step, Transfer, plain_envelope
from bulkmail.text import printable

PROBE_PATIENCE = 30.0  # seconds; silence is an answer, too: it means no
_READ_AT_ONCE = 8_192  # bytes
_LONGEST_LEFTOVER = 262_144  # bytes read from a dead connection at the most

More = Callable[[], Transfer | None]


class SmtpConnection(asyncio.BufferedProtocol):
    """A connection past greeting, TLS and login, until its end.  Never a reply booked to another message than its own.

    All work is done where bytes arrive: there the next message is requested, and there its owner learns what a message
    came to.  Eight of its methods are those that asyncio and the engine call by their names.
    """

    def __init__(self, transport: asyncio.Transport, protocol: Protocol, *, timeouts: Timeouts) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._protocol = protocol
        self._quit_timeout = timeouts.quit
        self._turn = asyncio.Lock()
        self._idle: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._is_paused = False
        self._is_advancing = False
        # Replies are short.  Without a buffer of ours asyncio asks the system for a quarter of a megabyte each time.
        self._buffer = memoryview(bytearray(_READ_AT_ONCE))
        self._patience = _Patience(self._loop, protocol, timeouts, self._advance)
        self._duplicate = _duplicated(transport)
        transport.set_protocol(self)
        # Paused means: something of what was written is still in our own buffers.  That is what the terminator waits
        # for, unless it goes in one write with a short message.  A TLS transport pauses at its limit already.
        over_tls = transport.get_extra_info("ssl_object") is not None
        transport.set_write_buffer_limits(high=1 if over_tls else 0, low=0)

    @classmethod
    async def open(cls, access: Access, policy: PeerPolicy | None = None) -> Self:
        """A connection to a relay: secured and logged in as its URL says, with one login attempt at most.

        `policy` is what all connections to this relay share; without it the relay is spoken to plainly.
        Raises `SessionRefused`, and `ConfigError` for settings that no server could do anything about.
        """
        said: list[str] = []
        dialogue, capabilities = await open_dialogue(access, said)
        transport = dialogue.release()
        policy = policy or PeerPolicy(is_plain=True)
        try:
            check_requiretls(access.relay, transport, capabilities)
        except SessionRefused:
            transport.abort()
            raise
        terms = policy.terms(access.relay, capabilities)
        protocol = Protocol(terms, policy, peer=printable(access.relay.peer, 120), secrets=said)
        return cls(transport, protocol, timeouts=access.timeouts)

    @property
    def usable(self) -> bool:
        """Whether a message may be begun.  Once False it stays so."""
        return self._protocol.closed is None and not self._transport.is_closing()

    @property
    def transactions(self) -> int:
        """Messages begun so far."""
        return self._protocol.begun

    @property
    def delivers(self) -> bool:
        """Whether what it accepts goes to recipients: false for a server that says that it delivers nothing."""
        return not self._protocol.terms.capabilities.sandbox

    @property
    def closed_because(self) -> str:
        """Why it is over, in words for people; empty while it is not."""
        return "" if self._protocol.closed is None else self._protocol.closed.words

    @property
    def protocol(self) -> Protocol:
        """What it speaks."""
        return self._protocol

    async def carry(self, more: More) -> None:
        """Sends what `more` gives, one message after another, until it gives None and everything is decided.

        A second caller waits for the first.  `more` is called at the very moment that the next envelope can be written:
        never for a connection that is not `usable`.  The outcome of each message goes to its transfer.  Cancellation
        aborts; messages under way get a fault first, and unless at END is certainly not delivered.  A session
        that the server would soon end is left with QUIT.
        """
        protocol = self._protocol
        policy, terms = protocol.policy, protocol.terms

        def sendable() -> Transfer | None:
            while protocol.refusals < policy.bearable_refusals and not protocol.window.is_used_up:  # or it is worn out
                transfer = more()
                if transfer is None:
                    return None
                transfer.envelope = plain_envelope(transfer.message, terms.capabilities, terms.wishes)
                if transfer.envelope or (fault := protocol.check(transfer)) is None:
                    return transfer
                transfer.decided(fault)
            return None

        async with self._turn:
            was_open = protocol.closed is None
            try:
                await self._carry(sendable)
                if self.usable and protocol.is_worn_out:
                    await self.quit()
            finally:
                if was_open and protocol.closed is not None:
                    protocol.policy.learn(protocol.closed)

    async def _carry(self, more: More) -> None:
        self._idle = self._loop.create_future()
        self._protocol.more = more
        if self._transport.is_closing() and self._protocol.is_idle:
            self._protocol.lost()
        self._advance()
        try:
            await self._idle
        except BaseException:
            self.abort()
            raise
        finally:
            self._idle = None
            self._protocol.more = _nothing

    async def quit(self) -> None:
        """Says QUIT and waits a few seconds for the connection to close; never raises but for cancellation."""
        if not self.usable:
            self.abort()
            return
        limit = self._loop.call_later(self._quit_timeout, self.abort)
        try:
            self._protocol.leave()
            self._advance()
            await self._gone
        finally:
            limit.cancel()
            self.abort()

    def abort(self) -> None:
        """Drops the connection at once, with what is in our buffers.  A message under way comes back as a fault."""
        self._protocol.stop()
        self._advance()
        self._transport.abort()

    # For the transport.

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._protocol.receive(bytes(self._buffer[:nbytes]))
        self._advance()

    def data_received(self, data: bytes) -> None:
        """Bytes from the server, where something stands between the transport and us."""
        self._protocol.receive(data)
        self._advance()

    def eof_received(self) -> bool | None:
        # Everything sent before was received.  Going through connection_lost only would first flush what we have left,
        # perhaps the terminator, to a server that has stopped talking.
        self._protocol.lost()
        self._advance()
        return None

    def connection_lost(self, error: Exception | None) -> None:
        if self._protocol.closed is None:
            # When a write fails first, replies that had already arrived are still in the socket.
            leftover = self._read_leftover()
            if (tap := self._transport.get_extra_info(TAP)) is not None:
                tap.heard(leftover)
            self._protocol.receive(leftover)
            self._protocol.lost()
        self._advance()
        if not self._gone.done():
            self._gone.set_result(None)

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
        protocol, transport = self._protocol, self._transport
        try:
            if protocol.settled:  # first: what a message came to may be a reason to begin no other
                self._tell()
            # A transport that is closing drops what it is given: its connection_lost will tell what came of the rest.
            while not (protocol.is_in_step or self._is_paused or transport.is_closing()):
                output = protocol.next_output()
                if output is None:
                    break
                transport.write(output)
                if protocol.mark_wanted is not None:
                    self._ask_for_mark()
        finally:
            self._is_advancing = False
        if protocol.settled:
            self._tell()
        patience = self._patience
        if protocol.closed is None:
            patience.moved_at = self._loop.time()
            if patience.timer is None:
                patience.set()
            if protocol.flight:
                return
        else:
            self._close()
        if self._idle is not None and not self._idle.done() and (protocol.closed is not None or protocol.is_idle):
            self._idle.set_result(None)

    def _tell(self) -> None:
        """The owner of each message that was decided."""
        protocol = self._protocol
        while protocol.settled:
            settled, protocol.settled = protocol.settled, []
            for transfer in settled:
                assert transfer.result is not None  # noqa: S101
                transfer.decided(transfer.result)

    def _close(self) -> None:
        self._patience.end()
        if self._duplicate is not None:  # while it is open, the connection is
            self._duplicate.close()
            self._duplicate = None
        if self._transport.is_closing():
            return
        closed = self._protocol.closed
        if closed is not None and closed.why is CloseReason.GOODBYE:
            self._transport.close()  # over TLS the server sees that this is the end and not a cut
        else:
            self._transport.abort()

    def _ask_for_mark(self) -> None:
        transfer, self._protocol.mark_wanted = self._protocol.mark_wanted, None
        assert transfer is not None  # noqa: S101

        def done(error: BaseException | None) -> None:
            if transfer.is_marked or transfer.result is not None:
                return
            if error is not None:  # without its mark a message is not ended, and the session cannot be used for another
                self.abort()
            else:
                transfer.is_marked = True
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


class _Patience:
    """How long the server may take for its next step; when it takes longer, the protocol learns it.

    `moved_at` is when something moved last: since then it has the whole time for its next step.

    There is one timer, set to the shortest patience of any step and never set back: when it rings it looks for what
    the server was given the time, and is wound again.  So it never rings late, and a message costs no timer.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, protocol: Protocol, timeouts: Timeouts, advance: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._protocol = protocol
        self._advance = advance
        self.timer: asyncio.TimerHandle | None = None
        self.moved_at = loop.time()
        self._seconds = {
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
        self._shortest = min(self._seconds.values())

    def set(self) -> None:
        """Winds the timer, which is not wound, if there is something to wait for."""
        if not self._protocol.is_idle:
            self.timer = self._loop.call_at(self.moved_at + self._shortest, self._ring)

    def end(self) -> None:
        """Nothing is waited for any more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _ring(self) -> None:
        self.timer = None
        awaited = self._protocol.awaited
        if awaited is None or awaited is Step.QUIT:  # `quit()` watches the time for it
            return
        now, seconds = self._loop.time(), self._seconds[awaited]
        if now >= self.moved_at + seconds:
            self._protocol.timed_out(seconds)
            self._advance()
        else:
            self.timer = self._loop.call_at(min(self.moved_at + seconds, now + self._shortest), self._ring)


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
