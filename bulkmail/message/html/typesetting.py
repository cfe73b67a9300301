"""From a stream of words and marks to plain text as people would type it: the second half of making a text of HTML."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from types import MappingProxyType
from urllib.parse import unquote

from bulkmail.message.html.reading import Mark
from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.model.pattern import lazy_pattern

WIDEST_TABLE = 78  # characters; a wider one is set cell under cell
_LONGEST_RULE = 40

_MARKS = lazy_pattern("([\ufdd2-\ufde0])")
_PICTURE = lazy_pattern(f"{Mark.PICTURE}([^\ufdd2-\ufde1]*){Mark.END}")
_NUMBER = lazy_pattern(r"[-+]?[\d.,’' ]*\d[\d.,]*\s?(?:%|[^\w\s.,]|[A-Z]{3})?|[^\w\s.,]\s?[\d.,]+")
_NO_ADDRESS = lazy_pattern(r"\s*(?:#|javascript:|data:|vbscript:|cid:)", re.IGNORECASE)


def typeset(stream: str, *, pictures: Mapping[str, str] = MappingProxyType({})) -> str:
    """The text, without spaces at line ends, with at most one empty line in a row but for breaks that say more.

    A page that says nothing is read as the names of its pictures: `pictures` has those of the files that come with the
    message, by Content-ID.
    """
    if Mark.PICTURE not in stream:
        return _typeset(stream)
    said = _typeset(_PICTURE.sub("", stream))
    return said if said.strip() else _typeset(_PICTURE.sub(lambda found: _name(found[1], pictures), stream))


def _typeset(stream: str) -> str:
    return _block(iter(_MARKS.split(stream))).strip("\n") + "\n"


def _name(address: str, pictures: Mapping[str, str]) -> str:
    """What a picture is called in the text, on a line of its own; nothing where its address has no name."""
    scheme, _, rest = address.strip().partition(":")
    if scheme.lower() == "cid":
        name = pictures.get(rest, "")
    else:
        name = "" if scheme.lower() == "data" else unquote(re.split("[?#]", address)[0]).rpartition("/")[2]
    name = "".join(character for character in name if character.isprintable()).strip()
    return f"{Mark.LINE}{name}{Mark.LINE}" if name else ""


@dataclass(slots=True)
class _Page:
    """Lines so far.  `gap` is how many line ends are due before the next word."""

    pieces: list[str] = field(default_factory=list)
    gap: int = 0
    is_fresh: bool = True  # nothing stands on this line yet
    space: bool = False  # one is due before the next word

    def words(self, text: str) -> None:
        """Adds running text: all white space counts as one space."""
        bare = " ".join(text.split())
        if not bare:
            self.space = self.space or not self.is_fresh
            return
        if self.gap:
            self._open()
        if not self.is_fresh and (self.space or text[0].isspace()):
            self.pieces.append(" ")
        self.pieces.append(bare)
        self.is_fresh = False
        self.space = text[-1].isspace()

    def lines(self, text: str) -> None:
        """Adds lines that are set already."""
        if text:
            self._open()
            self.pieces.append(text)
            self.is_fresh = False
            self.space = False

    def due(self, gap: int) -> None:
        """At least this many line ends come before the next word."""
        self.gap = max(self.gap, gap)
        self.space = False

    def broken(self) -> None:
        """One line end more, if a line has begun or another break came before."""
        self.gap += 1
        self.space = False

    def _open(self) -> None:
        if self.gap and self.pieces:
            self.pieces.append("\n" * self.gap)
            self.is_fresh = True
        self.gap = 0


def _block(parts: Iterator[str]) -> str:
    """What stands up to the END that belongs to it, set."""
    page = _Page()
    for part in parts:
        if not part:
            continue
        act = _ACTS.get(part)
        if act is not None:
            act(page, parts)
        elif part == _END:
            break
        elif part not in _STRUCTURE:
            page.words(part)
    return "".join(page.pieces)


_END = Mark.END.value
# Where these come without what they belong to, nothing is said.
_STRUCTURE = frozenset({Mark.ITEM, Mark.TARGET, Mark.ROW, Mark.CELL})
_ACTS: dict[str, Callable[[_Page, Iterator[str]], None]] = {
    Mark.LINE.value: lambda page, parts: page.due(1),
    Mark.BLANK.value: lambda page, parts: page.due(2),
    Mark.BREAK.value: lambda page, parts: page.broken(),
    Mark.LINK.value: lambda page, parts: page.words(_link(parts)),
    Mark.LIST.value: lambda page, parts: page.lines(_list(parts)),
    Mark.VERBATIM.value: lambda page, parts: page.lines(_verbatim(parts)),
    Mark.QUOTE.value: lambda page, parts: page.lines(_prefixed(_block(parts).strip("\n"), first="> ", rest="> ")),
    Mark.HEADING.value: lambda page, parts: page.lines(_heading(_block(parts))),
    Mark.RULE.value: lambda page, parts: page.lines("-" * _LONGEST_RULE),
    Mark.TABLE.value: lambda page, parts: page.lines(_table(parts)),
}


def _link(parts: Iterator[str]) -> str:
    """`text (address)`, or one of them if the other says nothing new."""
    said, target = [], ""
    depth = 0
    for part in parts:
        if part == _TARGET and depth == 0:
            target = _until_end(parts)
            break
        if part in _ALL:
            depth += (part in _OPENING) - (part == _END)
            said.append(" ")
        else:
            said.append(part)
    raw = "".join(said)
    text = " ".join(raw.split())
    target = "".join(target.split())
    if _NO_ADDRESS.match(target):
        found = text
    elif not text or _says_same(text, target):
        found = text or target
    else:
        found = f"{text} ({target.removeprefix('mailto:').partition('?')[0] if _is_mail(target) else target})"
    return f"{' ' if raw[:1].isspace() else ''}{found}{' ' if raw[-1:].isspace() else ''}"


_TARGET = Mark.TARGET.value
_ALL = frozenset(mark.value for mark in Mark)
_OPENING = frozenset(mark.value for mark in (Mark.LINK, Mark.LIST, Mark.VERBATIM, Mark.QUOTE, Mark.HEADING, Mark.TABLE))


def _is_mail(target: str) -> bool:
    return target.lower().startswith("mailto:")


def _says_same(text: str, target: str) -> bool:
    said, meant = _bare(text), _bare(target)
    return said == meant or (_is_mail(target) and said == meant.partition("?")[0])


def _bare(address: str) -> str:
    return _SCHEME.sub("", address, count=1).rstrip("/").casefold()


_SCHEME = lazy_pattern(r"\A(?:https?://|mailto:|tel:)", re.IGNORECASE)


def _until_end(parts: Iterator[str]) -> str:
    """The words up to the next END."""
    said = []
    for part in parts:
        if part == Mark.END:
            break
        if part not in _ALL:
            said.append(part)
    return "".join(said)


def _list(parts: Iterator[str]) -> str:
    """Items with a bullet or a number, the lines of each under its first word."""
    first = next(parts, "*").strip()
    number = int(first) if first.lstrip("-").isdigit() else None
    items = []
    for item in _pieces(parts, Mark.ITEM):
        bullet = "* " if number is None else f"{number}. "
        text = _block(iter(item)).strip("\n")
        items.append(_prefixed(text, first=bullet, rest=" " * len(bullet)) if text else bullet.rstrip())
        number = None if number is None else number + 1
    return "\n".join(items)


def _pieces(parts: Iterator[str], mark: Mark) -> Iterator[list[str]]:
    """What stands between the marks, up to the END of the whole; what is before the first is passed over."""
    piece: list[str] | None = None
    depth = 0
    for part in parts:
        if part == Mark.END and depth == 0:
            break
        if part == mark and depth == 0:
            if piece is not None:
                yield piece
            piece = []
            continue
        depth += (part in _OPENING) - (part == Mark.END)
        if piece is not None:
            piece.append(part)
    if piece is not None:
        yield piece


def _verbatim(parts: Iterator[str]) -> str:
    said = []
    depth = 0
    for part in parts:
        if part == Mark.END:
            if depth == 0:
                break
            depth -= 1
        elif part == Mark.BREAK:
            said.append("\n")
        elif part in _OPENING:
            depth += 1
        elif part not in _ALL:
            said.append(part)
    return "\n".join(line.rstrip() for line in "".join(said).expandtabs(4).strip("\n").split("\n"))


def _prefixed(text: str, *, first: str, rest: str) -> str:
    lines = text.split("\n")
    return "\n".join((first if number == 0 else rest) + line for number, line in enumerate(lines)).replace(
        f"\n{rest}\n", f"\n{rest.rstrip()}\n"
    )


def _heading(text: str) -> str:
    """The two uppermost levels are underlined."""
    level, said = text[:1], text[1:].strip()
    if not said or level not in ("1", "2"):
        return said
    widest = max(map(len, said.split("\n")))
    return f"{said}\n{('=' if level == '1' else '-') * min(widest, _LONGEST_RULE)}"


def _table(parts: Iterator[str]) -> str:
    """Columns side by side if they fit, with numbers to the right; else the cells of each row on a line together."""
    rows = [[_block(iter(cell)).strip() for cell in _pieces(iter(row), Mark.CELL)] for row in _pieces(parts, Mark.ROW)]
    rows = [row for row in rows if any(row)]
    if not rows:
        return ""
    widths = [max(len(row[n]) for row in rows if n < len(row)) for n in range(max(map(len, rows)))]
    has_lines = any("\n" in cell for row in rows for cell in row)
    if has_lines or sum(widths) + 2 * len(widths) > WIDEST_TABLE:
        return "\n".join(" | ".join(cell.replace("\n", " ") for cell in row if cell) for row in rows)
    is_right = [
        len(rows) > 1 and all(_NUMBER.fullmatch(row[n]) for row in rows[1:] if n < len(row) and row[n])
        for n in range(len(widths))
    ]
    return "\n".join(
        "  ".join(
            cell.rjust(widths[n]) if is_right[n] else cell.ljust(widths[n]) for n, cell in enumerate(row)
        ).rstrip()
        for row in rows
    )
