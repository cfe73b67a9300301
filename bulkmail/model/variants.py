"""Variants of a message: which one a recipient gets, by its address alone, so that it stays so whenever it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

from bulkmail.model.errors import ConfigError
from bulkmail.model.pattern import lazy_pattern

FIELD = "variant"
"""The field of a row that says which one it gets."""

MOST = 26
_NAME = lazy_pattern(r"[A-Za-z0-9][A-Za-z0-9_-]{0,29}")

Variants = tuple[tuple[str, int], ...]
"""Their names, each with its share of the recipients; the shares are relative to one another."""


def parse_variants(shares: Mapping[str, int]) -> Variants:
    """Raises `ConfigError` for fewer than two, for a name or a share that cannot be."""
    for name, share in shares.items():
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name[:40]!r} is not a name for a variant", hint="write a word such as a, b or short")
        if isinstance(share, bool) or not isinstance(share, int) or not 1 <= share <= 1_000_000:
            raise ConfigError(f"the share of {name!r} is not a whole number from 1", hint="write { a = 90, b = 10 }")
    if not 2 <= len(shares) <= MOST:
        raise ConfigError(f"expected 2 to {MOST} variants", hint='write variants = ["a", "b"]')
    return tuple(shares.items())


def variant_of(key: str, variants: Variants, *, salt: str) -> str:
    """The one that an `Address.key` gets.  `salt`, the campaign's name, divides people otherwise in each campaign."""
    digest = blake2b(f"{salt}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    place = int.from_bytes(digest, "big") % sum(share for _, share in variants)
    for name, share in variants:
        place -= share
        if place < 0:
            return name
    raise AssertionError("the shares add up to their sum")
