"""Domains of addresses that are most likely mistyped, and what was meant."""

from __future__ import annotations

from functools import lru_cache

_KNOWN = {
    "gmial.com": "gmail.com",
    "gmal.com": "gmail.com",
    "gmil.com": "gmail.com",
    "gmai.com": "gmail.com",
    "gamil.com": "gmail.com",
    "gnail.com": "gmail.com",
    "gmail.co": "gmail.com",
    "gmail.cm": "gmail.com",
    "gmail.om": "gmail.com",
    "googlemail.co": "googlemail.com",
    "hotmial.com": "hotmail.com",
    "hotmal.com": "hotmail.com",
    "hotmil.com": "hotmail.com",
    "hotmai.com": "hotmail.com",
    "homtail.com": "hotmail.com",
    "hotmail.co": "hotmail.com",
    "hotmail.cm": "hotmail.com",
    "yaho.com": "yahoo.com",
    "yahooo.com": "yahoo.com",
    "yhoo.com": "yahoo.com",
    "yahoo.co": "yahoo.com",
    "yahoo.cm": "yahoo.com",
    "outlok.com": "outlook.com",
    "outloo.com": "outlook.com",
    "outllok.com": "outlook.com",
    "outlook.co": "outlook.com",
    "iclod.com": "icloud.com",
    "icoud.com": "icloud.com",
    "icloud.co": "icloud.com",
    "gmx.ed": "gmx.de",
    "wbe.de": "web.de",
    "t-onlin.de": "t-online.de",
    "t-onlie.de": "t-online.de",
    "tonline.de": "t-online.de",
}
# Only names of at least five letters: a shorter one is too often one letter off another real domain.
_PROVIDERS = ("gmail", "googlemail", "hotmail", "outlook", "yahoo", "icloud", "protonmail", "fastmail", "comcast")
# One letter off, and real all the same.
_REAL = frozenset("email ymail mail hotmai1 grail gail gmails gemail cloud yahoos outlooks yaboo".split())  # noqa: SIM905
# No top-level domain is called so.
_ENDINGS = {
    "con": "com", "cmo": "com", "ocm": "com", "vom": "com", "xom": "com", "comm": "com", "coom": "com", "cpm": "com",
    "ogr": "org", "orgg": "org", "nte": "net", "ent": "net", "nett": "net", "ed": "de",
}  # fmt: skip


@lru_cache(maxsize=16_384)
def meant(domain: str) -> str:
    """The domain most likely meant by `domain`, which is in lower case; empty when it looks right."""
    if domain in _KNOWN:
        return _KNOWN[domain]
    name, _, ending = domain.rpartition(".")
    if not name:
        return ""
    if ending in _ENDINGS:
        right = f"{name}.{_ENDINGS[ending]}"
        return _KNOWN.get(right, right)
    if ending != "com" or "." in name or name in _REAL or name in _PROVIDERS:
        return ""
    close = [each for each in _PROVIDERS if each[0] == name[0] and _is_one_slip(name, each)]
    return f"{close[0]}.com" if len(close) == 1 else ""


def _is_one_slip(one: str, other: str) -> bool:
    """Whether one letter was left out, added, doubled, exchanged, or two neighbours swapped."""
    if abs(len(one) - len(other)) > 1 or one == other:
        return False
    start = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    rest, target = one[start:], other[start:]
    return (
        rest[1:] == target
        or rest == target[1:]
        or rest[1:] == target[1:]
        or (rest[:2] == target[1::-1] and rest[2:] == target[2:])
    )
