"""Whether two domains belong to one organisation."""

from __future__ import annotations

# What stands behind the last dot is a country, and what is before it a kind: nobody's own domain.
_SECOND_LEVEL = frozenset({"ac", "co", "com", "edu", "gov", "ne", "net", "or", "org"})


def organization(domain: str) -> str:
    """The part of a domain that somebody registered, as well as that can be told without the public suffix list."""
    labels = domain.lower().split(".")
    own = 3 if len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVEL else 2
    return ".".join(labels[-own:])


def is_aligned(one: str, other: str) -> bool:
    """Whether two domains are of one organisation (RFC 7489 §3.1, relaxed)."""
    return organization(one) == organization(other)
