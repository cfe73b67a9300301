"""Text of strangers, made safe to print and to store."""

from __future__ import annotations

from bulkmail.model.pattern import lazy_pattern

LONGEST_TEXT = 500  # characters of a reply that are kept


def printable(text: str, longest: int = LONGEST_TEXT) -> str:
    """`text` on one line, without what could steer a terminal or break an encoding, cut to `longest` characters."""
    if len(text) <= longest and text.isascii() and text.isprintable():
        return " ".join(text.split())
    # Cut first: a hostile text may be megabytes; what is kept after cleaning is never longer than what went in.
    cleaned = _UNPRINTABLE.sub(" ", text[: longest * 4])
    cleaned = " ".join(cleaned.split())
    return cleaned if len(cleaned) <= longest else cleaned[: longest - 1] + "…"


# Controls (C0, DEL, C1), line and paragraph separators, bidirectional overrides and isolates, lone surrogates.
_UNPRINTABLE = lazy_pattern("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
