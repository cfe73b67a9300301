"""Texts that were to be replaced before the letter went out, and were not."""

from __future__ import annotations

import re

from bulkmail.model.reply import printable

_LONGEST = 40  # characters of what is quoted

# The brackets in the words keep this file from being found by searches for what is left to do.
_LEFTOVER = re.compile(
    r"\{\{.{0,60}?(?:\}\}|$)"
    r"|\{%.{0,60}?(?:%\}|$)"
    r"|(?i:lorem\s+ipsum)"
    r"|\b(?:TO[D]O|FIX[M]E|XX[X])\b"
    r"|\*\|\w+\|\*"  # other programs' ways to name a column
    r"|%%\w+%%"
    r"|\$\{\w+\}"
    r"|\[\[\w+\]\]",
    re.MULTILINE,
)
_LOREM = re.compile(r"\blorem\b", re.IGNORECASE)
ODD_CELLS = frozenset(
    {"", "null", "NULL", "(null)", "undefined", "nan", "NaN", "None", "#N/A", "#NAME?", "#REF!", "#VALUE!", "#DIV/0!"}
)
"""Nothing, and what programs write where they have nothing to write.  `Null` is a family name."""


def leftover(text: str) -> str:
    """The first leftover in `text` as it stands there, shortened; empty if there is none."""
    if not _HINT.search(text):
        return ""
    found = _LEFTOVER.search(text) or _LOREM.search(text)
    return printable(found[0], _LONGEST) if found else ""


# Thirty times as fast as the whole pattern; nearly every cell ends here.  Each alternative begins with one plain letter
# because then, and only then, the search runs ahead to such a letter.
_HINT = re.compile(r"\{|%|\$|\*|\[|X|TO|FIX|L[Oo][Rr][Ee][Mm]|l[Oo][Rr][Ee][Mm]")


def positions(text: str) -> list[tuple[int, str]]:
    """Every leftover in `text` with where it begins."""
    found = {match.start(): printable(match[0], _LONGEST) for match in _LEFTOVER.finditer(text)}
    found |= {match.start(): match[0] for match in _LOREM.finditer(text) if match.start() not in found}
    return sorted(found.items())
