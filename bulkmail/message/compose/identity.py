"""What tells one message from every other, and when it was written."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from hashlib import blake2b


def identity_of(run_id: bytes, row: int) -> str:
    """32 hexadecimal digits that no other row of any run has."""
    return blake2b(b"%b\0%d" % (run_id, row), digest_size=16).hexdigest()


def date_value(seconds: int) -> str:
    """A wall-clock time as the value of Date (RFC 5322 §3.3), in UTC."""
    return format_datetime(datetime.fromtimestamp(seconds, UTC))


@lru_cache(maxsize=256)
def date_field(seconds: int) -> bytes:
    """The header field Date."""
    return f"Date: {date_value(seconds)}\r\n".encode("ascii")
