"""Markdown made into a page once, with its template tags where they were."""

from __future__ import annotations

import re
from collections.abc import Iterator

from markdown_it import MarkdownIt
from markdown_it.token import Token

from bulkmail.message.html.scanner import elements
from bulkmail.message.template.tags import CLOSE, OPEN, PLACE, Masked, TagKind, mask
from bulkmail.model.campaign import Template
from bulkmail.model.lazy import lazy_pattern

SUFFIXES = (".md", ".markdown")

# What a mail reader shows without a style sheet is legible; this keeps lines short and lets dark mode be dark.
_PAGE = """<!DOCTYPE html>
<html><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">\
<meta name="color-scheme" content="light dark"><style>
:root { color-scheme: light dark; }
body { margin: 0 auto; padding: 16px; max-width: 38em; font-family: Helvetica, Arial, sans-serif; font-size: 16px; \
line-height: 1.5; }
h1, h2, h3 { line-height: 1.25; }
img { max-width: 100%; height: auto; }
table { border-collapse: collapse; }
th, td { padding: 4px 16px 4px 0; text-align: left; vertical-align: top; }
pre { white-space: pre-wrap; }
blockquote { margin: 16px 0; padding: 0 0 0 12px; border-left: 3px solid #999999; }
</style></head><body>
"""
_PAGE_END = "</body></html>\n"

_ALONE = lazy_pattern(f"[ \\t]*(?:{OPEN}\\d+{CLOSE}[ \\t]*)+$")
_IN_ADDRESS = lazy_pattern(r"%EF%B7%90(\d+)%EF%B7%91")
_REMARK = lazy_pattern(f"<!--((?:{OPEN}\\d+{CLOSE}\\s*)+)-->\n?")
_ROW = lazy_pattern(r"[^\n]*\|")
_DELIMITERS = lazy_pattern(r"[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$")
# Around tags that stand on a line of their own between the rows of a table: they ride in the nearest cell.
_BEFORE, _AFTER, _STOP = "\ufde1", "\ufde2", "\ufde3"
_RIDING_BEFORE = lazy_pattern(f"(<tr>\\s*<t[dh][^>]*>){_BEFORE}(.*?){_STOP}", re.DOTALL)
_RIDING_AFTER = lazy_pattern(f"{_AFTER}(.*?){_STOP}(</t[dh]>\\s*</tr>)", re.DOTALL)

_parser = MarkdownIt("commonmark", {"breaks": True, "html": True}).enable(["table", "strikethrough"])


def page_of(template: Template) -> Template:
    """The page as a template of HTML.  A line end is one in the page, too.  Raises `TemplateError`."""
    return Template(template.name, _with_frame(mask(template).without_comments()))


def piece_of(template: Template) -> Template:
    """The same for what a page includes."""
    masked = mask(template).without_comments()
    return Template(template.name, masked.unmasked(_html(masked)))


def _with_frame(masked: Masked) -> str:
    html = masked.unmasked(_html(masked))
    has_frame = any(element.name in ("html", "body") for element in elements(masked.text))
    if has_frame or any(tag.keyword == "extends" for tag in masked.tags):
        return html
    return f"{_PAGE}{html}{_PAGE_END}"


def _html(masked: Masked) -> str:
    """The body, masked still."""
    lines = list(_tags_in_tables(masked, masked.text.split("\n")))
    text = "\n".join(PLACE.sub(r"<!--\g<0>-->", line) if _stands_alone(masked, line) else line for line in lines)
    tokens = _with_whole_lists(masked, _parser.parse(text))
    html = _parser.renderer.render(tokens, _parser.options, {})
    html = _REMARK.sub(r"\1", _IN_ADDRESS.sub(rf"{OPEN}\1{CLOSE}", html))
    html = _RIDING_AFTER.sub(r"\2\1", _RIDING_BEFORE.sub(r"\2\1", html))
    return re.sub(f"[{_BEFORE}{_AFTER}{_STOP}]", "", html)


def _stands_alone(masked: Masked, line: str) -> bool:
    """Whether a line has only tags that say nothing themselves."""
    return bool(_ALONE.match(line)) and all(
        tag.kind in (TagKind.BLOCK, TagKind.COMMENT) for tag in masked.tags_in(line)
    )


def _tags_in_tables(masked: Masked, lines: list[str]) -> Iterator[str]:
    """The lines, with tags between the rows of a table put into the row that follows, or else the one before."""
    position = 0
    while position < len(lines):
        line = lines[position]
        position += 1
        if not (position < len(lines) and _ROW.match(line) and _DELIMITERS.match(lines[position])):
            yield line
            continue
        yield line
        yield lines[position]
        position += 1
        rows: list[str] = []
        riding: list[str] = []
        while position < len(lines) and (_ROW.match(lines[position]) or _stands_alone(masked, lines[position])):
            line = lines[position]
            position += 1
            if _stands_alone(masked, line):
                riding.append(line.strip())
            else:
                rows.append(_boarded(line, "".join(riding)) if riding else line)
                riding = []
        if riding and rows:
            rows[-1] = _trailed(rows[-1], "".join(riding))
        yield from rows or riding


def _boarded(row: str, tags: str) -> str:
    lead = re.match(r"[ \t]*\|?[ \t]*", row)
    start = lead.end() if lead else 0
    return f"{row[:start]}{_BEFORE}{tags}{_STOP}{row[start:]}"


def _trailed(row: str, tags: str) -> str:
    bare = row.rstrip()
    end = len(bare) - (bare.endswith("|") and not bare.endswith("\\|"))
    return f"{bare[:end].rstrip()}{_AFTER}{tags}{_STOP} {bare[end:]}"


def _with_whole_lists(masked: Masked, tokens: list[Token]) -> list[Token]:
    """The tokens, with tags between the items of one list inside it: else each turn of a loop made a list."""
    blocks = list(_blocks(tokens))
    merged: list[Token] = []
    position = 0
    while position < len(blocks):
        end = _whole_list(masked, blocks, position)
        if end <= position:
            merged += blocks[position]
            position += 1
            continue
        run = blocks[position:end]
        lists = [block for block in run if _is_list(block)]
        merged.append(lists[0][0])
        for block in run:
            merged += block[1:-1] if _is_list(block) else block
        merged.append(lists[0][-1])
        position = end
    return merged


def _blocks(tokens: list[Token]) -> Iterator[list[Token]]:
    """The outermost blocks, each with all that is in it."""
    block: list[Token] = []
    depth = 0
    for token in tokens:
        block.append(token)
        depth += token.nesting
        if depth == 0:
            yield block
            block = []


def _is_list(block: list[Token]) -> bool:
    return block[0].type in ("bullet_list_open", "ordered_list_open")


def _depth_change(masked: Masked, block: list[Token]) -> list[int] | None:
    """How the tags of a block that is nothing else open and close, one by one; None for any other block."""
    if len(block) != 1 or block[0].type != "html_block" or not _REMARK.fullmatch(block[0].content):
        return None
    keywords = [tag.keyword for tag in masked.tags_in(block[0].content)]
    return [-1 if word.startswith("end") else 1 if word in ("if", "for", "with") else 0 for word in keywords]


def _whole_list(masked: Masked, blocks: list[list[Token]], start: int) -> int:
    """Where the run of tags and lists from `start` ends that opens and closes all of its own; `start` for none."""
    depth, end, kind = 0, start, ""
    lists = 0
    for position in range(start, len(blocks)):
        block = blocks[position]
        if _is_list(block):
            if kind not in ("", block[0].type):
                break
            kind = block[0].type
            lists += 1
        else:
            changes = _depth_change(masked, block)
            if changes is None:
                break
            for change in changes:
                depth += change
                if depth < 0:
                    return end
        if depth == 0 and lists:
            end = position + 1
    is_alone = end == start + 1
    return start if is_alone else end
