"""HTML cut into tags and attributes with their places, so that single ones can be changed and the rest left alone.

No parser is asked for that: it would write the whole page again, and move template tags about that stand in its tables.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import field
from html import unescape

from bulkmail.model.lazy import dataclass, lazy_pattern

VOID = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"}
)
# What is in these is no markup (HTML §13.2.5.1).
OPAQUE = frozenset({"style", "script", "title", "textarea", "xmp", "iframe", "noembed", "noframes"})

# Elements within elements; parsers written in C or Rust run out of stack at some ten thousands, and take us along.
DEEPEST = 500
# A start tag makes a parser look through all elements that are open: past this, a page takes seconds instead of none.
DEEPEST_READ = 2_000
# The next of their kind ends them, with an end tag or without: they nest only with others between, which count.  Cells
# and rows are not among them: in an <svg> they nest.
_ENDED_BY_NEXT = frozenset({"p", "li", "dt", "dd"})

_TOKEN = lazy_pattern(
    r"<!--.*?(?:-->|\Z)"
    r"|<[!?][^>]*>"
    r"|</(?P<end>[A-Za-z][^\s/>]*)[^>]*>"
    r"|<(?P<start>[A-Za-z][^\s/>]*)(?P<rest>(?:[^>\"']|\"[^\"]*\"|'[^']*')*)>",
    re.DOTALL,
)
_ATTRIBUTE = lazy_pattern(
    r"(?P<name>[^\s\"'>/=]+)(?:\s*=\s*(?:\"(?P<double>[^\"]*)\"|'(?P<single>[^']*)'|(?P<bare>[^\s\"'>]+)))?"
)


@dataclass(frozen=True, slots=True)
class Attribute:
    """`name` in lower case; `raw` is the value as written, `start` and `end` are of the whole attribute."""

    name: str
    raw: str
    start: int
    end: int
    value_start: int

    @property
    def value(self) -> str:
        """The value as it is meant."""
        return unescape(self.raw)


@dataclass(frozen=True, slots=True)
class Element:
    """A start tag from `start` to `end`; `name` in lower case.  `content` is where the content of an opaque one is."""

    name: str
    start: int
    end: int
    attributes: tuple[Attribute, ...]
    content: tuple[int, int] | None = None
    close: int = 0

    def get(self, name: str) -> Attribute | None:
        """The first attribute of that name; browsers follow no other."""
        return next((attribute for attribute in self.attributes if attribute.name == name), None)

    def value(self, name: str) -> str:
        """The value of an attribute; empty when it is not there."""
        attribute = self.get(name)
        return attribute.value if attribute else ""

    @property
    def after_name(self) -> int:
        """Where another attribute can be put in."""
        return self.start + 1 + len(self.name)


@dataclass(frozen=True, slots=True)
class EndTag:
    """An end tag."""

    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Remark:
    """A comment, a document type, a processing instruction."""

    start: int
    end: int


Token = Element | EndTag | Remark


def scan(text: str) -> Iterator[Token]:
    """The tags of `text` in order; what lies between them is text."""
    position = 0
    while found := _TOKEN.search(text, position):
        position = found.end()
        if found["start"] is not None:
            element = _element(found)
            if element.name in OPAQUE:
                element = _with_content(element, text)
                position = element.close
            yield element
        elif found["end"] is not None:
            yield EndTag(found["end"].lower(), found.start(), found.end())
        else:
            yield Remark(found.start(), found.end())


def elements(text: str) -> Iterator[Element]:
    """The start tags alone."""
    return (token for token in scan(text) if isinstance(token, Element))


def is_deep(text: str, deepest: int = DEEPEST) -> bool:
    """Whether elements may be nested deeper than `deepest`; what is never closed counts as going on to the end."""
    if text.count("<") <= deepest:
        return False
    depth = 0
    opened: dict[str, int] = {}
    for found in _NAME.finditer(text):
        name = found[2].lower()
        if name in VOID or name in _ENDED_BY_NEXT:
            continue
        if not found[1]:
            opened[name] = opened.get(name, 0) + 1
            depth += 1
            if depth > deepest:
                return True
        elif opened.get(name):
            opened[name] -= 1
            depth -= 1
    return False


_NAME = lazy_pattern(r"<(/?)([A-Za-z][^\s/>]*)")


def _element(found: re.Match[str]) -> Element:
    offset = found.start("rest")
    attributes = []
    for each in _ATTRIBUTE.finditer(found["rest"]):
        group = next((name for name in ("double", "single", "bare") if each[name] is not None), "")
        raw = each[group] if group else ""
        value_start = offset + (each.start(group) if group else each.end())
        attributes.append(Attribute(each["name"].lower(), raw, offset + each.start(), offset + each.end(), value_start))
    return Element(found["start"].lower(), found.start(), found.end(), tuple(attributes))


def _with_content(element: Element, text: str) -> Element:
    """The element with what is between it and its end tag; without one that is the rest of the text."""
    closing = re.compile(f"</{re.escape(element.name)}[^>]*>", re.IGNORECASE).search(text, element.end)
    start, end = (closing.start(), closing.end()) if closing else (len(text), len(text))
    return Element(element.name, element.start, element.end, element.attributes, (element.end, start), end)


@dataclass(slots=True)
class Patches:
    """Changes to a text by place; those of one place in the order in which they were made."""

    text: str
    _changes: list[tuple[int, int, str]] = field(default_factory=list)

    def replace(self, start: int, end: int, new: str) -> None:
        """Puts `new` in the place of a piece.  Line ends that go are kept: errors name lines."""
        lost = self.text.count("\n", start, end) - new.count("\n")
        self._changes.append((start, end, new + "\n" * max(0, lost)))

    def insert(self, position: int, new: str) -> None:
        """Puts `new` in front of a place."""
        self._changes.append((position, position, new))

    def applied(self) -> str:
        """The text with all changes made."""
        pieces, position = [], 0
        for start, end, new in sorted(self._changes, key=lambda change: (change[0], change[1])):
            pieces += [self.text[position:start], new]
            position = end
        return "".join([*pieces, self.text[position:]])


class Places:
    """Finds which of the pieces of a text a position is in."""

    def __init__(self, pieces: Iterable[tuple[int, int]]) -> None:
        self._pieces = sorted(pieces)
        self._starts = [start for start, _ in self._pieces]

    def holds(self, position: int) -> bool:
        """Whether one of the pieces holds `position`."""
        number = bisect_right(self._starts, position) - 1
        return number >= 0 and position < self._pieces[number][1]
