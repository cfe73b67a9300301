"""What a port speaks that does not speak SMTP as we asked for it."""

from __future__ import annotations

import re
from enum import Enum


class Clue(Enum):
    """What a port turned out to speak when it was looked at more closely."""

    NOTHING = "nothing"
    CLEAR = "SMTP that begins without TLS"
    TLS = "TLS from the first byte"
    IMAP = "IMAP"
    POP3 = "POP3"
    SSH = "SSH"
    OTHER = "something else"


def guess(first: bytes) -> Clue:
    """What speaks by its first bytes, before anything was said to it."""
    for start, clue in ((b"220", Clue.CLEAR), (b"* ", Clue.IMAP), (b"+OK", Clue.POP3), (b"SSH-", Clue.SSH)):
        if first.startswith(start):
            return clue
    # A TLS server that tires of waiting says so in an alert record: type 21, version 3.x (RFC 8446 §5.1).
    if re.match(rb"\x15\x03[\x00-\x04]", first):
        return Clue.TLS
    return Clue.OTHER if first else Clue.NOTHING
