"""The content of a message in pieces for the wire: after DATA dot-stuffed (RFC 5321 §4.5.2), or by BDAT."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain

from bulkmail.model.delivery import Message

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
