"""A mail taken apart, bounded in size, depth and parts, whatever it is.

The `email` package builds a tree by recursion and needs seconds for some mails that are made for that; a report
needs only header fields and text.
"""

from __future__ import annotations

import binascii
import quopri
import re
from base64 import b64decode
from collections.abc import Iterator
from html import unescape
from itertools import islice

from bulkmail.model.lazy import dataclass, lazy_pattern

MOST_BYTES = 262_144
"""Of a mail that are read."""

_DEEPEST = 8
_MOST_PARTS = 60
_MOST_FIELDS = 400
_LONGEST_FIELD = 8_000  # characters
_LONGEST_LINE = 2_000  # characters of a line of text

_LINE_END = lazy_pattern(rb"\r\n?")
_FIELD = lazy_pattern(r"([!-9;-~]{1,100})[ \t]*:[ \t]*(.*)", re.DOTALL)
_CHARSET = lazy_pattern(
    r"(?:us-?ascii|ascii|utf-?8|utf-?16(?:-?[bl]e)?|iso-?(?:8859|2022)-[\w-]{1,8}|latin-?\d{1,2}|windows-?\d{3,4}|cp\d{3,4}"
    r"|koi8-[ru]|gb2312|gbk|gb18030|big5|euc-?(?:jp|kr)|shift[-_]?jis|sjis|ks_c_5601-1987)",
    re.IGNORECASE,
)
_ENCODED_WORD = lazy_pattern(r"=\?([\w-]{1,40})\?([bq])\?([^?\s]{0,1000})\?=", re.IGNORECASE)
_SPACE_BETWEEN_WORDS = lazy_pattern(r"(\?=)[ \t\n]+(?==\?)")


@dataclass(frozen=True, slots=True)
class Fields:
    """Header fields in their order; names in lower case, values unfolded and as they came."""

    all: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> str:
        """The value of the first field `name` (in lower case), or an empty text."""
        return next((value for field, value in self.all if field == name), "")

    def values(self, *names: str) -> list[str]:
        """The values of all fields with one of these names, in the order of the mail."""
        return [value for field, value in self.all if field in names]

    def __contains__(self, name: object) -> bool:
        return any(field == name for field, _ in self.all)


NO_FIELDS = Fields()


@dataclass(frozen=True, slots=True)
class Part:
    """One leaf of a mail.  `content_type` is in lower case; `text` has LF line ends, and is empty for other data."""

    content_type: str
    fields: Fields
    text: str


@dataclass(frozen=True, slots=True)
class Mail:
    """`parts` in their order; of a mail inside this one (`message/rfc822`) the text is its header and what follows."""

    fields: Fields
    content_type: str
    parts: tuple[Part, ...]

    def of_type(self, *content_types: str) -> Iterator[Part]:
        """The parts with one of these types."""
        return (part for part in self.parts if part.content_type in content_types)


def take_apart(raw: bytes) -> Mail:
    """The mail in the first `MOST_BYTES` of `raw`.  Never raises, whatever they are."""
    data = _LINE_END.sub(b"\n", raw[:MOST_BYTES])
    if data.startswith(b"From "):  # a line of mbox
        data = data.partition(b"\n")[2]
    head, body = _divided(data)
    fields = read_fields(_as_text(head, ""))
    parts: list[Part] = []
    content_type = _collect(fields, body, parts, depth=0)
    return Mail(fields, content_type, tuple(parts))


def read_fields(text: str) -> Fields:
    """The fields in the header `text`, whose lines end in LF.  A line that is none is passed over."""
    found: list[list[str]] = []
    for line in text.split("\n"):
        if line[:1] in (" ", "\t"):
            if found and len(found[-1]) < 60:
                found[-1].append(line.strip())
        elif len(found) < _MOST_FIELDS:
            found.append([line])
    fields: list[tuple[str, str]] = []
    for lines in found:
        matched = _FIELD.match(" ".join(lines)[:_LONGEST_FIELD])
        if matched is not None:
            fields.append((matched[1].lower(), matched[2].strip()))
    return Fields(tuple(fields))


def decoded(value: str) -> str:
    """A header field's value with its encoded words (RFC 2047) as text."""
    if "=?" not in value:
        return value

    def word(found: re.Match[str]) -> str:
        raw = found[3].encode("ascii", "replace")
        if found[2].lower() == "b":
            try:
                return _as_text(b64decode(raw + b"=" * (-len(raw) % 4)), found[1])
            except (binascii.Error, ValueError):
                return found[0]
        return _as_text(quopri.decodestring(raw, header=True), found[1])

    return _ENCODED_WORD.sub(word, _SPACE_BETWEEN_WORDS.sub(r"\1", value[:_LONGEST_FIELD]))


def parameter(value: str, name: str) -> str:
    """The parameter `name` of a field such as Content-Type, without its quotes."""
    found = re.search(rf";\s*{name}\s*=\s*(?:\"([^\"]{{0,200}})\"|([^\s;\"]{{1,200}}))", value[:2_000], re.IGNORECASE)
    return (found[1] or found[2] or "") if found else ""


def _divided(data: bytes) -> tuple[bytes, bytes]:
    """Header and body; what begins with an empty line has no header."""
    if data.startswith(b"\n"):
        return b"", data[1:]
    head, _, body = data.partition(b"\n\n")
    return head, body


def _collect(fields: Fields, body: bytes, parts: list[Part], *, depth: int) -> str:
    """Adds what is in `body` to `parts`; the type of the whole."""
    written = fields.get("content-type")
    named = _TYPE.match(written)
    content_type = named[0].lower() if named else "text/plain"
    if content_type.startswith("multipart/") and depth < _DEEPEST:
        pieces = list(islice(_pieces(body, parameter(written, "boundary").encode("utf-8", "replace")), _MOST_PARTS))
        if not pieces and (guessed := _DELIMITER.search(body)):  # programs that write reports get it wrong
            pieces = list(islice(_pieces(body, guessed[1]), _MOST_PARTS))
        for piece in pieces:
            head, inner = _divided(piece)
            if len(parts) < _MOST_PARTS:
                _collect(read_fields(head.decode("utf-8", "replace")), inner, parts, depth=depth + 1)
        if not pieces:
            parts.append(Part("text/plain", NO_FIELDS, _text_of(NO_FIELDS, "text/plain", body)))
    elif len(parts) < _MOST_PARTS:
        parts.append(Part(content_type, fields, _text_of(fields, content_type, body)))
    return content_type


def _pieces(body: bytes, boundary: bytes) -> Iterator[bytes]:
    """The body parts between delimiter lines (RFC 2046 §5.1.1); the last one also where its end is missing."""
    if not boundary:
        return
    delimiter = re.compile(rb"^--" + re.escape(boundary) + rb"(--)?[ \t]*(?:\n|\Z)", re.MULTILINE)
    start: int | None = None
    for found in delimiter.finditer(body):
        if start is not None:
            yield body[start : max(start, found.start() - 1)]
        if found[1]:
            return
        start = found.end()
    if start is not None:
        yield body[start:]


_TYPE = lazy_pattern(r"[\w.+-]+/[\w.+-]+")
_DELIMITER = lazy_pattern(rb"^--([^\s-][^\n]{0,200}|-{1,30}[^\s-][^\n]{0,200})\nContent-", re.MULTILINE | re.IGNORECASE)


def _text_of(fields: Fields, content_type: str, body: bytes) -> str:
    if not content_type.startswith(("text/", "message/", "multipart/")) and content_type not in _TEXTS:
        return ""
    encoding = fields.get("content-transfer-encoding").strip().lower()
    if encoding == "base64":
        try:
            body = b64decode(re.sub(rb"[^A-Za-z0-9+/]", b"", body) + b"===")
        except (binascii.Error, ValueError):
            return ""
    elif encoding == "quoted-printable":
        body = quopri.decodestring(body)
    text = _as_text(body, parameter(fields.get("content-type"), "charset"))
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if content_type == "text/html":
        text = _without_tags(text)
    return "\n".join([line[:_LONGEST_LINE] for line in text.split("\n")])


_TEXTS = frozenset({"application/octet-stream", "application/x-unknown"})


def _as_text(raw: bytes, charset: str) -> str:
    """By the charset that is named, if mail uses it; else UTF-8, or Latin-1 where it is not that."""
    if charset and _CHARSET.fullmatch(charset) and not re.fullmatch("us-?ascii|ascii", charset, re.IGNORECASE):
        try:
            return raw.decode(charset, "replace")
        except (LookupError, ValueError):
            pass
    if b"\x1b$B" in raw or b"\x1b$@" in raw:
        return raw.decode("iso-2022-jp", "replace")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


_DROPPED = lazy_pattern(r"<(style|script|head|!--)", re.IGNORECASE)
_BREAK = lazy_pattern(r"<(?:br|/p|/div|/tr|/li|/h\d|p)\b[^<>]{0,500}>", re.IGNORECASE)
_TAG = lazy_pattern(r"</?[a-z!][^<>@]{0,1000}>", re.IGNORECASE)


def _without_tags(html: str) -> str:
    """The words of a page, with a line for each block.  Each character is looked at a bounded number of times."""
    kept: list[str] = []
    place = 0
    small = html.lower()
    while (opened := _DROPPED.search(html, place)) is not None:
        kept.append(html[place : opened.start()])
        ending = "-->" if opened[1] == "!--" else f"</{opened[1].lower()}"
        closed = small.find(ending, opened.end())
        place = len(html) if closed < 0 else closed + len(ending)
    kept.append(html[place:])
    return unescape(_TAG.sub("", _BREAK.sub("\n", " ".join(kept)))).replace("\xa0", " ")
