"""SASLprep: one form for names and passwords that look the same (RFC 4013)."""

from __future__ import annotations

import stringprep
import unicodedata

_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def saslprep(text: str, *, is_stored: bool) -> str:
    """`text` as both sides of a login write it.  Raises `ValueError`, which never repeats it, when it has no such form.

    A stored string, as a password is, must not use characters that Unicode 3.2 did not know; a query, as a user name
    is, may (RFC 3454 §7).
    """
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in text
        if not stringprep.in_table_b1(character)
    )
    # Unicode 3.2 and no later: both sides must come to the same form, whatever year their tables are from.
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    for character in prepared:
        if any(is_in_table(character) for is_in_table in _PROHIBITED):
            raise ValueError("a character in it is not allowed")
        if is_stored and stringprep.in_table_a1(character):
            raise ValueError("a character in it is newer than the login's rules")
    _check_direction(prepared)
    return prepared


def _check_direction(text: str) -> None:
    """Text from right to left begins and ends so, and has nothing from left to right in it (RFC 3454 §6)."""
    if not any(stringprep.in_table_d1(character) for character in text):
        return
    if any(stringprep.in_table_d2(character) for character in text):
        raise ValueError("it mixes directions of writing")
    if not (stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])):
        raise ValueError("it mixes directions of writing")
