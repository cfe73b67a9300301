"""Files that a page names and the message brings along: pictures by Content-ID, style sheets in the page itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from urllib.parse import unquote

from bulkmail.message.scanner import Attribute, Element, Patches, elements
from bulkmail.message.tags import NONCHARACTER, PLACE, Masked
from bulkmail.model.campaign import InlineImage, Template

_PICTURES = {"img": "src", **dict.fromkeys(("body", "table", "td", "th", "tr"), "background")}
# Other places than this folder: `https:`, `//host`, `#part`, a path of a web server.
_ELSEWHERE = ("//", "#")


def local_images(masked: Masked) -> Iterator[Attribute]:
    """The attributes that show a picture of this folder."""
    for element in elements(masked.text):
        attribute = element.get(_PICTURES[element.name]) if element.name in _PICTURES else None
        if attribute is not None and _is_local(attribute):
            yield attribute


def local_stylesheets(masked: Masked) -> Iterator[tuple[Element, Attribute]]:
    """The `<link>` elements that name a style sheet of this folder."""
    for element in elements(masked.text):
        attribute = element.get("href") if element.name == "link" else None
        if attribute is not None and "stylesheet" in element.value("rel").lower().split() and _is_local(attribute):
            yield element, attribute


def file_name(attribute: Attribute) -> str:
    """The file that an address of this folder means: without `?…` and `#…`, `%20` being a space."""
    return unquote(attribute.value.strip().partition("?")[0].partition("#")[0])


def _is_local(attribute: Attribute) -> bool:
    value = attribute.value.strip()
    if not value or value.startswith(_ELSEWHERE):
        return False
    # A tag at the beginning may stand for any address; further on, the beginning tells.
    head = PLACE.split(value)[0]
    return bool(head) and ":" not in head.partition("/")[0].partition("?")[0]


def content_id(image: InlineImage) -> str:
    """A Content-ID that is the same wherever the picture is, without brackets."""
    return f"{blake2b(image.content, digest_size=12).hexdigest()}@inline"


def with_images(masked: Masked, images: Iterable[InlineImage]) -> Masked:
    """The page with `cid:` for the pictures that come with it (RFC 2392)."""
    known = {image.source: content_id(image) for image in images}
    patches = Patches(masked.text)
    for attribute in local_images(masked):
        found = known.get(attribute.value.strip())
        if found:
            patches.replace(attribute.start, attribute.end, f'{attribute.name}="cid:{found}"')
    return masked.with_text(patches.applied())


def as_data(css: str) -> str:
    """A style sheet that can stand in a template: with no tag, no end of its element, and on one line."""
    css = _LINE_END.sub(" ", NONCHARACTER.sub("\ufffd", css)).replace("</", "<\\/")
    return _TAG.sub("{ ", css)


_LINE_END = re.compile(r"[\r\n]+")
_TAG = re.compile(r"\{(?=[{%#])")


def with_stylesheets(masked: Masked, stylesheets: Iterable[Template]) -> Masked:
    """The page with `<style>` for the style sheets that come with it."""
    known = {sheet.name: sheet.text for sheet in stylesheets}
    patches = Patches(masked.text)
    for element, attribute in local_stylesheets(masked):
        css = known.get(attribute.value.strip())
        if css is not None:
            media = element.get("media")
            tag = f"<style {masked.text[media.start : media.end]}>" if media else "<style>"
            patches.replace(element.start, element.end, f"{tag}{as_data(css)}</style>")
    return masked.with_text(patches.applied())
