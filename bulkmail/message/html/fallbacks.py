"""Declarations that a style gives twice, for programs that know only the older one: kept through inlining.

The inliner keeps the last declaration of a property.  So the earlier ones travel in a custom property of their own, and
are put back in front of the last one if that is what the element got.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from bulkmail.model.lazy import lazy_pattern

_MARK = "--bulkmail-earlier-"
_CARRIED = lazy_pattern(rf"{_MARK}([0-9a-f]+)\s*:\s*1\s*(?:!\s*important)?\s*(?:;|$|(?=\}}))")
_BLOCK = lazy_pattern(r"\{([^{}]*)\}")
_COMMENT = lazy_pattern(r"/\*.*?\*/", re.DOTALL)
# A piece of a declaration list: what stands in quotes or brackets, or any other character.
_PIECE = lazy_pattern(r"\"[^\"]*\"|'[^']*'|\((?:[^()\"']|\"[^\"]*\"|'[^']*'|\([^()]*\))*\)|.", re.DOTALL)


def declarations(style: str) -> Iterator[tuple[str, str]]:
    """Property, in lower case, and value of each declaration."""
    current: list[str] = []
    for piece in [*_PIECE.findall(_COMMENT.sub("", style)), ";"]:
        if piece != ";":
            current.append(piece)
            continue
        name, colon, value = "".join(current).partition(":")
        if colon and name.strip():
            yield name.strip().lower() if not name.strip().startswith("--") else name.strip(), value.strip()
        current = []


def carried(css: str) -> str:
    """A style sheet whose earlier declarations are in custom properties."""
    css = _COMMENT.sub("", css)
    return _BLOCK.sub(lambda block: f"{{{carried_style(block[1])}}}", css)


def carried_style(style: str) -> str:
    """The same of what stands in one block or attribute; as it is where nothing is declared twice."""
    found = list(declarations(style))
    last = {(name, is_important(value)): number for number, (name, value) in enumerate(found)}
    if len(last) == len(found):
        return style
    kept = []
    for number, (name, value) in enumerate(found):
        if last[name, is_important(value)] != number:
            continue
        earlier = [
            each for each, (other, each_value) in enumerate(found[:number]) if other == name and each_value != value
        ]
        same = [found[each][1] for each in earlier if is_important(found[each][1]) == is_important(value)]
        if same:
            packed = "\0".join([name, value, *same]).encode().hex()
            kept.append(f"{_MARK}{packed}: 1{' !important' if is_important(value) else ''}")
        kept.append(f"{name}: {value}")
    return "; ".join(kept)


def restored_style(style: str) -> str:
    """What the inliner made of a style, with the earlier declarations in front of their last ones."""
    if _MARK not in style:
        return style
    packed = [_unpacked(found[1]) for found in _CARRIED.finditer(style)]
    said = []
    for name, value in declarations(_CARRIED.sub("", style)):
        for other, last, earlier in packed:
            if other == name and _plain(last) == _plain(value):
                said += [f"{name}: {each}" for each in earlier]
        said.append(f"{name}: {value}")
    return "; ".join(said)


def restored(css: str) -> str:
    """A style sheet that was not inlined, as it was."""
    return _CARRIED.sub(
        lambda found: "".join(f"{n}: {each}; " for n, _, several in [_unpacked(found[1])] for each in several), css
    )


def is_important(value: str) -> bool:
    """Whether it outdoes declarations without that word."""
    return value.lower().rstrip().endswith("important")


def _unpacked(packed: str) -> tuple[str, str, list[str]]:
    name, last, *earlier = bytes.fromhex(packed).decode().split("\0")
    return name, last, earlier


def _plain(value: str) -> str:
    return re.sub(r"\s+", "", value).lower()
