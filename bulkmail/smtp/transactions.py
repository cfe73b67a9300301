"""Mail transactions as a conversation on paper: messages and octets in, octets and decisions out.

No socket, no clock.  Every command written is remembered until its reply comes, in order; a reply that nothing waits
for is never booked to a message.  The mode is the plain one: a command goes out when the one before it is answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import Enum

from bulkmail.model.message import Message
from bulkmail.model.reply import Breakage, Fault, Reply, Stage, make_reply
from bulkmail.model.units import say_duration
from bulkmail.smtp.capabilities import Capabilities
from bulkmail.smtp.content import TERMINATOR, wire_pieces
from bulkmail.smtp.envelopes import mail_command, rcpt_command
from bulkmail.smtp.replies import RawReply, ReplyError, ReplyParser


class Step(Enum):
    """What is written for a message, in this order; no reply belongs to BODY.  QUIT is for the session.

    `words` name what the server has to answer.  `stage` is how far a message has come when this has been written: with
    RSET, nothing of it has been said.
    """

    RSET = ("RSET", Stage.MAIL)
    MAIL = ("MAIL", Stage.MAIL)
    RCPT = ("RCPT", Stage.RCPT)
    DATA = ("DATA", Stage.DATA)
    BODY = ("the message", Stage.BODY)
    END = ("the end of the message", Stage.END)
    QUIT = ("QUIT", Stage.MAIL)

    def __init__(self, words: str, stage: Stage) -> None:
        self.words = words
        self.stage = stage


class Exchange:
    """One message on its way over one session.

    `stage` is how far it has come: END from the moment that the first octet of the terminator was handed out.  `step`
    is what is to be written next.  `result` is what decided it, None until then.
    """

    __slots__ = ("is_marked", "message", "pieces", "result", "stage", "step")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.stage = Stage.MAIL
        self.step = Step.MAIL
        self.pieces: Iterator[bytes | memoryview] = iter(())
        self.is_marked = False
        self.result: Reply | Fault | None = None


class Transactions:
    """The transactions of one session, in the order submitted.

    Whoever owns the transport tells what happens (`submit`, `receive`, `marked`, `lost` …), then writes what
    `next_output` gives until that is None or writing is paused, then looks at the three answers:

    `mark_wanted`: the envelope of this exchange is written, and its terminator waits for `marked`.  The owner sets it
    back to None.  `settled`: exchanges that have a result; the owner clears it.  `is_over`: nothing more may be
    written, and `farewell` says why.
    """

    def __init__(self, capabilities: Capabilities, *, peer: str) -> None:
        self.mark_wanted: Exchange | None = None
        self.settled: list[Exchange] = []
        self.is_over = False
        self.has_left = False  # over because both sides said goodbye
        self.farewell = ""
        self.begun = 0  # messages whose MAIL was written
        self._capabilities = capabilities
        self._peer = peer
        self._parser = ReplyParser()
        self._queue: deque[Exchange] = deque()
        self._current: Exchange | None = None
        self._expected: deque[tuple[Step, Exchange | None]] = deque()
        self._is_open = False  # a refused transaction waits at the server for its RSET
        self._is_leaving = False

    @property
    def awaited(self) -> Step | None:
        """What the server has to do next: answer a step, or take more of the BODY.  None if it is not its turn."""
        if self._expected:
            return self._expected[0][0]
        if self._current is not None and self._current.step is Step.BODY:
            return Step.BODY
        return None

    # What goes in.

    def submit(self, exchange: Exchange) -> None:
        """Queues a message that this session can carry (`envelopes.unsendable` is None)."""
        if self.is_over:
            self._settle(exchange, Fault(Stage.MAIL, Breakage.LOST, self.farewell))
        else:
            self._queue.append(exchange)

    def leave(self) -> None:
        """Says QUIT after the last message."""
        self._is_leaving = True

    def marked(self, exchange: Exchange) -> None:
        """The mark of this exchange is durable: its terminator may be written."""
        exchange.is_marked = True

    def receive(self, data: bytes) -> None:
        """Takes octets from the server and acts on every reply that they complete.  Never raises."""
        parser = self._parser
        parser.feed(data)
        try:
            while (reply := parser.next_reply()) is not None:
                if self.is_over:
                    return
                if self._expected:
                    self._on_reply(reply)
                else:
                    self._on_unsolicited(reply)
        except ReplyError as error:
            self._break(str(error))
            return
        # Nothing is written between replies of one piece, so what is left over was sent before it was asked for.
        if not self._expected and parser.has_partial:
            self._break("said something before it was asked")

    def lost(self) -> None:
        """The connection has ended, and everything that came over it was received."""
        self._end(Breakage.LOST, f"{self._peer} closed the connection {self._where()}")

    def timed_out(self, seconds: float) -> None:
        """The server did not do what is `awaited` within this time."""
        within = f"within {say_duration(seconds)}"
        if self.awaited is Step.BODY:
            self._end(Breakage.TIMEOUT, f"{self._peer} took nothing more of the message {within}")
        else:
            asked = self.awaited.words if self.awaited else "anything"
            self._end(Breakage.TIMEOUT, f"{self._peer} did not answer {asked} {within}")

    def stop(self) -> None:
        """We give the session up."""
        self._end(Breakage.STOPPED, f"the session with {self._peer} was stopped {self._where()}")

    # What goes out.

    def next_output(self) -> bytes | memoryview | None:
        """What to write now, at most 64 KB; None while it is not our turn.

        To be called only when the octets are handed to the transport at once, and not while writing is paused: the
        terminator comes out of here too, and once it does the message may be delivered.
        """
        if self._expected or self.is_over:
            return None
        exchange = self._current
        if exchange is None:
            if not self._queue:
                return self._quit() if self._is_leaving else None
            exchange = self._current = self._queue.popleft()
            if self._is_open:
                exchange.step = Step.RSET
        if exchange.step is Step.BODY:
            piece = next(exchange.pieces, None)
            if piece is not None:
                return piece
            exchange.step = Step.END
        if exchange.step is Step.END and not exchange.is_marked:
            return None
        return self._command(exchange)

    def _command(self, exchange: Exchange) -> bytes:
        step = exchange.step
        self._expected.append((step, exchange))
        exchange.stage = step.stage
        if step is Step.MAIL:
            self.begun += 1
            return mail_command(exchange.message, self._capabilities)
        if step is Step.RCPT:
            return rcpt_command(exchange.message)
        if step is Step.DATA:
            self.mark_wanted = exchange
            return b"DATA\r\n"
        return TERMINATOR if step is Step.END else b"RSET\r\n"

    def _quit(self) -> bytes:
        self._is_leaving = False
        self._expected.append((Step.QUIT, None))
        return b"QUIT\r\n"

    # What a reply means.

    def _on_reply(self, reply: RawReply) -> None:
        step, exchange = self._expected.popleft()
        if exchange is None:
            self.has_left = True
            self._end(Breakage.LOST, f"{self._peer} was told goodbye")
        elif reply.code == 421:
            self._end_with(exchange, reply)
        elif reply.code >= 400:
            self._on_refusal(step, exchange, reply)
        elif step is Step.DATA and reply.code == 354:
            exchange.step = Step.BODY
            exchange.stage = Stage.BODY
            exchange.pieces = wire_pieces(exchange.message.buffers)
        elif step is Step.END and reply.code < 300:
            self._decide(exchange, reply)
        elif step is Step.MAIL and reply.code < 300:
            exchange.step = Step.RCPT
        elif step is Step.RCPT and reply.code < 300:
            exchange.step = Step.DATA
        elif step is Step.RSET and reply.code < 300:
            self._is_open = False
            exchange.step = Step.MAIL
        else:
            self._break(f"answered {step.words} with {reply.code}")

    def _on_refusal(self, step: Step, exchange: Exchange, reply: RawReply) -> None:
        if step is Step.RSET:
            # Whatever is open there would be mixed into the next message.
            self._break(f"answered RSET with {reply.code}")
            return
        # A refused MAIL opens nothing, and after the terminator a transaction is over whatever the answer.
        self._is_open = step in (Step.RCPT, Step.DATA)
        self._decide(exchange, reply)

    def _on_unsolicited(self, reply: RawReply) -> None:
        exchange = self._current
        if reply.code == 421:
            self._end_with(exchange, reply)
        elif exchange is not None and exchange.stage is Stage.BODY and reply.code >= 400:
            # It has seen enough of the content (too big, spam) and does not wait for the rest.
            self._end_with(exchange, reply)
        else:
            self._break(f"said {reply.code} before it was asked")

    def _decide(self, exchange: Exchange, reply: RawReply) -> None:
        self._current = None
        self._settle(exchange, make_reply(exchange.stage, reply.code, reply.lines))

    def _end_with(self, exchange: Exchange | None, reply: RawReply) -> None:
        """The server ends the session; its words decide the message under way."""
        words = make_reply(exchange.stage if exchange else Stage.MAIL, reply.code, reply.lines)
        if exchange is not None:
            self._current = None
            self._settle(exchange, words)
        self._end(Breakage.LOST, f"{self._peer} ended the session: {words}")

    def _break(self, what: str) -> None:
        self._end(Breakage.DESYNC, f"{self._peer} broke the protocol: it {what}")

    def _end(self, kind: Breakage, what: str) -> None:
        """Nothing more is written; what has no result gets a fault at the stage that it had reached."""
        if self.is_over:
            return
        self.is_over = True
        self.farewell = what
        self._expected.clear()
        exchange, self._current = self._current, None
        if exchange is not None:
            self._settle(exchange, Fault(exchange.stage, kind, what))
        while self._queue:
            self._settle(self._queue.popleft(), Fault(Stage.MAIL, kind, what))

    def _settle(self, exchange: Exchange, result: Reply | Fault) -> None:
        exchange.result = result
        self.settled.append(exchange)

    def _where(self) -> str:
        step = self.awaited
        if step is not None and step is not Step.BODY:
            return f"before it answered {step.words}"
        return "in the middle of the message" if self._current is not None else "between two messages"
