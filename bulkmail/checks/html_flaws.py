"""What readers would trip over in a page: links, pictures, open tags, leftovers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field
from html import unescape
from itertools import islice
from typing import NamedTuple

from bulkmail.checks.check_finding import Hits
from bulkmail.checks.leftovers import ANGLES, dead, placeholder_in, positions
from bulkmail.message.html.local_files import pictures
from bulkmail.message.html.scanner import VOID, Attribute, Element, EndTag, Remark, scan
from bulkmail.message.template.tags import PLACE, Masked, TagKind, mask
from bulkmail.model.campaign import Template
from bulkmail.model.errors import TemplateError
from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.model.recipient import Place
from bulkmail.text import printable

LONGEST_SHOWN = 50  # characters of an address
LONGEST_PAGE = 1_000_000  # characters that are looked at; what is longer has another fault
MOST = 200  # flaws kept

# HTML lets their end tags be left out (§13.1.2.4).
_OPTIONAL_END = frozenset(
    {"html", "head", "body", "p", "li", "dt", "dd", "option", "optgroup", "thead", "tbody", "tfoot", "tr", "td", "th"}
    | {"colgroup", "caption", "rt", "rp"}
)
_LOCAL = lazy_pattern(
    r"file:|(?:https?:)?//(?:[^/@]*@)?"
    r"(?:localhost|0\.0\.0\.0|\[::1\]|127\.|10\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.|[^/:?#]+\.(?:local|localhost|lan|internal))"
    r"(?:[\d.]*)(?:[:/?#]|$)",
    re.IGNORECASE,
)
# Names of XML vocabularies look like links, but are never followed.
_PLAIN_LINK = lazy_pattern(r"http://(?!www\.w3\.org/|schemas\.)[^\s<>\"'()]+", re.IGNORECASE)
# Attributes that hold an address, and those that people read.
_ADDRESSES = frozenset({"href", "src", "background", "poster", "action"})
_READ = frozenset({"alt", "title"})
_NAMES = r"/?(?:br|p|div|span|b|i|u|em|strong|font|center|ul|ol|li|h[1-6]|table|tr|td|hr|a(?= href))"
_TAG = lazy_pattern(rf"<{_NAMES}(?: [\w-]+=[^<>{{}}\n]{{0,200}})? ?/?>", re.IGNORECASE)
_ESCAPED_TAG = lazy_pattern(rf"&lt;{_NAMES}(?: [\w-]+=(?:(?!&[lg]t;)[^<>{{}}\n]){{0,200}})? ?/?&gt;", re.IGNORECASE)
_NOT_LOADED = {"script": "a script", "form": "a form", "iframe": "a frame", "object": "an object", "embed": "an object"}


@dataclass(frozen=True, slots=True)
class Flaw:
    """`code` is that of a check, `what` a sentence; `where` is a file and line; `hits` the rows it was seen in."""

    code: str
    what: str
    where: str
    hits: Hits | None = field(default=None, compare=False)


class _SeenFlaw(NamedTuple):
    """A flaw in a text; `about` is what is the matter with a link, or the address of a picture."""

    code: str
    what: str
    position: int
    about: str = ""


def look_over(template: Template, *, is_page: bool, is_plain: bool = False) -> list[Flaw]:
    """The flaws of a template itself, with its lines.  `is_plain`: it is plain text, where tags mean nothing."""
    try:
        masked = mask(template)
    except TemplateError:  # reported by the composer already
        return []
    found = []
    # Finding a line takes a look at all before it: only where it will be reported.
    for seen in islice(_flaws_in(masked.text, masked=masked, is_page=is_page, is_plain=is_plain), MOST):
        line = masked.unmasked(masked.text[: seen.position]).count("\n") + 1
        is_setting = ": " in template.name
        found.append(
            Flaw(seen.code, seen.what, template.name if is_setting and line <= 1 else f"{template.name}:{line}")
        )
    return found


def merge(
    found: list[Flaw], pages: Sequence[tuple[str | None, Place]], *, name: str, cells: Iterable[str] = ()
) -> tuple[Flaw, ...]:
    """`found` in templates, and what only shows in `pages` as they came out; of open tags only what shows there.

    `cells` are faults of links, reported for the cells that they come from.
    """
    reported = frozenset(cells)
    lines = {flaw.what: flaw.where for flaw in found if flaw.code == "unclosed-tag"}
    kept = dict.fromkeys(flaw for flaw in found if flaw.code != "unclosed-tag")
    known = {(flaw.code, flaw.what) for flaw in kept}
    seen: dict[tuple[str, str], Hits] = {}
    for html, place in pages:
        if html is None or len(html) > LONGEST_PAGE:
            continue
        for (code, what), about in {
            (each.code, each.what): each.about for each in _flaws_in(html, is_page=True)
        }.items():
            # Pictures of the campaign's folder have other names by now; the template has reported them.
            is_reported = (code, what) in known or code in ("placeholder", "active-content")
            is_reported = is_reported or (code == "link-relative" and about in reported)
            if not is_reported and not (code == "image-without-alt" and about.startswith("cid:")):
                seen.setdefault((code, what), Hits()).add(place.line)
    late = [Flaw(code, what, lines.get(what, name), hits) for (code, what), hits in seen.items()]
    return tuple([*kept, *late][:MOST])


def _flaws_in(text: str, *, masked: Masked | None = None, is_page: bool, is_plain: bool = False) -> Iterator[_SeenFlaw]:
    """Code, words and position of each flaw."""
    if is_page:
        tokens = list(scan(text))
        for token in tokens:
            if isinstance(token, Element):
                yield from _flaws_of(token, text)
                if masked is None:  # what the composer brings along is cid: by now
                    yield from _left_pictures(token, text)
        yield from _open_tags(tokens, text)
        shown = _without_markup(text, tokens)
    else:
        shown = text
        for link in _PLAIN_LINK.finditer(text):
            yield from _link_flaws(link[0], link.start())
    if is_page:  # a browser takes `<<Name>>` for a tag, and shows the brackets
        for found in ANGLES.finditer(text):
            yield _SeenFlaw("placeholder", f"{found[0]!r} is in the message", found.start())
    for position, word in positions(shown):
        yield _SeenFlaw("placeholder", f"{word!r} is in the message", position)
    if is_page or is_plain:
        for seen in (_ESCAPED_TAG if is_page else _TAG).finditer(shown):
            yield _SeenFlaw(
                "visible-tag", f"recipients see {printable(unescape(seen[0]), LONGEST_SHOWN)!r}", seen.start()
            )
    if masked is not None:
        for place in PLACE.finditer(text):
            tag = masked.tag(place)
            if tag.kind is TagKind.RAW:
                for _, word in positions(re.sub(r"\{%.*?%\}", "", tag.text)):
                    yield _SeenFlaw("placeholder", f"{word!r} is in the message", place.start())


def _without_markup(text: str, tokens: Iterable[Element | EndTag | Remark]) -> str:
    """What is shown, at its place; tags, styles and comments are blank."""
    pieces, position = [], 0
    for token in tokens:
        end = token.close if isinstance(token, Element) and token.content and token.name != "title" else token.end
        if token.start < position:
            continue
        pieces += [text[position : token.start], " " * (end - token.start)]
        position = end
    return "".join([*pieces, text[position:]])


def _flaws_of(element: Element, text: str) -> Iterator[_SeenFlaw]:
    at = element.start
    for attribute in element.attributes:
        if attribute.name in _ADDRESSES:
            word = placeholder_in(attribute.value.strip())
        else:
            word = next((word for _, word in positions(attribute.value)), "") if attribute.name in _READ else ""
        if word:
            yield _SeenFlaw("placeholder", f"{printable(word, LONGEST_SHOWN)!r} is in {attribute.name}=", at)
    if element.name in _NOT_LOADED:
        yield _SeenFlaw(
            "active-content", f"{_NOT_LOADED[element.name]} (<{element.name}>) does not work in a message", at
        )
    if element.name in ("a", "area"):
        href = element.get("href")
        if href is None and not (element.get("id") or element.get("name")):
            yield _SeenFlaw("link-empty", f"<{element.name}> has no href: the link leads nowhere", at)
        elif href is not None:
            yield from _href_flaws(href, at)
    if element.name == "img":
        source = element.value("src").strip()
        # A template tag between the attributes may bring one.
        if element.get("alt") is None and "\ufdd0" not in re.sub(r'"[^"]*"', "", text[element.start : element.end]):
            yield _SeenFlaw(
                "image-without-alt", f"the picture {_shown(source) or 'without src'} has no alt text", at, about=source
            )
        yield from _link_flaws(source, at)


def _left_pictures(element: Element, text: str) -> Iterator[_SeenFlaw]:
    for picture in pictures(element, text):
        if dead(picture.address) and not placeholder_in(picture.address):
            what = f"the picture {_shown(picture.address)} is neither embedded nor on the web"
            yield _SeenFlaw("image-local", what, picture.start)


def _href_flaws(href: Attribute, position: int) -> Iterator[_SeenFlaw]:
    value = href.value.strip()
    if value in ("", "#"):
        yield _SeenFlaw("link-empty", f'href="{value}": the link leads nowhere', position)
    elif not placeholder_in(value):
        if fault := dead(value):
            yield _SeenFlaw("link-relative", f"the link {_shown(value)} {fault}", position, about=fault)
        yield from _link_flaws(value, position)


def _link_flaws(value: str, position: int) -> Iterator[_SeenFlaw]:
    if _LOCAL.match(value):
        yield _SeenFlaw("link-local", f"{_shown(value)} leads to your own computer or network", position)
    elif value.lower().startswith("http://"):
        yield _SeenFlaw("link-insecure", f"{_shown(value)} begins with http:", position)


def _shown(address: str) -> str:
    return printable(PLACE.sub("…", address), LONGEST_SHOWN)


def _open_tags(tokens: Iterable[Element | EndTag | Remark], text: str) -> Iterator[_SeenFlaw]:
    """Elements that are not closed, and end tags that close nothing."""
    stack: list[Element] = []
    opened: Counter[str] = Counter()  # what is on the stack; avoids searching it for what is not there
    for token in tokens:
        if isinstance(token, Element):
            if token.content is not None:
                if token.close <= token.content[1]:
                    yield _SeenFlaw("unclosed-tag", f"<{token.name}> is not closed", token.start)
            elif not (token.name in VOID or (text[token.end - 2] == "/" and _is_foreign(token, opened))):
                stack.append(token)
                opened[token.name] += 1
        elif isinstance(token, EndTag) and token.name not in VOID:
            if not opened[token.name]:
                if token.name != "p":
                    yield _SeenFlaw("unclosed-tag", f"</{token.name}> closes nothing", token.start)
                continue
            number = next(n for n in range(len(stack) - 1, -1, -1) if stack[n].name == token.name)
            opened.subtract(element.name for element in stack[number:])
            for element in stack[number + 1 :]:
                if element.name not in _OPTIONAL_END:
                    yield _SeenFlaw("unclosed-tag", f"<{element.name}> is not closed", element.start)
            del stack[number:]
    for element in stack:
        if element.name not in _OPTIONAL_END:
            yield _SeenFlaw("unclosed-tag", f"<{element.name}> is not closed", element.start)


def _is_foreign(element: Element, opened: Counter[str]) -> bool:
    """Whether `/>` closes it: in drawings, formulas and what Outlook reads (`<o:p/>`), nowhere else in HTML."""
    return ":" in element.name or element.name in ("svg", "math") or bool(opened["svg"] or opened["math"])
