"""A message to one person, ready for the line."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

from msgspec import Struct


# Both are made for every message: making a Struct takes a tenth of the time.
class Envelope(Struct, frozen=True):
    """What the relay gets as sender and recipients.  All paths are addresses without angle brackets (RFC 5321 §2.3.1).

    An empty reverse path is the null path `<>`.  `copies` are further forward paths of the same transaction.
    """

    reverse_path: str
    forward_path: str
    copies: tuple[str, ...] = ()

    @property
    def forward_paths(self) -> tuple[str, ...]:
        """All of them, in the order of their RCPT commands."""
        return (self.forward_path, *self.copies)


class Message(Struct, frozen=True):
    """Content as a sequence of buffers, CRLF line ends throughout, ending in CRLF, not dot-stuffed.

    No bare CR or LF, no NUL, no byte above 127 unless `is_8bit`, no line over 998 bytes (RFC 5322 §2.1.1).  Buffers
    may be shared between messages and are never changed.
    """

    envelope: Envelope
    message_id: str
    buffers: Sequence[bytes]
    needs_smtputf8: bool = False
    is_8bit: bool = False

    @property
    def size_bytes(self) -> int:
        """What RFC 1870 counts: the bytes between DATA and the terminator, without dot-stuffing."""
        return sum(map(len, self.buffers))

    def digest(self) -> bytes:
        """16 bytes that differ when the content or the envelope does: a resend must have the same."""
        envelope = self.envelope
        paths = "\0".join((envelope.reverse_path, envelope.forward_path, *envelope.copies, ""))
        state = blake2b(paths.encode(), digest_size=16)
        for buffer in self.buffers:
            state.update(buffer if len(buffer) < _LONG else _digest_of(buffer))
        return state.digest()


_LONG = 1_000_000  # bytes: such a buffer is an enclosure, and mostly the same one in every message


@lru_cache(maxsize=2)
def _digest_of(buffer: bytes) -> bytes:
    return blake2b(buffer).digest()
