"""MJML made into a page once, with its template tags where they were."""

from __future__ import annotations

import re

from bulkmail.message.html.scanner import Element, EndTag, Patches, elements, scan
from bulkmail.message.template.tags import CLOSE, OPEN, PLACE, Masked, TagKind, mask
from bulkmail.model.campaign import Template
from bulkmail.model.errors import ConfigError, TemplateError
from bulkmail.model.lazy import lazy_pattern
from bulkmail.text import suggest

KNOWN = frozenset(
    {"mjml", "mj-head", "mj-body", "mj-attributes", "mj-all", "mj-class", "mj-breakpoint", "mj-font", "mj-preview"}
    | {"mj-style", "mj-title", "mj-html-attributes", "mj-selector", "mj-html-attribute", "mj-raw", "mj-section"}
    | {"mj-column", "mj-group", "mj-wrapper", "mj-hero", "mj-text", "mj-button", "mj-image", "mj-divider", "mj-spacer"}
    | {"mj-table", "mj-social", "mj-social-element", "mj-navbar", "mj-navbar-link", "mj-accordion"}
    | {"mj-accordion-element", "mj-accordion-title", "mj-accordion-text", "mj-carousel", "mj-carousel-image"}
)
# A tag of the template among their elements must be wrapped, or it would be lost.
_STRUCTURE = frozenset({"mj-body", "mj-section", "mj-column", "mj-group", "mj-wrapper", "mj-hero"})
_PLACE_OF_ERROR = lazy_pattern(r"position (\d+):\d+")


def page_of(template: Template) -> Template:
    """The page as a template of HTML.

    Raises `TemplateError` for unknown elements and for what is no XML, and `ConfigError` when MJML is not installed.
    """
    try:
        import mjml
    except ImportError:
        raise ConfigError(
            f"{template.name}: MJML is not installed", hint="type: pip install 'bulkmail[mjml]'"
        ) from None
    masked = mask(template)
    _check_elements(template.name, masked)
    stem = _stem(masked.text)
    source = PLACE.sub(rf"{stem}\1x", _with_tags_wrapped(masked.without_comments()))
    try:
        page = re.sub(rf"{stem}(\d+)x", rf"{OPEN}\1{CLOSE}", mjml.mjml2html(source))
    except ValueError as error:
        raise TemplateError(f"{_place(template.name, source, str(error))}: is not MJML: {error}") from None
    lost = set(PLACE.findall(masked.text)) - set(PLACE.findall(page))
    for place in PLACE.finditer(masked.text):
        if place[1] in lost and masked.tag(place).kind is not TagKind.COMMENT:
            line = _line(masked, place.start())
            if any(
                attribute.value_start <= place.start() < attribute.end
                for element in elements(masked.text)
                for attribute in element.attributes
            ):
                raise TemplateError(
                    f"{template.name}:{line}: MJML takes no tag in this attribute: {masked.tag(place).text}",
                    hint="it works out widths and colours beforehand; write two elements, each in its own {% if %}",
                )
            raise TemplateError(
                f"{template.name}:{line}: MJML passes over {masked.tag(place).text} here",
                hint="put it into <mj-text>, <mj-raw> or an attribute",
            )
    return Template(template.name, masked.unmasked(page))


def _stem(text: str) -> str:
    """A word that `text` has not.  The places themselves would be written out as escapes in attributes."""
    stem = "tag"
    while stem in text:
        stem += "g"
    return f"{stem}0"


def _check_elements(name: str, masked: Masked) -> None:
    for token in scan(masked.text):
        if isinstance(token, Element) and token.name.startswith("mj"):
            if token.name == "mj-include":
                what = "<mj-include> is not read; write {% include %} in <mj-raw>, or put the pieces together before"
                raise TemplateError(f"{name}:{_line(masked, token.start)}: {what}")
            if token.name not in KNOWN:
                what = f"MJML has no element <{token.name}>{suggest(token.name, KNOWN)}"
                raise TemplateError(f"{name}:{_line(masked, token.start)}: {what}")


def _with_tags_wrapped(masked: Masked) -> str:
    """The source, with tags between the elements of its structure in `<mj-raw>`."""
    patches = Patches(masked.text)
    stack: list[str] = []
    position = 0
    for token in scan(masked.text):
        if stack and stack[-1] in _STRUCTURE:
            for place in PLACE.finditer(masked.text, position, token.start):
                patches.replace(place.start(), place.end(), f"<mj-raw>{place[0]}</mj-raw>")
        position = token.close if isinstance(token, Element) and token.content else token.end
        if isinstance(token, Element) and token.content is None and masked.text[token.end - 2] != "/":
            stack.append(token.name)
        elif isinstance(token, EndTag) and token.name in stack:
            while stack.pop() != token.name:
                pass
    return patches.applied()


def _line(masked: Masked, position: int) -> int:
    """The line of a place in the masked text as the template has it."""
    return masked.unmasked(masked.text[:position]).count("\n") + 1


def _place(name: str, source: str, error: str) -> str:
    found = _PLACE_OF_ERROR.search(error)
    return f"{name}:{source.encode()[: int(found[1])].count(10) + 1}" if found else name
