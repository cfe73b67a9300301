"""Style sheets written into the elements they are about: many mail readers heed no others.

Where the page is the same for everybody this is done to the template, once; else to each letter.
"""

from __future__ import annotations

import re
from html import escape

import css_inline

from bulkmail.message.scanner import Element, Patches, elements, is_deep, scan
from bulkmail.message.stability import MARKER, instability, marked
from bulkmail.message.tags import NONCHARACTER, PLACE, Kind, Masked

# What these select does not depend on how often something is repeated, nor on an attribute that a row fills in.
_SIMPLE_SELECTORS = re.compile(
    r"(?:[\w\s.#*>,-]|:hover|:link|:visited|:active|:focus|:root|::?before|::?after|::?first-line|::?first-letter)*"
)
_CSS_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_TAG = re.compile(r"\{(?=[{%#])")  # never meant as one in a style sheet
_ROOT_RULE = re.compile(r"(?<![^\s};/]):root\s*\{[^{}]*\}")
_ASIDE = '<style data-css-inline="ignore">'
_SELECTING = frozenset({"class", "id"})
_EVERYWHERE = frozenset({"", "all", "screen"})


def has_styles(masked: Masked) -> bool:
    """Whether the page has a style sheet of its own."""
    return any(element.name == "style" for element in elements(masked.text))


def tidied(masked: Masked) -> Masked:
    """With nothing that the inliner would take amiss: sheets for print alone say so inside, broken declarations go."""
    patches = Patches(masked.text)
    for element in elements(masked.text):
        media = element.get("media") if element.name == "style" else None
        if media and media.value.strip().lower() not in _EVERYWHERE and element.content:
            patches.replace(media.start, media.end, "")
            patches.insert(element.content[0], f"@media {media.value} {{")
            patches.insert(element.content[1], "}")
        if element.name == "style" and element.content:
            _set_root_aside(patches, element, masked.text[slice(*element.content)])
        style = element.get("style")
        if style and not PLACE.search(style.raw) and "&" not in style.raw and "(" not in style.raw:
            sound = ";".join(part for part in style.raw.split(";") if ":" in part or not part.strip())
            if sound != style.raw:
                patches.replace(style.value_start, style.value_start + len(style.raw), sound)
    return masked.with_text(patches.applied())


def _set_root_aside(patches: Patches, element: Element, css: str) -> None:
    """Mail readers look for `color-scheme` in a style sheet: a rule of `:root` alone stays in one."""
    if css.count("{") != css.count("}") or "@" in css.partition(":root")[0]:
        return
    for rule in _ROOT_RULE.finditer(css):
        if css.count("{", 0, rule.start()) != css.count("}", 0, rule.start()):
            continue  # in a media query, where it stays anyhow
        start = (element.content or (0, 0))[0]
        patches.insert(element.start, f"{_ASIDE}{' '.join(rule[0].split())}</style>")
        patches.replace(start + rule.start(), start + rule.end(), "")


def inlined_once(masked: Masked) -> Masked | None:
    """The template with its style sheets inlined; None when the letters made of it could come out wrong."""
    if instability(masked) or _selects_by_row(masked):
        return None
    tokens = list(scan(masked.text))
    try:
        page = _inliner.inline(marked(masked, tokens))
    except css_inline.InlineError:
        return None
    results = {element.value(MARKER): element for element in elements(page) if element.get(MARKER)}
    sources = [token for token in tokens if isinstance(token, Element)]
    if len(results) != len(sources):
        return None
    patches = Patches(masked.text)
    for number, element in enumerate(sources):
        result = results[str(number)]
        if element.name == "style":
            _keep_rest(patches, element, page[slice(*result.content)] if result.content else "")
        else:
            _set_style(patches, element, result.value("style"))
    inlined = masked.with_text(patches.applied().replace(_ASIDE, "<style>"))
    return inlined if sorted(PLACE.findall(inlined.text)) == sorted(PLACE.findall(masked.text)) else None


def inlined(page: str) -> str:
    """One letter with its style sheets inlined; as it is, if a value makes them, or the page, unreadable."""
    if NONCHARACTER.search(page) or is_deep(page):
        return page
    try:
        return _inliner.inline(page).replace(_ASIDE, "<style>").replace("<style></style>", "")
    except css_inline.InlineError:
        return page


_inliner = css_inline.CSSInliner(
    keep_style_tags=True, remove_inlined_selectors=True, keep_link_tags=True, load_remote_stylesheets=False
)


def _selects_by_row(masked: Masked) -> bool:
    """Whether it may depend on the row which rule applies to which element."""
    for element in elements(masked.text):
        for attribute in element.attributes:
            tags = masked.tags_in(attribute.raw)
            if tags and attribute.name in _SELECTING:
                return True
            if attribute.name == "style" and any(tag.kind is not Kind.VALUE for tag in tags):
                return True
        if element.name == "style" and element.content:
            css = masked.text[slice(*element.content)]
            if PLACE.search(css) or not _has_simple_selectors(css):
                return True
    return False


def _has_simple_selectors(css: str) -> bool:
    """Whether all rules outside at-rules select by names alone."""
    depth, start = 0, 0
    is_at_rule = False
    css = _CSS_COMMENT.sub("", css)
    for found in re.finditer(r"[{};]", css):
        if depth == 0:
            prelude = css[start : found.start()].strip()
            is_at_rule = prelude.startswith("@")
            if found[0] == "{" and not is_at_rule and not _SIMPLE_SELECTORS.fullmatch(prelude):
                return False
        depth += {"{": 1, "}": -1, ";": 0}[found[0]]
        if depth < 0:
            return False
        if depth == 0:
            start = found.end()
    return depth == 0


def _set_style(patches: Patches, element: Element, style: str) -> None:
    old = element.get("style")
    if old is not None and old.value != style:
        patches.replace(old.start, old.end, f'style="{escape(style)}"')
    elif old is None and style:
        patches.insert(element.after_name, f' style="{escape(style)}"')


def _keep_rest(patches: Patches, element: Element, rest: str) -> None:
    """What cannot be inlined stays: media queries, :hover."""
    if rest.strip():
        start, end = element.content or (element.end, element.end)
        patches.replace(start, end, _TAG.sub("{ ", rest))
    else:
        patches.replace(element.start, element.close, "")
