"""One message on its way over a session, and the steps of that way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum

from msgspec import Struct

from bulkmail.model.message import Message
from bulkmail.model.reply import Fault, Reply, Stage

Done = Callable[[BaseException | None], None]
Mark = Callable[[Done], None]
Decided = Callable[[Reply | Fault], None]


class Step(Enum):
    """What is written and answered; no reply belongs to BODY.

    `words` name what the server has to answer.  `stage` is how far a message has come when this has been written: with
    RSET, nothing of it has been said.
    """

    PROBE = ("BDAT without a message", Stage.MAIL)
    FENCE = ("RSET behind it", Stage.MAIL)
    RSET = ("RSET", Stage.MAIL)
    MAIL = ("MAIL", Stage.MAIL)
    RCPT = ("RCPT", Stage.RCPT)
    DATA = ("DATA", Stage.DATA)
    BODY = ("the message", Stage.BODY)
    END = ("the end of the message", Stage.END)
    EMPTY = ("the end of nothing", Stage.DATA)  # a lone dot, where 354 came although no recipient was accepted
    QUIT = ("QUIT", Stage.MAIL)

    __hash__ = object.__hash__  # Enum's own is a Python function, and each reply looks its handler up

    def __init__(self, words: str, stage: Stage) -> None:
        self.words = words
        self.stage = stage


def _granted(done: Done) -> None:
    """No mark is needed."""
    done(None)


def _unheard(result: Reply | Fault) -> None:
    """The owner looks at `result` itself."""


# A Struct: one is made for every message, and making it takes a tenth of the time.
class Transfer(Struct, eq=False):
    """One message on its way over one session.

    `mark(done)` is called when the envelope is written; the terminator waits until `done(None)` was called.
    `done(error)` ends the session before the terminator.  `decided` receives the outcome, once.

    `stage` is how far it has come: END from the moment that the first byte of the terminator was handed out.
    `result` is what decided it, None until then.  `refusal` is the first refusal that concerns all its forward paths,
    which decides it when the replies that this makes moot have come.  `own` are the answers for one path alone, by its
    number: its RCPT refused, or by LMTP its own reply to the end.  `envelope` are MAIL, RCPT and DATA in one, where a
    message needs nothing more of a server that is spoken to ahead of its replies; else empty.

    It has more attributes than other classes because each is one fact of the same dialogue, set by one reply or write.
    """

    message: Message
    on_mark: Mark = _granted
    on_decided: Decided = _unheard
    envelope: bytes = b""
    is_marked: bool = False  # its mark is durable: its terminator may be written
    is_mark_asked: bool = False
    is_ahead: bool = False  # its envelope was written before the message in front of it was decided
    result: Reply | Fault | None = None
    stage: Stage = Stage.MAIL
    to_write: tuple[tuple[Step, bytes], ...] = ()  # of the envelope, the commands
    pieces: Iterator[bytes | memoryview] | None = None  # of the content, once it has begun
    answered: int = 0  # forward paths whose RCPT was answered
    accepted: int = 0  # … with a 2xx
    refused: int = 0  # … with a reason of their own
    may_go_on: bool = False  # with the content
    is_written: bool = False  # all but its terminator
    is_barred: bool = False  # refused before anything could be said of a recipient
    own: dict[int, Reply | Fault] = {}  # each Struct gets one of its own
    refusal: Reply | Fault | None = None

    def mark(self, done: Done) -> None:
        """Asks for the durable note that the end of this message is about to be written."""
        self.on_mark(done)

    def decided(self, result: Reply | Fault) -> None:
        """Hears what it came to."""
        self.on_decided(result)

    def begin(self) -> None:
        """As if nothing of it had been written, after the server would not hear it."""
        self.stage, self.to_write, self.pieces = Stage.MAIL, (), None
        self.answered = self.accepted = self.refused = 0
        self.may_go_on = self.is_written = self.is_barred = False
        self.own, self.refusal = {}, None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message.envelope!r}, {self.stage.value})"

    @property
    def paths(self) -> tuple[str, ...]:
        """All forward paths, in the order of their RCPT commands."""
        return self.message.envelope.forward_paths

    @property
    def is_void(self) -> bool:
        """Whether all its recipients were refused, so that nothing could be delivered.

        A 421 refuses the session: a server that says so may have accepted the recipient.
        """
        if self.refusal is None or self.accepted or self.answered < len(self.paths):
            return False
        return not (isinstance(self.refusal, Reply) and self.refusal.code == 421)

    @property
    def was_out_of_turn(self) -> bool:
        """Whether the server heard none of it because it was written behind the end of another message.

        Some refuse what is pipelined there, to be safe from smuggling, although RFC 2920 §3.1 allows it.
        """
        if not self.is_ahead or not self.is_barred or self.accepted:
            return False
        return all(
            isinstance(words, Reply) and (words.code == 503 or (words.is_permanent and "pipelin" in words.text.lower()))
            for words in (self.refusal, *self.own.values())
        )

    @property
    def has_no_end(self) -> bool:
        """Whether no reply to its end has come, by LMTP for none of its recipients."""
        return len(self.own) == self.refused

    def refuse(self, words: Reply | Fault) -> None:
        """Notes a refusal for all; the first one counts."""
        if self.refusal is None:
            self.refusal = words
            self.is_barred = not self.answered

    def decide(self, result: Reply | Fault) -> None:
        """What it came to, but for the paths that have an answer of their own."""
        if self.is_barred and result is self.refusal:
            self.own.clear()  # what was said of recipients only followed from that
        self.result = result

    def hear_recipient(self, refusal: Reply | Fault | None) -> bool:
        """The answer to the next RCPT, None for yes; whether it was the last one."""
        if refusal is None:
            self.accepted += 1
        else:
            self.own[self.answered] = refusal
            self.refused += 1
        self.answered += 1
        is_last = self.answered == len(self.paths)
        if is_last and not self.accepted and self.refusal is None:
            self.refusal = self.own[0]
        return is_last

    def hear_end(self, reply: Reply) -> bool:
        """By LMTP: the answer for the next of the accepted recipients (RFC 2033 §4.2); whether it was the last one."""
        self.own[next(number for number in range(len(self.paths)) if number not in self.own)] = reply
        return len(self.own) == len(self.paths)
