"""Whether a page has the same elements in the same places whatever the row says.

Then what is found out about the template, styles or text, holds for every message made from it.
"""

from __future__ import annotations

from collections.abc import Iterator

from selectolax.lexbor import LexborHTMLParser, LexborNode

from bulkmail.message.html.scanner import DEEPEST, VOID, Element, EndTag, Patches, Places, Token, scan
from bulkmail.message.template.tags import PLACE, Masked, Tag, TagKind

MARKER = "data-bulkmail"

# Tags that repeat, skip or choose whole pieces of the page, and do nothing else.
_OPENING = frozenset({"if", "for", "with"})
_MIDDLE = frozenset({"elif", "else"})
_CLOSING = {"endif": "if", "endfor": "for", "endwith": "with"}
# What lets a value become markup, or a piece of the template appear elsewhere than where it is written.
_MARKUP_WORDS = frozenset({"nl2br", "safe", "urlize", "xmlattr", "recursive", "caller", "super", "self"})
# A browser moves text out of these.
_WITHOUT_TEXT = frozenset({"html", "head", "table", "tbody", "thead", "tfoot", "tr", "colgroup", "select"})


def instability(masked: Masked) -> str:
    """Why the structure of the page may depend on the row; empty when it cannot."""
    tokens = list(scan(masked.text))
    for tag in masked.tags:
        if fault := _tag_fault(tag):
            return fault
    if fault := _place_fault(masked, tokens):
        return fault
    parents: list[int] = []
    fault = _nesting_fault(masked, tokens, parents)
    if not fault and parents != _parsed_parents(marked(masked, tokens)):
        fault = "a browser would nest its elements differently"
    return fault


def _tag_fault(tag: Tag) -> str:
    if tag.kind is TagKind.RAW:
        return "{% raw %} is used"
    if found := _MARKUP_WORDS.intersection(tag.words):
        return f"{min(found)!r} makes markup of a value"
    if tag.kind is TagKind.BLOCK:
        keyword = tag.keyword
        is_simple = keyword in _OPENING or keyword in _MIDDLE or keyword in _CLOSING
        if not is_simple and not (keyword == "set" and "=" in tag.text):
            return f"{{% {keyword} %}} is used"
    return ""


def _place_fault(masked: Masked, tokens: list[Token]) -> str:
    """Tags may stand in text and in the values of attributes."""
    inside = Places((token.start, token.end) for token in tokens)
    values = Places(
        (attribute.value_start, attribute.value_start + len(attribute.raw))
        for token in tokens
        if isinstance(token, Element)
        for attribute in token.attributes
    )
    for place in PLACE.finditer(masked.text):
        if inside.holds(place.start()) and not values.holds(place.start()):
            return f"{masked.tag(place).text} stands inside a tag of HTML or a comment"
    return ""


def _nesting_fault(masked: Masked, tokens: list[Token], parents: list[int]) -> str:
    """Every block tag must be closed in the element that it is opened in, and every element in its block.

    `parents` gets, for each element in order, the number of the one that it is in, or -1.
    """
    stack: list[tuple[str, int]] = []
    for event in _events(masked, tokens):
        name = stack[-1][0] if stack else ""
        match event:
            case Element():
                number = len(parents)
                parents.append(next((above for _, above in reversed(stack) if above >= 0), -1))
                if event.name not in VOID and event.content is None:
                    stack.append((event.name, number))
                    if len(stack) > DEEPEST:
                        return "its elements are nested too deeply"
            case EndTag():
                if name != event.name:
                    return f"</{event.name}> closes nothing that is open there"
                stack.pop()
            case Tag(kind=TagKind.VALUE) if name in _WITHOUT_TEXT:
                return f"{event.text} stands in <{name}>, where no text can be"
            case Tag(kind=TagKind.BLOCK) if (keyword := event.keyword) != "set":
                opening = keyword if keyword in _OPENING else _CLOSING.get(keyword, "")
                if keyword in _OPENING:
                    stack.append((f"% {opening}", -1))
                elif not name.startswith("%") or (keyword in _CLOSING and name != f"% {opening}"):
                    return f"{event.text} stands in another element than its beginning"
                elif keyword in _CLOSING:
                    stack.pop()
    return f"<{stack[-1][0]}> is not closed" if stack else ""


def _events(masked: Masked, tokens: list[Token]) -> Iterator[Token | Tag]:
    """Elements and the tags between them, in order."""
    position = 0
    for token in tokens:
        for place in PLACE.finditer(masked.text, position, token.start):
            yield masked.tag(place)
        yield token
        position = token.close if isinstance(token, Element) and token.content else token.end
    for place in PLACE.finditer(masked.text, position):
        yield masked.tag(place)


def marked(masked: Masked, tokens: list[Token]) -> str:
    """The page as a parser can read it: each element numbered by `MARKER`, each block tag a comment.

    Comments may stand anywhere; values are text that stands for text.
    """
    patches = Patches(masked.text)
    number = 0
    for token in tokens:
        if isinstance(token, Element):
            patches.insert(token.after_name, f' {MARKER}="{number}"')
            number += 1
    inside = Places(
        (token.start, token.close if isinstance(token, Element) and token.content else token.end) for token in tokens
    )
    for place in PLACE.finditer(masked.text):
        if masked.tag(place).kind is not TagKind.VALUE and not inside.holds(place.start()):
            patches.insert(place.start(), "<!--")
            patches.insert(place.end(), "-->")
    return patches.applied()


def _parsed_parents(text: str) -> list[int]:
    """For each marked element in order of its number, the nearest marked one around it, or -1."""
    found: dict[int, int] = {}
    root = LexborHTMLParser(text).root
    if root is None:
        return []
    for node in root.traverse():
        number = _number(node)
        if number >= 0:
            if number in found:
                return []
            found[number] = _parent(node)
    return [found[number] for number in range(len(found))] if max(found, default=-1) < len(found) else []


def _parent(node: LexborNode) -> int:
    above = node.parent
    while above is not None:
        number = _number(above)
        if number >= 0:
            return number
        above = above.parent
    return -1


def _number(node: LexborNode) -> int:
    marker = node.attributes.get(MARKER) if node.is_element_node else None
    return int(marker) if marker else -1
