"""Names of files as people see them: Macs write an accent as a character of its own, others as a part of the letter."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable


def composed(name: str) -> str:
    """The name with each accent in its letter (NFC), as everything but a Mac writes it."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def same_name(wanted: str, names: Iterable[str]) -> str:
    """That of `names` which differs from `wanted` only in how accents are written; empty if there is none."""
    if wanted.isascii():
        return ""
    plain = composed(wanted)
    return min((name for name in names if composed(name) == plain), default="")


def other_case(wanted: str, names: Iterable[str]) -> str:
    """That of `names` which differs from `wanted` only in upper and lower case; empty if there is none."""
    plain = composed(wanted).casefold()
    return min((name for name in names if composed(name).casefold() == plain), default="")
