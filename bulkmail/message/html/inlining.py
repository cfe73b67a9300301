"""Style sheets written into the elements they are about: many mail programs ignore all others.

If the page is the same for all recipients this is done to the template, once; otherwise to each message.
"""

from __future__ import annotations

import re
from html import escape

import css_inline

from bulkmail.message.html.fallbacks import carried, carried_style, declarations, restored, restored_style
from bulkmail.message.html.scanner import Element, Patches, elements, is_deep, scan
from bulkmail.message.html.stability import MARKER, instability, marked
from bulkmail.message.template.tags import NONCHARACTER, PLACE, Masked, TagKind
from bulkmail.model.lazy import lazy_pattern

# What these select does not depend on how often something is repeated, nor on an attribute that a row fills in.
_SIMPLE_SELECTORS = lazy_pattern(
    r"(?:[\w\s.#*>,-]|:hover|:link|:visited|:active|:focus|:root|::?before|::?after|::?first-line|::?first-letter)*"
)
_CSS_COMMENT = lazy_pattern(r"/\*.*?\*/", re.DOTALL)
_TAG = lazy_pattern(r"\{(?=[{%#])")  # never meant as one in a style sheet
_ROOT_RULE = lazy_pattern(r"(?<![^\s};/]):root\s*\{[^{}]*\}")
_ASIDE = '<style data-css-inline="ignore">'
_SELECTING = frozenset({"class", "id"})
_EVERYWHERE = frozenset({"", "all", "screen"})


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
    """The template with its style sheets inlined; None when the messages made of it could come out wrong."""
    if instability(masked) or _selects_by_row(masked):
        return None
    tokens = list(scan(masked.text))
    try:
        page = _inliner.inline(_with_fallbacks_carried(marked(masked, tokens)))
    except css_inline.InlineError:
        return None
    results = {element.value(MARKER): element for element in elements(page) if element.get(MARKER)}
    sources = [token for token in tokens if isinstance(token, Element)]
    if len(results) != len(sources):
        return None
    patches = Patches(masked.text)
    everywhere = _declared_everywhere(masked.text)
    for number, element in enumerate(sources):
        result = results[str(number)]
        if element.name == "style":
            _keep_rest(patches, element, _useful(page[slice(*result.content)]) if result.content else "")
        elif element.name not in _UNSEEN:
            _set_style(patches, element, _own_style(element.name, result.value("style"), everywhere))
    inlined = masked.with_text(patches.applied().replace(_ASIDE, "<style>"))
    return inlined if sorted(PLACE.findall(inlined.text)) == sorted(PLACE.findall(masked.text)) else None


def inlined(page: str) -> str:
    """One message with its style sheets inlined; as it is, if a value makes them, or the page, unreadable."""
    if NONCHARACTER.search(page) or is_deep(page):
        return page
    try:
        made = _inliner.inline(_with_fallbacks_carried(page))
    except css_inline.InlineError:
        return page
    everywhere = _declared_everywhere(page)
    patches = Patches(made)
    for element in elements(made):
        style = element.get("style")
        if style is not None:
            new = "" if element.name in _UNSEEN else _own_style(element.name, style.value, everywhere)
            if not new:
                patches.replace(style.start - made[: style.start].endswith(" "), style.end, "")
            elif new != style.value:
                patches.replace(style.start, style.end, f'style="{escape(new)}"')
        if element.name == "style" and element.content:
            patches.replace(*element.content, _useful(made[slice(*element.content)]))
    return patches.applied().replace(_ASIDE, "<style>").replace("<style></style>", "")


# These are never shown: `*` does not apply to them.
_UNSEEN = frozenset({"head", "meta", "title", "style", "link", "script", "base"})
_UNIVERSAL = lazy_pattern(r"(?:^|\})\s*\*\s*\{([^{}]*)\}")
_PUNCTUATION = lazy_pattern(r"[{};]")
_NAMES_ALONE = lazy_pattern(r"[\w\s.#*>+~,-]+")
# Rules for what mail programs put around a page, or for elements that they make.
_OF_PROGRAMS = lazy_pattern(
    r"ExternalClass|ReadMsgBody|outlook|MessageView|MessageWebView|yshortcut|yahoo|gmail|moz-|apple|samsung|owa|aBn|a6S"
    r"|\bim\b|\bu\s*\+|g-img|webkit|ogs[cb]|thunderbird|spark",
    re.IGNORECASE,
)


def _with_fallbacks_carried(page: str) -> str:
    patches = Patches(page)
    for element in elements(page):
        style = element.get("style")
        if style is not None and not PLACE.search(style.raw) and "&" not in style.raw:
            new = carried_style(style.raw)
            if new != style.raw:
                patches.replace(style.value_start, style.value_start + len(style.raw), new)
        if element.name == "style" and element.content and element.get("data-css-inline") is None:
            css = page[slice(*element.content)]
            patches.replace(*element.content, carried(css))
    return patches.applied()


def _declared_everywhere(page: str) -> frozenset[tuple[str, str]]:
    """What `* { … }` declares: it is of no use to a line break."""
    sheets = (
        page[slice(*element.content)] for element in elements(page) if element.name == "style" and element.content
    )
    return frozenset(
        declared
        for css in sheets
        for block in _UNIVERSAL.finditer(_CSS_COMMENT.sub("", css))
        for declared in declarations(block[1])
    )


def _own_style(name: str, style: str, everywhere: frozenset[tuple[str, str]]) -> str:
    """The style that the inliner gave an element, with what it dropped and without what it gave for nothing."""
    style = restored_style(style)
    if name != "br" or not everywhere:
        return style
    return "; ".join(f"{prop}: {value}" for prop, value in declarations(style) if (prop, value) not in everywhere)


def _useful(css: str) -> str:
    """What could not be inlined, without rules that no element of the page has anything to do with."""
    kept: list[str] = []
    start = depth = 0
    prelude = ""
    for found in _PUNCTUATION.finditer(css):
        if found[0] == "{":
            prelude = css[start : found.start()] if depth == 0 else prelude
            depth += 1
            continue
        depth -= found[0] == "}"
        if depth <= 0:
            depth = 0
            if found[0] == ";" or not _is_idle(prelude):
                kept.append(css[start : found.end()])
            start = found.end()
    return restored("".join([*kept, css[start:]]))


def _is_idle(selectors: str) -> bool:
    """Whether a rule that matched nothing never will: it selects by names alone, and by none of a mail program's."""
    return bool(_NAMES_ALONE.fullmatch(selectors)) and not _OF_PROGRAMS.search(selectors)


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
            if attribute.name == "style" and any(tag.kind is not TagKind.VALUE for tag in tags):
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
