"""The Jinja tags of a template: found, taken out while something else reads the text around them, put back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from enum import Enum

from jinja2 import Environment, TemplateSyntaxError

from bulkmail.model.campaign import Template
from bulkmail.model.errors import TemplateError
from bulkmail.model.lazy import dataclass, lazy_pattern

# Noncharacters (Unicode §23.7) never stand in a text, and HTML and CSS parsers pass them on as they are.
OPEN, CLOSE = "\ufdd0", "\ufdd1"
NONCHARACTER = lazy_pattern("[\ufdd0-\ufdef]")
PLACE = lazy_pattern(f"{OPEN}(\\d+){CLOSE}")

_lexer = Environment(autoescape=True).lexer  # only cuts into tokens
_BEGIN = lazy_pattern(r"\{\{|\{%|\{#")
_END = {"{{": "}}", "{%": "%}", "{#": "#}"}
_RAW = lazy_pattern(r"\{%[-+]?\s*raw\s*[-+]?%\}.*?\{%[-+]?\s*endraw\s*[-+]?%\}", re.DOTALL)
_STRING = lazy_pattern(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'", re.DOTALL)
_WORD = lazy_pattern(r"[A-Za-z_]\w*")


class TagKind(Enum):
    """`{{ … }}`, `{% … %}`, `{# … #}`, or `{% raw %}` with everything up to its end."""

    VALUE = "value"
    BLOCK = "block"
    COMMENT = "comment"
    RAW = "raw"


_KINDS = {"{{": TagKind.VALUE, "{%": TagKind.BLOCK, "{#": TagKind.COMMENT}


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag, as it was written."""

    kind: TagKind
    text: str

    @property
    def words(self) -> list[str]:
        """The names and keywords in it, without what stands in quotes."""
        return _WORD.findall(_STRING.sub('""', self.text))

    @property
    def keyword(self) -> str:
        """`for` of `{% for … %}`; empty for what is no block tag."""
        return next(iter(self.words), "") if self.kind is TagKind.BLOCK else ""


@dataclass(frozen=True, slots=True)
class Masked:
    """A template whose tags are places, `OPEN number CLOSE`; `tags` are what stands there."""

    text: str
    tags: tuple[Tag, ...]

    def with_text(self, text: str) -> Masked:
        """The same tags in another text."""
        return Masked(text, self.tags)

    def tag(self, place: re.Match[str]) -> Tag:
        """What stands at a match of `PLACE`."""
        return self.tags[int(place[1])]

    def tags_in(self, text: str) -> Iterable[Tag]:
        """What stands at the places in `text`."""
        return [self.tags[int(number)] for number in PLACE.findall(text)]

    def unmasked(self, text: str | None = None, *, change: Callable[[Tag], str] | None = None) -> str:
        """The template again, or any `text` with places of it."""
        return PLACE.sub(
            lambda place: change(self.tag(place)) if change else self.tag(place).text,
            self.text if text is None else text,
        )

    def without_comments(self) -> Masked:
        """Without what says nothing."""
        text = PLACE.sub(lambda place: "" if self.tag(place).kind is TagKind.COMMENT else place[0], self.text)
        return self.with_text(text)

    def without_control(self) -> Masked:
        """With the spaces gone that tags such as `{%-` take away, and the signs that say so."""
        tags = list(self.tags)
        pieces = PLACE.split(self.text)  # text, number, text, number, … text
        for position in range(1, len(pieces), 2):
            number = int(pieces[position])
            tag = tags[number].text
            if tags[number].kind is TagKind.RAW:
                continue
            if tag[2] == "-":
                pieces[position - 1] = pieces[position - 1].rstrip()
            if tag[-3] == "-":
                pieces[position + 1] = pieces[position + 1].lstrip()
            inner = tag[3 if tag[2] in "-+" else 2 : -3 if tag[-3] in "-+" else -2]
            tags[number] = Tag(tags[number].kind, f"{tag[:2]}{inner}{tag[-2:]}")
        for position in range(1, len(pieces), 2):
            pieces[position] = f"{OPEN}{pieces[position]}{CLOSE}"
        return Masked("".join(pieces), tuple(tags))


def with_css_apart(text: str) -> str:
    """A template in whose style sheets `{#main{` is a rule and not the beginning of a comment.

    A comment that is meant as one has no brace before its end.
    """
    if "{#" not in text or "<style" not in text.lower():
        return text
    return _SHEET.sub(lambda sheet: _CSS_BRACE.sub("{ ", sheet[0]), text)


_SHEET = lazy_pattern(r"<style\b[^>]*>.*?(?:</style|\Z)", re.IGNORECASE | re.DOTALL)
_CSS_BRACE = lazy_pattern(r"\{(?=#[A-Za-z_-][^{}]*\{)")


def mask(template: Template) -> Masked:
    """`template` with its tags taken out.  Raises `TemplateError` for what Jinja cannot read either."""
    text = with_css_apart(template.text)
    if found := NONCHARACTER.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise TemplateError(f"{template.name}:{line}: holds U+{ord(found[0]):04X}, which is not a character")
    tags: list[Tag] = []
    pieces: list[str] = []
    end = 0
    while begin := _BEGIN.search(text, end):
        tag = _tag_at(text, begin.start())
        if tag is None:
            line = text.count("\n", 0, begin.start()) + 1
            raise TemplateError(f"{template.name}:{line}: the tag that begins with {begin[0]} does not end")
        pieces += [text[end : begin.start()], f"{OPEN}{len(tags)}{CLOSE}"]
        tags.append(tag)
        end = begin.start() + len(tag.text)
    return Masked("".join([*pieces, text[end:]]), tuple(tags))


def without_tag_lines(template: Template) -> Template:
    """A plain text in which a line of block tags and comments alone leaves no empty line behind.

    `+%}` at its end keeps the line, and so do tags that write something themselves.  Line numbers stay: the line end
    goes into the tag.
    """
    try:
        masked = mask(template)
    except TemplateError:  # reported when it is compiled
        return template
    tags = list(masked.tags)

    def joined(line: re.Match[str]) -> str:
        numbers = [int(number) for number in PLACE.findall(line[0])]
        last = tags[numbers[-1]]
        silent = all(
            tags[number].kind is TagKind.COMMENT
            or (tags[number].kind is TagKind.BLOCK and tags[number].keyword not in _WRITING)
            for number in numbers
        )
        if not silent or last.text[-3] in "-+":
            return line[0]
        tags[numbers[-1]] = Tag(last.kind, f"{last.text[:-2]}\n{last.text[-2:]}")
        return "".join(f"{OPEN}{number}{CLOSE}" for number in numbers)

    text = _TAG_LINE.sub(joined, masked.text)
    return Template(template.name, Masked(text, tuple(tags)).unmasked())


_TAG_LINE = lazy_pattern(rf"^[ \t]*(?:{OPEN}\d+{CLOSE}[ \t]*)+\n", re.MULTILINE)
_WRITING = frozenset({"include", "call", "endcall", "print", "trans", "endtrans"})


def _tag_at(text: str, start: int) -> Tag | None:
    """The tag that begins at `start`: up to the first end sign at which Jinja thinks so too."""
    opening = text[start : start + 2]
    if raw := _RAW.match(text, start):
        return Tag(TagKind.RAW, raw[0])
    end = start + 2
    while (end := text.find(_END[opening], end)) >= 0:
        end += 2
        piece = text[start:end]
        if opening == "{#" or _is_whole(piece):
            return Tag(_KINDS[opening], piece)
    return None


def _is_whole(piece: str) -> bool:
    """Whether `piece` is one tag and nothing else; an end sign in quotes or braces is not its end."""
    try:
        kinds = [kind for _, kind, _ in _lexer.tokeniter(piece, None)]
    except TemplateSyntaxError:
        return False
    return kinds[-1] in ("variable_end", "block_end") and sum(kind.endswith("_begin") for kind in kinds) == 1
