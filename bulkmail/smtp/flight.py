"""What is under way on a session, and how each message of it comes to its end."""

from __future__ import annotations

from collections import deque

from bulkmail.model.reply import Breakage, Fault, Reply, Stage, make_reply
from bulkmail.model.units import say_duration
from bulkmail.smtp.ahead import Ahead, Trial
from bulkmail.smtp.replies import RawReply
from bulkmail.smtp.transfer import Exchange, Mode, Step

_NOT_IMPLEMENTED = (500, 502, 504)


class Flight:
    """Messages in the order begun, and for every command written the reply that is to come, until it is over.

    `settled` are the exchanges that have a result; the owner clears it.  `is_over`: nothing more may be written, and
    `goodbye` says why.
    """

    def __init__(self, *, peer: str, depth: int, is_lmtp: bool, ahead: Ahead) -> None:
        """`peer` is what the server is called in sentences; `ahead` is what its sessions share."""
        self.settled: list[Exchange] = []
        self.is_over = False
        self.broke_rules = False  # over because the server did not keep to the protocol
        self.was_struck_dumb = False  # over because it hung up on what was written ahead, without a single answer
        self.ended_in_probe = False
        self.refused_ahead = ""  # what was written behind the end of a message, in these words
        self.begun = 0  # messages
        self.goodbye = ""
        self.refusals = 0  # of recipients, one after the other
        self.was_shown_out = False  # over by the server's will while it was refusing recipients
        self.window = 1  # messages that DEEP has under way: grows while all goes well
        self.peer = peer
        self._depth = depth
        self._is_lmtp = is_lmtp
        self._ahead = ahead
        self.mode = Mode.PLAIN
        self._is_probing = False
        self._is_open = False  # a refused transaction waits at the server for its RSET
        self._has_refused_reset = False
        self._flight: deque[Exchange] = deque()  # begun and not decided, in order
        self._writing: Exchange | None = None  # begun and not written to its end
        self._waiting: deque[Exchange] = deque()  # given to us, to be begun next
        self._expected: deque[tuple[Step, Exchange | None]] = deque()
        self._has_answered = False
        self._clean = 0  # decided without a fault since the window was enlarged
        self._last_words = ""  # of a server that ends the session while replies are still to come
        self._goes_on = False  # although it would not even forget the transaction before

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, or waits for its turn."""
        return not (self._flight or self._expected or self._waiting)

    @property
    def awaited(self) -> Step | None:
        """What the server has to do next: answer a step, or take more of the BODY.  None if it is not its turn."""
        if self._expected:
            return self._expected[0][0]
        if self._writing is not None and self._writing.stage is Stage.BODY and not self._writing.is_written:
            return Step.BODY
        return None

    def lost(self) -> None:
        """The connection has ended, and everything that came over it was received."""
        if self.refusals > 1 and (self._flight or self._last_words):  # one that was idle ended for another reason
            self.was_shown_out = True
        if self._last_words and not self._goes_on:
            # It said that it would take no more and kept to it: what it did not answer it did not take.  Unless it had
            # begun to answer: by LMTP the others of that message may have theirs.
            for exchange in self._flight:
                if len(exchange.own) == exchange.refused:
                    exchange.stage = Stage.MAIL
            self._end(Breakage.LOST, f"{self.peer} ended the session: {self._last_words}")
        self.was_struck_dumb = len(self._expected) > 1 and not self._has_answered
        if self.mode is not Mode.DEEP and any(each is not None and each.is_ahead for _, each in self._expected):
            self._ahead.lost_behind_end += 1
            if self._ahead.lost_behind_end > 1 and self._ahead.crosses_ends:  # once may be chance
                self._ahead.crosses_ends = False
                self.refused_ahead = "closed the connection"
        self._end(Breakage.LOST, f"{self.peer} closed the connection {self._where()}")

    def timed_out(self, seconds: float) -> None:
        """The server did not do what is `awaited` within this time."""
        within = f"within {say_duration(seconds)}"
        if self.awaited is Step.BODY:
            self._end(Breakage.TIMEOUT, f"{self.peer} took nothing more of the message {within}")
        else:
            asked = self.awaited.words if self.awaited else "anything"
            self._end(Breakage.TIMEOUT, f"{self.peer} did not answer {asked} {within}")

    def stop(self) -> None:
        """We give the session up."""
        self._end(Breakage.STOPPED, f"the session with {self.peer} was stopped {self._where()}")

    @property
    def _may_learn_more(self) -> bool:
        """Whether a reply that is still to come could decide a message."""
        undecided = [exchange for _, exchange in self._expected if exchange is not None and exchange.result is None]
        return any(exchange.refusal is None or exchange.stage is Stage.END for exchange in undecided)

    def _decide(self, exchange: Exchange, result: Reply | Fault | None) -> None:
        assert result is not None  # noqa: S101
        if self._flight[0] is exchange:
            self._flight.popleft()
        else:
            self._flight.remove(exchange)
        if self._writing is exchange and exchange.pieces is None:
            self._writing = None
        exchange.decide(result)
        self.settled.append(exchange)
        if self.refusals and isinstance(result, Reply) and result.is_positive:
            self.refusals = 0
        self._clean += 1
        if self._clean >= self.window and self.window < self._depth:
            self._clean, self.window = 0, min(self._depth, self.window * 2)

    def _end_of(self, exchange: Exchange, words: Reply) -> None:
        """The reply to the end of a message, or by LMTP to that of one of its recipients."""
        if not self._is_lmtp or exchange.hear_end(words):
            self._decide(exchange, words)

    def _on_goodbye(self, exchange: Exchange, step: Step, reply: RawReply) -> None:
        """421: the server ends the session.  It refuses the message; replies to what was written may still come."""
        stage = exchange.stage if step in (Step.END, Step.EMPTY) else step.stage
        words = make_reply(stage, reply.code, reply.lines)
        self._last_words = str(words)
        self._writing = None
        if step is Step.END and self._is_lmtp and stage is Stage.END:
            self._end_of(exchange, words)
        elif step in (Step.END, Step.EMPTY):
            self._decide(exchange, exchange.refusal or words)
        else:
            if step is Step.RCPT:
                exchange.hear_recipient(words)
            exchange.refuse(words)

    def _decide_refused(self, exchange: Exchange) -> None:
        """Every reply to its envelope is here, and it was refused; or it was not heard, and goes again in its turn."""
        if not exchange.was_out_of_turn:
            self._decide(exchange, exchange.refusal)
            return
        self._flight.remove(exchange)
        if self._writing is exchange:
            self._writing = None
        self.refused_ahead = self.refused_ahead or str(exchange.refusal)
        self._ahead.crosses_ends = False
        self._is_open = True
        self.begun -= 1
        exchange.begin()
        self._waiting.append(exchange)

    def _on_refused_reset(self, reply: RawReply) -> None:
        """Whatever is open there would be mixed into the next message: nothing more is written on this session."""
        self._has_refused_reset = True
        words = make_reply(Stage.MAIL, *reply)
        if reply.code in _NOT_IMPLEMENTED:
            self._break(f"answered RSET with {reply.code}")
            return
        self._last_words = str(words)
        writing, self._writing = self._writing, None
        if writing is not None:  # no one waits for an answer to what was not written to its end
            writing.refuse(Fault(Stage.MAIL, Breakage.LOST, f"{self.peer} ended the session: {words}"))

    def _break(self, what: str) -> None:
        self.broke_rules = True
        self._end(Breakage.DESYNC, f"{self.peer} broke the protocol: it {what}")

    def _end(self, kind: Breakage, what: str) -> None:
        """Nothing more is written; what has no result gets its refusal, or a fault at the stage that it had reached."""
        if self.is_over:
            return
        self.is_over = True
        self.goodbye = what
        if self._is_probing:  # whatever ended it: the question is not worth another session
            self._is_probing, self.broke_rules = False, False
            self.ended_in_probe = kind is not Breakage.STOPPED
            self._ahead.trial = Trial.FAILED if self.ended_in_probe else Trial.UNTRIED
        self._expected.clear()
        self._writing = None
        while self._flight:
            exchange = self._flight.popleft()
            was_taken = exchange.stage is Stage.END and exchange.accepted  # by a server that had refused MAIL
            refusal = None if was_taken else exchange.refusal
            exchange.decide(refusal or Fault(exchange.stage, kind, what))
            self.settled.append(exchange)
        while self._waiting:  # nothing of them was said
            exchange = self._waiting.popleft()
            exchange.decide(Fault(Stage.MAIL, kind if kind is Breakage.STOPPED else Breakage.LOST, what))
            self.settled.append(exchange)

    def _where(self) -> str:
        step = self.awaited
        if step is not None and step is not Step.BODY:
            return f"before it answered {step.words}"
        return "in the middle of the message" if self._flight else "between two messages"
