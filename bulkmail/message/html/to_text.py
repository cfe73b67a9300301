"""A page as plain text: first one stream of words and marks, then lines as people would type them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import unquote

from bulkmail.message.html.fallbacks import declarations, is_important
from bulkmail.message.template.tags import NONCHARACTER, PLACE
from bulkmail.model.lazy import dataclass, lazy_pattern

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode


class TextMark(StrEnum):
    """Single characters that no text has.  BEGIN and END enclose what the others are about."""

    BREAK = "\ufdd2"  # a line ends here, as often as it is said
    LINE = "\ufdd3"  # what follows stands on a line of its own
    BLANK = "\ufdd4"  # … and after an empty one
    LIST = "\ufdd5"  # list: "*", or the number that the first item has, up to ITEM or END
    ITEM = "\ufdd6"
    LINK = "\ufdd7"  # link: its text, TARGET, its address, END
    TARGET = "\ufdd8"
    VERBATIM = "\ufdd9"  # spaces and line ends count
    QUOTE = "\ufdda"
    HEADING = "\ufddb"  # its level, one digit, then its text
    RULE = "\ufddc"
    TABLE = "\ufddd"  # rows of cells
    ROW = "\ufdde"
    CELL = "\ufddf"
    PICTURE = "\ufde1"  # the address of a picture that has no text of its own
    END = "\ufde0"


_SILENT = frozenset({"head", "style", "script", "title", "template", "object", "iframe", "select", "audio", "video"})
_PARAGRAPHS = frozenset({"p", "dl", "figure", "fieldset", "form", "ul", "ol", "menu", "hr", "pre", "blockquote"})
_LINES = frozenset(
    {"address", "article", "aside", "body", "caption", "center", "dd", "details", "div", "dt", "figcaption", "footer"}
    | {"header", "html", "main", "nav", "section", "summary", "table", "tbody", "td", "tfoot", "th", "thead", "tr"}
)
_HEADINGS = {f"h{level}": str(level) for level in range(1, 7)}
_MAY_HIDE = lazy_pattern("none|hid", re.IGNORECASE)
_HIDING = {"display": "none", "visibility": "hidden", "mso-hide": "all"}
_NO_SIZE = lazy_pattern(r"0+(?:\.0+)?(?:px|pt|em|rem|%)?", re.IGNORECASE)


def read_page(page: str) -> str:
    """The stream of a rendered page."""
    return _read(NONCHARACTER.sub("\ufffd", page))


def read_template(page: str) -> str:
    """The stream of a masked template whose block tags are comments; its places stay in it."""
    return _read(page)


def _read(page: str) -> str:
    from selectolax.lexbor import LexborHTMLParser  # late: most campaigns bring a text of their own

    root = LexborHTMLParser(page).root
    tables: dict[int, bool] = {}
    said: list[str] = []
    # What is still to be said, the next at the end: nodes, and marks that end elements.
    waiting: list[LexborNode | str] = [root] if root is not None else []
    while waiting:
        node = waiting.pop()
        if isinstance(node, str):
            said.append(node)
        elif node.is_text_node:
            said.append(node.text_content or "")
        elif node.is_comment_node:
            said += [place[0] for place in PLACE.finditer(node.comment_content or "")]
        elif node.is_element_node and not _is_hidden(node):
            before, after = _around(node, tables)
            said.append(before)
            waiting.append(after)
            waiting += reversed(_children(node))
    stream = "".join(said)
    # What is due before the next word comes down to the strongest that was said.
    return stream if TextMark.VERBATIM in stream else _DUE.sub(lambda due: max(due[0].strip()), stream)


_DUE = lazy_pattern(f"\\s*[{TextMark.LINE}{TextMark.BLANK}][{TextMark.LINE}{TextMark.BLANK}\\s]*")


def _children(node: LexborNode) -> list[LexborNode]:
    children = []
    child = node.child
    while child is not None:
        children.append(child)
        child = child.next
    return children


def _is_hidden(node: LexborNode) -> bool:
    attributes = node.attributes
    return node.tag in _SILENT or "hidden" in attributes or _hides(attributes.get("style") or "")


def _hides(style: str) -> bool:
    """Whether nothing of an element with this style is seen: not displayed, or cut off at a height of nothing."""
    if not _MAY_HIDE.search(style):
        return False
    found: dict[str, str] = {}
    for name, value in declarations(style):
        if is_important(value) or not is_important(found.get(name, "")):
            found[name] = value.lower()
    plain = {name: value.partition("!")[0].strip() for name, value in found.items()}
    if any(plain.get(name) == value for name, value in _HIDING.items()):
        return True
    is_cut = "hidden" in (plain.get("overflow"), plain.get("overflow-y"))
    return is_cut and any(_NO_SIZE.fullmatch(plain.get(name, "")) for name in ("max-height", "height"))


def _around(node: LexborNode, tables: dict[int, bool]) -> tuple[str, str]:
    """What is said before and after the content of an element.  `tables` remembers which are of data."""
    tag = node.tag or ""
    match tag:
        case "br":
            return TextMark.BREAK, ""
        case "img":
            return _picture(node), ""
        case "a":
            target = (node.attributes.get("href") or "").strip()
            return (TextMark.LINK, f"{TextMark.TARGET}{target}{TextMark.END}") if target else ("", "")
        case "ul" | "menu":
            return _list(node, "*")
        case "ol":
            return _list(node, node.attributes.get("start") or "1")
        case "li":
            return TextMark.ITEM, TextMark.LINE
        case "pre":
            return TextMark.BLANK + TextMark.VERBATIM, TextMark.END + TextMark.BLANK
        case "blockquote":
            return TextMark.BLANK + TextMark.QUOTE, TextMark.END + TextMark.BLANK
        case "hr":
            return TextMark.BLANK + TextMark.RULE + TextMark.BLANK, ""
        case "q":
            return "“", "”"
        case "table" | "tr" | "td" | "th" if marks := _table_marks(node, tables):
            return marks
    if tag in _HEADINGS:
        return f"{TextMark.BLANK}{TextMark.HEADING}{_HEADINGS[tag]}", TextMark.END + TextMark.BLANK
    if tag in _PARAGRAPHS:
        return TextMark.BLANK, TextMark.BLANK
    if tag in _LINES:
        return TextMark.LINE, TextMark.LINE
    return "", ""


def _picture(node: LexborNode) -> str:
    """The text that stands for a picture; without one, its address, but for one that only counts who looks."""
    attributes = node.attributes
    if (text := attributes.get("alt") or "").strip() or not (address := attributes.get("src") or ""):
        return text
    is_dot = any((attributes.get(side) or "").strip() in ("0", "1") for side in ("width", "height"))
    return text if is_dot else f"{TextMark.PICTURE}{address}{TextMark.END}"


def _list(node: LexborNode, first: str) -> tuple[str, str]:
    parent = node.parent
    gap = TextMark.LINE if parent is not None and parent.tag == "li" else TextMark.BLANK
    return f"{gap}{TextMark.LIST}{first if first.lstrip('-').isdigit() else '*'}", f"{TextMark.END}{gap}"


def _table_marks(node: LexborNode, tables: dict[int, bool]) -> tuple[str, str] | None:
    """A table of data keeps its columns; one for layout is read cell by cell, each on a line."""
    table: LexborNode | None = node
    while table is not None and table.tag != "table":
        table = table.parent
    if table is None:
        return None
    if table.mem_id not in tables:
        tables[table.mem_id] = _is_data(table)
    if not tables[table.mem_id]:
        return None
    match node.tag:
        case "table":
            return TextMark.BLANK + TextMark.TABLE, TextMark.END + TextMark.BLANK
        case "tr":
            return TextMark.ROW, ""
        case _:
            return TextMark.CELL, ""


def _is_data(table: LexborNode) -> bool:
    if (table.attributes.get("role") or "").lower() in ("presentation", "none"):
        return False
    counted = {"th": 0, "td": 0, "tr": 0, "": 0}
    waiting = _children(table)
    while waiting:
        node = waiting.pop()
        tag = node.tag or ""
        if tag == "table":
            return False
        counted[tag if tag in counted else ""] += tag in counted or tag in _NOT_IN_DATA
        waiting += _children(node)
    return counted["th"] > 0 or (counted["td"] > counted["tr"] > 1 and not counted[""])


_NOT_IN_DATA = frozenset({"p", "div", "h1", "h2", "h3", "h4", "ul", "ol", "img"})

WIDEST_TABLE = 78  # characters; a wider one is set cell under cell
_LONGEST_RULE = 40

_MARKS = lazy_pattern("([\ufdd2-\ufde0])")
_PICTURE = lazy_pattern(f"{TextMark.PICTURE}([^\ufdd2-\ufde1]*){TextMark.END}")
_NUMBER = lazy_pattern(r"[-+]?[\d.,’' ]*\d[\d.,]*\s?(?:%|[^\w\s.,]|[A-Z]{3})?|[^\w\s.,]\s?[\d.,]+")
_NO_ADDRESS = lazy_pattern(r"\s*(?:#|javascript:|data:|vbscript:|cid:)", re.IGNORECASE)


def typeset(stream: str, *, pictures: Mapping[str, str] = MappingProxyType({})) -> str:
    """The text, without spaces at line ends, with at most one empty line in a row but for breaks that say more.

    A page that says nothing is read as the names of its pictures: `pictures` has those of the files that come with the
    message, by Content-ID.
    """
    if TextMark.PICTURE not in stream:
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
    return f"{TextMark.LINE}{name}{TextMark.LINE}" if name else ""


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
        """At least `gap` line ends come before the next word."""
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


_END = TextMark.END.value
# Where these come without what they belong to, nothing is said.
_STRUCTURE = frozenset({TextMark.ITEM, TextMark.TARGET, TextMark.ROW, TextMark.CELL})
_ACTS: dict[str, Callable[[_Page, Iterator[str]], None]] = {
    TextMark.LINE.value: lambda page, parts: page.due(1),
    TextMark.BLANK.value: lambda page, parts: page.due(2),
    TextMark.BREAK.value: lambda page, parts: page.broken(),
    TextMark.LINK.value: lambda page, parts: page.words(_link(parts)),
    TextMark.LIST.value: lambda page, parts: page.lines(_list_typesetting(parts)),
    TextMark.VERBATIM.value: lambda page, parts: page.lines(_verbatim(parts)),
    TextMark.QUOTE.value: lambda page, parts: page.lines(_prefixed(_block(parts).strip("\n"), first="> ", rest="> ")),
    TextMark.HEADING.value: lambda page, parts: page.lines(_heading(_block(parts))),
    TextMark.RULE.value: lambda page, parts: page.lines("-" * _LONGEST_RULE),
    TextMark.TABLE.value: lambda page, parts: page.lines(_table(parts)),
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


_TARGET = TextMark.TARGET.value
_ALL = frozenset(mark.value for mark in TextMark)
_OPENING = frozenset(
    mark.value
    for mark in (TextMark.LINK, TextMark.LIST, TextMark.VERBATIM, TextMark.QUOTE, TextMark.HEADING, TextMark.TABLE)
)


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
        if part == TextMark.END:
            break
        if part not in _ALL:
            said.append(part)
    return "".join(said)


def _list_typesetting(parts: Iterator[str]) -> str:
    """Items with a bullet or a number, the lines of each under its first word."""
    first = next(parts, "*").strip()
    number = int(first) if first.lstrip("-").isdigit() else None
    items = []
    for item in _pieces(parts, TextMark.ITEM):
        bullet = "* " if number is None else f"{number}. "
        text = _block(iter(item)).strip("\n")
        items.append(_prefixed(text, first=bullet, rest=" " * len(bullet)) if text else bullet.rstrip())
        number = None if number is None else number + 1
    return "\n".join(items)


def _pieces(parts: Iterator[str], mark: TextMark) -> Iterator[list[str]]:
    """What stands between the marks, up to the END of the whole; what is before the first is passed over."""
    piece: list[str] | None = None
    depth = 0
    for part in parts:
        if part == TextMark.END and depth == 0:
            break
        if part == mark and depth == 0:
            if piece is not None:
                yield piece
            piece = []
            continue
        depth += (part in _OPENING) - (part == TextMark.END)
        if piece is not None:
            piece.append(part)
    if piece is not None:
        yield piece


def _verbatim(parts: Iterator[str]) -> str:
    said = []
    depth = 0
    for part in parts:
        if part == TextMark.END:
            if depth == 0:
                break
            depth -= 1
        elif part == TextMark.BREAK:
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
    rows = [
        [_block(iter(cell)).strip() for cell in _pieces(iter(row), TextMark.CELL)]
        for row in _pieces(parts, TextMark.ROW)
    ]
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
