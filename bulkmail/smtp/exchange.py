"""One message on its way over a session, and the steps of that way."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from bulkmail.model.message import Message
from bulkmail.model.reply import Fault, Reply, Stage, make_reply
from bulkmail.smtp.replies import RawReply


class Mode(Enum):
    """How much is said before the server has answered.  `depth` is how many messages may be under way at a time.

    PLAIN: a command when the one before it is answered.  PIPELINING (RFC 2920): an envelope at once, and with it the
    terminator of the message before.  CHUNKING (RFC 3030): the same, the content sent by BDAT as soon as the recipient
    is accepted.  DEEP: several whole messages ahead of any answer.
    """

    PLAIN = 1
    PIPELINING = 2
    CHUNKING = 3
    DEEP = 4

    @property
    def is_chunked(self) -> bool:
        """Whether content goes by BDAT."""
        return self in (Mode.CHUNKING, Mode.DEEP)


class Step(Enum):
    """What is written and answered; no reply belongs to BODY.

    `words` name what the server has to answer.  `stage` is how far a message has come when this has been written: with
    RSET, nothing of it has been said.
    """

    PROBE = ("the probe", Stage.MAIL)
    FENCE = ("the end of the probe", Stage.MAIL)
    RSET = ("RSET", Stage.MAIL)
    MAIL = ("MAIL", Stage.MAIL)
    RCPT = ("RCPT", Stage.RCPT)
    DATA = ("DATA", Stage.DATA)
    BODY = ("the message", Stage.BODY)
    END = ("the end of the message", Stage.END)
    EMPTY = ("the end of nothing", Stage.DATA)  # a lone dot, where 354 came although nobody was accepted
    QUIT = ("QUIT", Stage.MAIL)

    def __init__(self, words: str, stage: Stage) -> None:
        self.words = words
        self.stage = stage


class Exchange:
    """One message on its way over one session.

    `stage` is how far it has come: END from the moment that the first octet of the terminator was handed out.
    `result` is what decided it, None until then.  `refusal` is the first refusal of its envelope, which decides it when
    the replies that this makes moot have come.
    """

    __slots__ = (
        "is_accepted",
        "is_marked",
        "is_written",
        "may_go_on",
        "message",
        "pieces",
        "refusal",
        "result",
        "stage",
        "to_write",
    )

    def __init__(self, message: Message) -> None:
        self.message = message
        self.stage = Stage.MAIL
        self.to_write: tuple[Step, ...] = ()  # of the envelope
        self.pieces: Iterator[bytes | memoryview] | None = None  # of the content, once it has begun
        self.is_accepted = False  # the recipient
        self.may_go_on = False  # with the content
        self.is_written = False  # all but its terminator
        self.is_marked = False
        self.refusal: Reply | None = None
        self.result: Reply | Fault | None = None

    def refuse(self, step: Step, reply: RawReply) -> None:
        """Notes a refusal; the first one counts."""
        if self.refusal is None:
            self.refusal = make_reply(step.stage, reply.code, reply.lines)
