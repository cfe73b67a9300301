"""One mail transaction: the envelope as commands, the content in pieces for the wire, and the steps of the way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from hashlib import blake2b
from itertools import chain

from msgspec import Struct
from msgspec.structs import replace

from bulkmail.model.delivery import Message
from bulkmail.model.lazy import dataclass
from bulkmail.model.outcome import Breakage, Fault, Reply, Stage
from bulkmail.model.recipient import LONGEST_ADDRESS
from bulkmail.model.relay import Dsn
from bulkmail.smtp.replies import Capabilities
from bulkmail.text import printable

# -- The envelope of a message as commands, for the extensions that a server offers.


# What would end the command or the path: the address parser should have refused it; this is the last check.
_UNSAFE = re.compile("[\x00-\x20\x7f<>\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked of a server beside taking the message.  Only of one that offers it.

    `requires_tls`: that no server on the way hands it on in clear text (RFC 8689).
    """

    dsn: Dsn | None = None
    requires_tls: bool = False

    def are_refused_by(self, words: Reply) -> bool:
        """Whether `words` to MAIL or RCPT refuse a parameter of DSN, which says nothing of the message."""
        if self.dsn is None:
            return False
        return words.code in (504, 555) or (words.code == 501 and words.enhanced == "5.5.4")


NO_WISHES = Wishes()


def unsendable(message: Message, capabilities: Capabilities) -> Fault | None:
    """Why this message cannot go over this session at all, known without a word to the server; else None."""
    paths = message.envelope.forward_paths
    for path in (message.envelope.reverse_path, *paths):
        if not _is_writable(path):
            return _fault(f'"{printable(path, 80)}" cannot be written into a command to the server')
    if "" in paths:
        return _fault("the message has no recipient")
    if not capabilities.smtputf8 and _needs_smtputf8(message):
        return _fault("the address or a header needs SMTPUTF8, which the server does not offer")
    if message.is_8bit and not capabilities.eight_bit_mime:
        return _fault("the message has 8-bit content, and the server does not offer 8BITMIME")
    if capabilities.size_limit and message.size_bytes > capabilities.size_limit:
        return _fault(
            f"the message has {message.size_bytes:,} bytes, and the server takes at most {capabilities.size_limit:,}"
        )
    return None


def plain_envelope(message: Message, capabilities: Capabilities, wishes: Wishes) -> bytes:
    """MAIL, RCPT and DATA of a message to one ASCII path that asks nothing special of any server; else empty.

    What comes out is `mail_command()`, `rcpt_command()` and DATA, and such a message is never `unsendable()`.
    """
    envelope = message.envelope
    if message.needs_smtputf8 or message.is_8bit or envelope.copies or wishes is not NO_WISHES:
        return b""
    reverse, forward = envelope.reverse_path, envelope.forward_path
    if _is_plain(forward) is None or (reverse and _is_plain(reverse) is None):
        return b""
    if (limit := capabilities.size_limit) is None:
        return f"MAIL FROM:<{reverse}>\r\nRCPT TO:<{forward}>\r\nDATA\r\n".encode()
    size = sum(map(len, message.buffers))  # `message.size_bytes`, without another call a message
    if limit and size > limit:
        return b""
    return f"MAIL FROM:<{reverse}> SIZE={size}\r\nRCPT TO:<{forward}>\r\nDATA\r\n".encode()


_is_plain = re.compile(f"[!-;=?-~]{{1,{LONGEST_ADDRESS}}}").fullmatch


def joined(message: Message, other: Message) -> Message | None:
    """Both as one message to the forward paths of both, or None if one transaction cannot carry them.

    They must be the same to the byte, come from the same reverse path, and need the same of the server: a path that it
    cannot take must not keep the message from the others.
    """
    ours, theirs = message.envelope, other.envelope
    if (
        ours.reverse_path != theirs.reverse_path
        or (message.needs_smtputf8, message.is_8bit) != (other.needs_smtputf8, other.is_8bit)
        or not all(path and _is_writable(path) for path in (*ours.forward_paths, *theirs.forward_paths))
        or not _is_same(message, other)
    ):
        return None
    return replace(message, envelope=replace(ours, copies=(*ours.copies, *theirs.forward_paths)))


def _is_same(message: Message, other: Message) -> bool:
    ours, theirs = message.buffers, other.buffers
    return len(ours) == len(theirs) and all(a is b or a == b for a, b in zip(ours, theirs, strict=True))


def mail_command(message: Message, capabilities: Capabilities, wishes: Wishes = NO_WISHES) -> bytes:
    """MAIL with no more parameters than this message needs: each one may bounce at a later relay."""
    command = f"MAIL FROM:<{message.envelope.reverse_path}>"
    if capabilities.size_limit is not None:
        command += f" SIZE={message.size_bytes}"  # RFC 1870
    if message.is_8bit:
        command += " BODY=8BITMIME"  # RFC 6152
    if _needs_smtputf8(message):
        command += " SMTPUTF8"  # RFC 6531
    if wishes.requires_tls:
        command += " REQUIRETLS"  # RFC 8689
    if wishes.dsn is not None:
        command += f" RET={'FULL' if wishes.dsn.returns_full else 'HDRS'} ENVID={_envelope_id(message)}"
    return f"{command}\r\n".encode()


def rcpt_command(path: str, dsn: Dsn | None = None) -> bytes:
    """RCPT for one forward path."""
    command = f"RCPT TO:<{path}>"
    if dsn is not None:
        command += f" NOTIFY={','.join(dsn.events).upper() or 'NEVER'}"
        original = _original_recipient(path)
        if len(original) <= _LONGEST_ORIGINAL:
            command += f" ORCPT={original}"
    return f"{command}\r\n".encode()


_LONGEST_ENVELOPE_ID = 100  # characters, RFC 3461 §4.4
_LONGEST_ORIGINAL = 500  # characters, RFC 3461 §4.2
_NOT_XTEXT = re.compile("[^!-*,-<>-~]")  # RFC 3461 §4
_NOT_UTF8_XTEXT = re.compile(r"[^!-*,-<>-\[\]-~]")  # RFC 6533 §3: the backslash, too


def _envelope_id(message: Message) -> str:
    """What reports name the message by: its Message-ID, which comes from run and row, the same at each try."""
    identity = message.message_id.strip().removeprefix("<").removesuffix(">")
    if not identity or not identity.isascii() or len(text := _xtext(identity)) > _LONGEST_ENVELOPE_ID:
        return blake2b(message.message_id.encode("utf-8", "replace"), digest_size=20).hexdigest()
    return text


def _original_recipient(path: str) -> str:
    if path.isascii():
        return f"rfc822;{_xtext(path)}"
    # The 7-bit form: servers without SMTPUTF8 can pass it on.
    return "utf-8;" + _NOT_UTF8_XTEXT.sub(lambda found: f"\\x{{{ord(found[0]):X}}}", path)


def _xtext(text: str) -> str:
    return _NOT_XTEXT.sub(lambda found: f"+{ord(found[0]):02X}", text)


def _needs_smtputf8(message: Message) -> bool:
    envelope = message.envelope
    if message.needs_smtputf8 or not (envelope.forward_path.isascii() and envelope.reverse_path.isascii()):
        return True
    return bool(envelope.copies) and not all(path.isascii() for path in envelope.copies)


def _is_writable(path: str) -> bool:
    return len(path) <= LONGEST_ADDRESS and not _UNSAFE.search(path)


def _fault(what: str) -> Fault:
    return Fault(Stage.MAIL, Breakage.UNSENDABLE, what)


# -- The content of a message in pieces for the wire: after DATA dot-stuffed (RFC 5321 §4.5.2), or by BDAT.


LONGEST_PIECE = 65_536  # bytes handed to the transport at once
CHUNK_END = b"\r\n"  # the last two bytes of a chunk: without them it is not there (RFC 3030 §2)
TERMINATOR = b".\r\n"  # the CRLF before it is the end of the last line (RFC 5321 §4.1.1.4)

_DOT_AT_START = re.compile(rb"\n\.")  # finds two bytes in half the time that `in` needs


def wire_pieces(buffers: Sequence[bytes]) -> Iterator[bytes | memoryview]:
    """What to write between the 354 and the terminator, in pieces of at most `LONGEST_PIECE` bytes.

    A line that begins with a dot gets a second one, also where the line begins in another buffer than the dot.  A
    buffer that needs none is not copied unless it is so short that it pays to write it together with its neighbours.
    Content that does not end with a line gets its CRLF, or the terminator would be taken for text.
    """
    content = short_content(buffers)
    if content is None:
        return _gathered(_stuffed(buffers))
    return iter((content,) if content else ())


def short_content(buffers: Sequence[bytes]) -> bytes | None:
    """What `wire_pieces()` would write, in one piece, as nearly every message can be; None when it is too long."""
    if sum(map(len, buffers)) > LONGEST_PIECE // 2:
        return None
    content = b"".join(buffers)
    if _DOT_AT_START.search(content):
        content = content.replace(b"\n.", b"\n..")
    if content.startswith(b"."):
        content = b"." + content
    if not content.endswith(b"\r\n") and content:
        content += b"\r\n"
    return content


def chunk_pieces(message: Message) -> Iterator[bytes | memoryview]:
    """What to write by BDAT before `CHUNK_END`: the command with the size of all, and all but the last two bytes."""
    if message.size_bytes <= LONGEST_PIECE // 2:
        content = b"".join(message.buffers)
        if content.endswith(CHUNK_END):
            return iter((b"BDAT %d LAST\r\n%b" % (len(content), content[:-2]),))
    buffers = [buffer for buffer in message.buffers if buffer]
    if not buffers or not buffers[-1].endswith(CHUNK_END):
        buffers.append(CHUNK_END)
    command = b"BDAT %d LAST\r\n" % sum(map(len, buffers))
    if len(buffers[-1]) == 1:  # a line end in two buffers
        buffers[-2:] = [buffers[-2] + buffers[-1]]
    views = [memoryview(buffer) for buffer in buffers]
    views[-1] = views[-1][:-2]
    return _gathered(chain((command,), chain.from_iterable(map(_cut, views))))


def _cut(view: memoryview) -> Iterator[memoryview]:
    return (view[start : start + LONGEST_PIECE] for start in range(0, len(view), LONGEST_PIECE))


def _stuffed(buffers: Sequence[bytes]) -> Iterator[bytes | memoryview]:
    before = b"\r\n"  # the two bytes in front
    for buffer in buffers:
        if not buffer:
            continue
        if before[-1:] == b"\n" and buffer[0] == 0x2E:
            yield b"."
        # Files in base64 have no dot, and one byte is found ten times as fast as two.
        if b"." in buffer and b"\n." in buffer:
            yield from _stuffed_windows(buffer)
        else:
            view = memoryview(buffer)
            for start in range(0, len(buffer), LONGEST_PIECE):
                yield view[start : start + LONGEST_PIECE]
        before = (before + buffer[-2:])[-2:]
    if before != b"\r\n":
        yield b"\r\n"


def _stuffed_windows(buffer: bytes) -> Iterator[bytes]:
    """Windows of half a piece: stuffing makes them longer by half at most."""
    step = LONGEST_PIECE // 2
    for start in range(0, len(buffer), step):
        window = buffer[start : start + step].replace(b"\n.", b"\n..")
        if start and buffer[start - 1] == 0x0A and window[0] == 0x2E:
            window = b"." + window
        yield window


def _gathered(parts: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """Short parts joined; a part of half a piece or more goes as it is, in order."""
    short: list[bytes | memoryview] = []
    size = 0
    for part in parts:
        if short and (size + len(part) > LONGEST_PIECE or len(part) >= LONGEST_PIECE // 2):
            yield b"".join(short)
            short, size = [], 0
        if len(part) >= LONGEST_PIECE // 2:
            yield part
        else:
            short.append(part)
            size += len(part)
    if short:
        yield b"".join(short)


# -- One message on its way over a session, and the steps of that way.


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
