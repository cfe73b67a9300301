"""Words for people: text made safe to print, plurals, and the name that was probably meant."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from itertools import islice

LONGEST_TEXT = 500  # characters of a reply that are kept
_MOST_NAMES = 1_000  # there are some 600 time zones
_LONGEST_NAME = 100


def printable(text: str, longest: int = LONGEST_TEXT) -> str:
    """`text` on one line, without what could steer a terminal or break an encoding, cut to `longest` characters."""
    if len(text) <= longest and text.isascii() and text.isprintable():
        return " ".join(text.split())
    # Cut first: a hostile text may be megabytes; what is kept after cleaning is never longer than what went in.
    cleaned = _unprintable().sub(" ", text[: longest * 4])
    cleaned = " ".join(cleaned.split())
    return cleaned if len(cleaned) <= longest else cleaned[: longest - 1] + "…"


@cache
def _unprintable() -> re.Pattern[str]:
    """Controls (C0, DEL, C1), line and paragraph separators, bidirectional overrides and isolates, lone surrogates."""
    return re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def count(number: int, noun: str, plural: str = "") -> str:
    """`"1 row"`, `"1,204 rows"`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def close_matches(name: str, known: Iterable[str], *, most: int = 3, cutoff: float = 0.6) -> list[str]:
    """The known names that are most like `name`, the nearest first.

    Case, spaces and signs count as equal: `first_name` means the column `First name`.
    """
    from difflib import get_close_matches

    spelled: dict[str, str] = {}
    for candidate in islice(known, _MOST_NAMES):
        if 0 < len(candidate) <= _LONGEST_NAME:
            spelled.setdefault(_plain(candidate), candidate)
    return [spelled[each] for each in get_close_matches(_plain(name[:_LONGEST_NAME]), spelled, n=most, cutoff=cutoff)]


def closest(name: str, known: Iterable[str]) -> str:
    """The known name that is most like `name`, or nothing."""
    return next(iter(close_matches(name, known, most=1)), "")


def did_you_mean(name: str, known: Iterable[str], *, quote: str = '"') -> str:
    """`'did you mean "subject"?'`, or nothing when no known name is like `name`."""
    found = closest(name, known)
    return f"did you mean {quote}{printable(found)}{quote}?" if found else ""


def suggest(name: str, known: Iterable[str]) -> str:
    """The same as the end of a sentence: `"; did you mean 'subject'?"`."""
    found = did_you_mean(name, known, quote="'")
    return f"; {found}" if found else ""


def _plain(name: str) -> str:
    return re.sub(r"\W+", "_", name.strip().casefold())
