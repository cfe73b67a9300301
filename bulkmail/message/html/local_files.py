"""Files that a page names and the message brings along: pictures by Content-ID, style sheets in the page itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from html import unescape
from posixpath import normpath
from urllib.parse import unquote

from bulkmail.message.attachments.file_parts import guess_type
from bulkmail.message.html.scanner import Attribute, Element, Patches, elements
from bulkmail.message.template.tags import CLOSE, NONCHARACTER, OPEN, PLACE, Masked, Tag, TagKind
from bulkmail.model.campaign import InlineImage, Template
from bulkmail.model.lazy import dataclass, lazy_pattern

_PICTURES = {"img": "src", **dict.fromkeys(("body", "table", "td", "th", "tr"), "background")}
# Other places than this folder: `https:`, `//host`, `#part`, a path of a web server.
_ELSEWHERE = ("//", "#")


@dataclass(frozen=True, slots=True)
class Reference:
    """The address of a picture in a page: as it is meant, and where it stands in the text."""

    address: str
    start: int
    end: int


def pictures(element: Element, text: str) -> Iterator[Reference]:
    """Every address of a picture that an element has: attributes, `srcset`, `url()` in its style or in `<style>`."""
    for attribute in element.attributes:
        start, end = attribute.value_start, attribute.value_start + len(attribute.raw)
        if attribute.name == _PICTURES.get(element.name) or attribute.name == _MORE_PICTURES.get(element.name):
            yield Reference(attribute.value.strip(), start, end)
        elif attribute.name == "srcset" and element.name in ("img", "source") and "data:" not in attribute.raw:
            for found in _CANDIDATE.finditer(attribute.raw):
                yield Reference(unescape(found[1]), start + found.start(1), start + found.end(1))
        elif attribute.name == "style":
            yield from _css_pictures(attribute.raw, start)
    if element.name == "style" and element.content:
        yield from _css_pictures(text[slice(*element.content)], element.content[0])


def _css_pictures(css: str, offset: int) -> Iterator[Reference]:
    """The pictures that CSS names: what is in `url()`, but for fonts and style sheets."""
    for found in _URL.finditer(css):
        address = unescape(found["address"].strip())
        if not PLACE.search(address) and guess_type(_file_of(address)).startswith("image/"):
            yield Reference(address, offset + found.start("address"), offset + found.end("address"))


_MORE_PICTURES = {"video": "poster", "input": "src", "image": "href"}
_CANDIDATE = lazy_pattern(r"(?:^|,)\s*([^\s,]\S*[^\s,])(?=\s|,|$)")
_URL = lazy_pattern(r"url\(\s*(?P<quote>[\"']|&quot;|&#39;|)(?P<address>.*?)(?P=quote)\s*\)", re.IGNORECASE | re.DOTALL)


def more_images(masked: Masked) -> Iterator[Reference]:
    """Pictures of this folder that `local_images` does not give: it is no fault if one of them is not there."""
    for element in elements(masked.text):
        own = element.get(_PICTURES[element.name]) if element.name in _PICTURES else None
        for found in pictures(element, masked.text):
            is_own = own is not None and found.start == own.value_start
            if not is_own and not PLACE.search(found.address) and is_local(found.address):
                yield found


def local_images(masked: Masked) -> Iterator[Attribute]:
    """The attributes that show a picture of this folder, or by `cid:` one that is attached, the same for every row."""
    return (attribute for attribute in _shown(masked) if not PLACE.search(attribute.raw))


def row_images(masked: Masked) -> Iterator[Attribute]:
    """The attributes that show such a picture, and another one for each row."""
    return (attribute for attribute in _shown(masked) if PLACE.search(attribute.raw))


def _shown(masked: Masked) -> Iterator[Attribute]:
    for element in elements(masked.text):
        attribute = element.get(_PICTURES[element.name]) if element.name in _PICTURES else None
        if attribute is not None and (_is_local(attribute) or is_attached(attribute.value)):
            yield attribute


def is_attached(source: str) -> bool:
    """Whether a page names an attached picture by `cid:` and its file name."""
    return source.strip()[: len(CID)].lower() == CID


CID = "cid:"


def local_stylesheets(masked: Masked) -> Iterator[tuple[Element, Attribute]]:
    """The `<link>` elements that name a style sheet of this folder."""
    for element in elements(masked.text):
        attribute = element.get("href") if element.name == "link" else None
        if attribute is not None and "stylesheet" in element.value("rel").lower().split() and _is_local(attribute):
            yield element, attribute


def file_name(attribute: Attribute) -> str:
    """The file that an address of this folder means: without `?…` and `#…`, `%20` being a space."""
    return _file_of(attribute.value.strip())


def _file_of(address: str) -> str:
    return unquote(address.partition("?")[0].partition("#")[0])


def file_of(reference: Reference) -> str:
    """The same of a reference."""
    return _file_of(reference.address)


def _is_local(attribute: Attribute) -> bool:
    return is_local(attribute.value.strip())


def is_local(value: str) -> bool:
    """Whether an address is one of this folder."""
    if not value or value.startswith(_ELSEWHERE):
        return False
    # A tag at the beginning may stand for any address; further on, the beginning tells.
    head = PLACE.split(value)[0]
    return bool(head) and ":" not in head.partition("/")[0].partition("?")[0]


def content_id(image: InlineImage) -> str:
    """A Content-ID that is the same wherever the picture is, without brackets."""
    return f"{blake2b(image.content, digest_size=12).hexdigest()}@inline"


def with_charset(masked: Masked) -> Masked:
    """The page with the encoding that it goes out in, UTF-8, where it says another."""
    patches = Patches(masked.text)
    for element in elements(masked.text):
        if element.name != "meta":
            continue
        charset, content = element.get("charset"), element.get("content")
        if charset is not None and charset.value.strip().lower() not in ("utf-8", "utf8"):
            patches.replace(charset.start, charset.end, 'charset="utf-8"')
        if content is not None and element.value("http-equiv").lower() == "content-type":
            new = _CHARSET.sub(r"\1utf-8", content.raw)
            patches.replace(content.value_start, content.value_start + len(content.raw), new)
    return masked.with_text(patches.applied())


_CHARSET = lazy_pattern(r"(charset\s*=\s*)[^\s;]+", re.IGNORECASE)


def with_row_images(masked: Masked) -> Masked:
    """The page with the filter `picture` around each address of a picture that depends on the row."""
    tags = list(masked.tags)
    patches = Patches(masked.text)
    for attribute in row_images(masked):
        opening = f"{OPEN}{len(tags)}{CLOSE}"
        tags.append(Tag(TagKind.BLOCK, PICTURE_TAG))
        closing = f"{OPEN}{len(tags)}{CLOSE}"
        tags.append(Tag(TagKind.BLOCK, "{% endfilter %}"))
        inner = "".join(
            piece if number % 2 else _unquoted(piece)
            for number, piece in enumerate(_PLACES.split(_QUERY.sub("", attribute.raw)))
        )
        patches.replace(attribute.start, attribute.end, f'{attribute.name}="{opening}{inner}{closing}"')
    return Masked(patches.applied(), tuple(tags))


PICTURE_TAG = "{% filter picture %}"


_PLACES = lazy_pattern(f"({OPEN}\\d+{CLOSE})")
_QUERY = lazy_pattern(r"(?:\?|(?<!&)#).*", re.DOTALL)  # of the page's own; &#39; is a character


def _unquoted(piece: str) -> str:
    """What the page itself says of a path, `%20` being a space."""
    return unquote(piece).replace('"', "&quot;")


def with_images(masked: Masked, images: Iterable[InlineImage]) -> Masked:
    """The page with `cid:` for the pictures that come with it (RFC 2392)."""
    known = {image.source: content_id(image) for image in images}
    patches = Patches(masked.text)
    for attribute in local_images(masked):
        found = known.get(attribute.value.strip())
        if found:
            patches.replace(attribute.start, attribute.end, f'{attribute.name}="cid:{found}"')
    for reference in more_images(masked):
        found = known.get(reference.address)
        if found:
            patches.replace(reference.start, reference.end, f"cid:{found}")
    return masked.with_text(patches.applied())


def as_data(css: str) -> str:
    """A style sheet that can stand in a template: with no tag, no end of its element, and on one line."""
    css = _LINE_END.sub(" ", NONCHARACTER.sub("\ufffd", css)).replace("</", "<\\/")
    return _TAG.sub("{ ", css)


_LINE_END = lazy_pattern(r"[\r\n]+")
_TAG = lazy_pattern(r"\{(?=[{%#])")


def _from_page(css: str, attribute: Attribute) -> str:
    """A style sheet whose addresses begin at the page instead of at the sheet's own folder."""
    folder = attribute.value.strip().partition("?")[0].rpartition("/")[0]
    if not folder:
        return css
    return _URL.sub(lambda found: _moved(found, folder) if is_local(found["address"].strip()) else found[0], css)


def _moved(found: re.Match[str], folder: str) -> str:
    start, end = found.start("address") - found.start(), found.end("address") - found.start()
    return f"{found[0][:start]}{normpath(f'{folder}/' + found['address'].strip())}{found[0][end:]}"


def with_stylesheets(masked: Masked, stylesheets: Iterable[Template]) -> Masked:
    """The page with `<style>` for the style sheets that come with it."""
    known = {sheet.name: sheet.text for sheet in stylesheets}
    patches = Patches(masked.text)
    for element, attribute in local_stylesheets(masked):
        css = known.get(attribute.value.strip())
        if css is not None:
            media = element.get("media")
            tag = f"<style {masked.text[media.start : media.end]}>" if media else "<style>"
            css = _from_page(css, attribute)
            patches.replace(element.start, element.end, f"{tag}{as_data(css)}</style>")
    return masked.with_text(patches.applied())
