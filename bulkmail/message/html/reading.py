"""What a page says, as one stream of words and marks: the first half of making a text of HTML.

The stream of a template keeps its tags, so that it is a template too; once filled, `typesetting` makes lines of it.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING

from bulkmail.message.html.fallbacks import declarations, is_important
from bulkmail.message.template.tags import NONCHARACTER, PLACE
from bulkmail.model.pattern import lazy_pattern

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode


class Mark(StrEnum):
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
    return stream if Mark.VERBATIM in stream else _DUE.sub(lambda due: max(due[0].strip()), stream)


_DUE = lazy_pattern(f"\\s*[{Mark.LINE}{Mark.BLANK}][{Mark.LINE}{Mark.BLANK}\\s]*")


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
            return Mark.BREAK, ""
        case "img":
            return _picture(node), ""
        case "a":
            target = (node.attributes.get("href") or "").strip()
            return (Mark.LINK, f"{Mark.TARGET}{target}{Mark.END}") if target else ("", "")
        case "ul" | "menu":
            return _list(node, "*")
        case "ol":
            return _list(node, node.attributes.get("start") or "1")
        case "li":
            return Mark.ITEM, Mark.LINE
        case "pre":
            return Mark.BLANK + Mark.VERBATIM, Mark.END + Mark.BLANK
        case "blockquote":
            return Mark.BLANK + Mark.QUOTE, Mark.END + Mark.BLANK
        case "hr":
            return Mark.BLANK + Mark.RULE + Mark.BLANK, ""
        case "q":
            return "“", "”"
        case "table" | "tr" | "td" | "th" if marks := _table_marks(node, tables):
            return marks
    if tag in _HEADINGS:
        return f"{Mark.BLANK}{Mark.HEADING}{_HEADINGS[tag]}", Mark.END + Mark.BLANK
    if tag in _PARAGRAPHS:
        return Mark.BLANK, Mark.BLANK
    if tag in _LINES:
        return Mark.LINE, Mark.LINE
    return "", ""


def _picture(node: LexborNode) -> str:
    """The text that stands for a picture; without one, its address, but for one that only counts who looks."""
    attributes = node.attributes
    if (text := attributes.get("alt") or "").strip() or not (address := attributes.get("src") or ""):
        return text
    is_dot = any((attributes.get(side) or "").strip() in ("0", "1") for side in ("width", "height"))
    return text if is_dot else f"{Mark.PICTURE}{address}{Mark.END}"


def _list(node: LexborNode, first: str) -> tuple[str, str]:
    parent = node.parent
    gap = Mark.LINE if parent is not None and parent.tag == "li" else Mark.BLANK
    return f"{gap}{Mark.LIST}{first if first.lstrip('-').isdigit() else '*'}", f"{Mark.END}{gap}"


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
            return Mark.BLANK + Mark.TABLE, Mark.END + Mark.BLANK
        case "tr":
            return Mark.ROW, ""
        case _:
            return Mark.CELL, ""


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
