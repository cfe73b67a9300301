"""Addresses that say what a bounce is about: VERP, and short keyed tokens that name a run and one of its rows."""

from __future__ import annotations

import hmac
import re
from base64 import b32decode, b32encode
from collections.abc import Iterable, Iterator
from functools import lru_cache

from bulkmail.model.campaign import BounceKey
from bulkmail.model.errors import AddressError
from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.model.recipient import LONGEST_ADDRESS, LONGEST_LOCAL_PART, Address

PLACEHOLDER = "{verp}"
"""The address that is written to: anyone can read and write it."""

TOKEN = "{bounce}"  # noqa: S105 - the name of a placeholder
"""A short token of `bounce_token`: it cannot be forged."""


SIGNS = "-+=._"
"""What may stand between the parts of a local part."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """`bounces+{verp}@example.com` taken apart.  `plain` is the address without what makes it one person's.

    `has_token`: it is a token that stands there, `{bounce}`, and not the address.
    """

    before: str
    after: str
    domain: str
    plain: str
    has_token: bool = False

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Raises `AddressError` when it is no address with one placeholder before the @, and something beside it.

        A token needs a sign of `+-=._` or nothing on either side, or it could not be found again.
        """
        local, _, domain = text.rpartition("@")
        placeholder = TOKEN if TOKEN in text else PLACEHOLDER
        if local.count(placeholder) != 1 or placeholder in domain:
            raise AddressError(f"has {placeholder} elsewhere than once before the @")
        if placeholder is TOKEN and PLACEHOLDER in text:
            raise AddressError(f"has both {TOKEN} and {PLACEHOLDER}; keep {TOKEN}, which tells more")
        before, after = local.split(placeholder)
        if placeholder is TOKEN and not (before[-1:] in SIGNS and after[:1] in SIGNS):
            raise AddressError(f"has a letter or digit right beside {TOKEN}; write bounces+{TOKEN}@example.com")
        plain = Address.parse(without(text, placeholder))
        Address.parse(f"{before}a=b.example{after}@{domain}")
        return cls(before, after, plain.domain, plain.wire, placeholder is TOKEN)

    def fill(self, forward_path: str, token: str = "") -> str:
        """`bounces+ann=example.org@example.com`; `plain` where that would be longer than a path may be."""
        local, _, domain = forward_path.rpartition("@")
        filled = f"{self.before}{token if self.has_token else f'{local}={domain}'}{self.after}"
        size = len(filled.encode())
        is_too_long = size > LONGEST_LOCAL_PART or size + 1 + len(self.domain) > LONGEST_ADDRESS
        return self.plain if is_too_long else f"{filled}@{self.domain}"

    def take(self, reverse_path: str) -> Address | None:
        """The address that `fill` put in; None when there is none."""
        local, _, domain = reverse_path.strip().rpartition("@")
        lowered, before, after = local.lower(), self.before.lower(), self.after.lower()
        has_room = len(local) > len(before) + len(after)
        if not (has_room and domain.lower() == self.domain and lowered.startswith(before) and lowered.endswith(after)):
            return None
        user, _, host = local[len(before) : len(local) - len(after)].rpartition("=")
        try:
            return Address.parse(f"{user}@{host}")
        except AddressError:
            return None


@lru_cache(maxsize=1024)
def parse_pattern(text: str) -> Pattern:
    """`Pattern.parse`, remembered: nearly always it is the same for everyone."""
    return Pattern.parse(text)


def decode_verp(reverse_path: str, pattern: str) -> Address | None:
    """Who a bounce to `reverse_path` is about, `pattern` being the campaign's setting; None if it does not say.

    Anyone can write to such an address: trust a bounce only as far as its content proves it.  Raises `ValueError` for a
    pattern that is none.
    """
    return parse_pattern(pattern).take(reverse_path)


def without(pattern: str, placeholder: str) -> str:
    """`bounces@example.com` of `bounces+{verp}@example.com`: the signs beside the placeholder go with it."""
    return re.sub(rf"[{SIGNS}]*{re.escape(placeholder)}[{SIGNS}]*", "", pattern, count=1)


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
        for piece in re.split(f"[{SIGNS}]+", address.rpartition("@")[0][:_LONGEST_LOOKED_AT]):
            if len(piece) <= _LONGEST:
                yield piece


_LONGEST_LOOKED_AT = 256
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
