"""Short keyed tokens that name a run and one of its rows or deliveries: `{bounce}` in a reverse path, X-Bulkmail-Id.

A token is base32 in lower case, so that it survives servers that fold case: the numbers as varints, then 48 bits of an
HMAC over them.  Anyone who answers to one has seen the message or its envelope.
"""

from __future__ import annotations

import hmac
import re
from base64 import b32decode, b32encode
from collections.abc import Iterable, Iterator

from bulkmail.message.verp import SIGNS
from bulkmail.model.keys import BounceKey
from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.model.pattern import lazy_pattern

FIELD = "X-Bulkmail-Id"

_TAG_BYTES = 6
_LONGEST = 40  # characters
_LARGEST = 1 << 63
_TOKEN = lazy_pattern(r"[a-z2-7]{13,40}")
_ROW, _DELIVERY = b"bulkmail row\0", b"bulkmail delivery\0"


@dataclass(frozen=True, slots=True)
class TokenSubject:
    """What a token names: the run's number in the register, and a row or a delivery of it; the other is None."""

    run: int
    row: int | None = None
    delivery: int | None = None


class BounceTokens:
    """Writes the tokens of one run."""

    def __init__(self, key: BounceKey) -> None:
        self._key = bytes.fromhex(key.key.reveal())
        self._run = _varint(key.run)

    def of_delivery(self, delivery: int) -> str:
        """The token of one forward path of one row, for its reverse path."""
        return self._token(_DELIVERY, delivery)

    def of_row(self, row: int) -> str:
        """The token of a row's message, which is the same for all who get a copy of it."""
        return self._token(_ROW, row)

    def field(self, row: int) -> bytes:
        """The header field that tells whose message it is, also where a service replaces the Message-ID."""
        return f"{FIELD}: {self.of_row(row)}\r\n".encode("ascii")

    def _token(self, what: bytes, number: int) -> str:
        named = self._run + _varint(number)
        return b32encode(named + _tag(self._key, what, named)).decode("ascii").rstrip("=").lower()


def read_token(text: str, key: bytes) -> TokenSubject | None:
    """What `text` names, in capitals or not; None when it was not made with `key`."""
    text = text.strip().lower()
    if not _TOKEN.fullmatch(text):
        return None
    try:
        raw = b32decode(text.upper() + "=" * (-len(text) % 8))
    except ValueError:
        return None
    named, tag = raw[:-_TAG_BYTES], raw[-_TAG_BYTES:]
    numbers = _numbers(named)
    if numbers is None:
        return None
    is_row = hmac.compare_digest(tag, _tag(key, _ROW, named))
    is_delivery = hmac.compare_digest(tag, _tag(key, _DELIVERY, named))
    if is_row:
        return TokenSubject(numbers[0], row=numbers[1])
    return TokenSubject(numbers[0], delivery=numbers[1]) if is_delivery else None


def find_token(addresses: Iterable[str], key: bytes) -> TokenSubject | None:
    """What the first of `addresses` names that has a token in its local part."""
    for piece in _pieces(addresses):
        if (found := read_token(piece, key)) is not None:
            return found
    return None


def _pieces(addresses: Iterable[str]) -> Iterator[str]:
    for address in addresses:
        for piece in re.split(f"[{SIGNS}]+", address.rpartition("@")[0][:LONGEST_LOCAL_PART]):
            if len(piece) <= _LONGEST:
                yield piece


LONGEST_LOCAL_PART = 256
"""Characters of a local part that are looked at; some servers rewrite addresses into longer ones."""


def _tag(key: bytes, what: bytes, named: bytes) -> bytes:
    return hmac.digest(key, what + named, "sha256")[:_TAG_BYTES]


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the top bit says that another byte follows."""
    raw = bytearray()
    while number > 127:
        raw.append(number & 127 | 128)
        number >>= 7
    raw.append(number)
    return bytes(raw)


def _numbers(raw: bytes) -> tuple[int, int] | None:
    """The two numbers that `raw` are, written as `_varint` does; None for anything else."""
    found: list[int] = []
    number = shift = 0
    for byte in raw:
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            found.append(number)
            number = shift = 0
    is_whole = len(found) == 2 and shift == 0 and max(found) < _LARGEST
    return (found[0], found[1]) if is_whole and raw == _varint(found[0]) + _varint(found[1]) else None
