"""Whether two domains belong to one organisation, by the public suffix list."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList


def organization(domain: str) -> str:
    """The organisational domain (RFC 7489 §3.2), in A-labels: the public suffix and the label before it.

    A public suffix itself and an address literal are their own.  The first call may take a tenth of a second.
    """
    domain = _ascii(domain)
    if domain.count(".") < 2 or domain.startswith("["):
        return domain  # two labels are the least that an organisation has below a suffix
    return _list().privatesuffix(domain) or domain


def is_aligned(one: str, other: str) -> bool:
    """Whether two domains are of one organisation (RFC 7489 §3.1, relaxed)."""
    one, other = _ascii(one), _ascii(other)
    if one == other:
        return True
    # Domains of one organisation end in the same two labels: most questions need no list.
    return one.rsplit(".", 2)[-2:] == other.rsplit(".", 2)[-2:] and organization(one) == organization(other)


def _ascii(domain: str) -> str:
    """In lower case and A-labels, without the dot of the root; as it is if it is no domain."""
    domain = domain.lower().removesuffix(".")
    if domain.isascii():
        return domain
    import idna

    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except idna.IDNAError:
        return domain


@lru_cache(maxsize=1)
def _list() -> PublicSuffixList:
    """Read when it is first needed: 10,000 rules."""
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList()
