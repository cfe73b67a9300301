"""Which character encoding a list is in: its mark, strict UTF-8, the one that was named, or cp1252 with a notice."""

from __future__ import annotations

import codecs
import io
from typing import IO

from bulkmail.model.errors import ListError
from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.text import printable

FALLBACK = "cp1252"
_CHUNK_BYTES = 1 << 20
_CONTEXT_BYTES = 200  # on both sides of the first byte that is not UTF-8: enough for one value
_SEPARATORS = '\n\r,;\t|"'
_TEXT_ERRORS = "bulkmail.mark"

# The longer mark first: UTF-32's begins like UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def mark(stream: IO[bytes]) -> str:
    """The encoding that the stream's byte order mark says, or "".  Leaves the stream at its beginning."""
    first = stream.read(4)
    stream.seek(0)
    return next((encoding for raw, encoding in _MARKS if first.startswith(raw)), "")


def choose(stream: IO[bytes], *, name: str, wanted: str, notices: list[str]) -> str:
    """The encoding to read the stream in; what was guessed goes to `notices`.  Leaves the stream at its beginning.

    One pass over all of it, unless a mark settles the matter: a file whose only accent is in its last row must not be
    read half in one encoding and half in another.  `wanted` may be empty.  Raises `ListError` if there is none such.
    """
    wanted = _known(wanted, name) if wanted else ""
    marked = mark(stream)
    if marked:
        family = marked.removesuffix("-sig")
        if wanted and not wanted.startswith(family):
            notices.append(f"{name} begins with a mark that says {family.upper()}; {wanted} was not used")
        return marked
    survey = _survey(stream)
    stream.seek(0)
    if survey.is_ascii:  # says nothing: UTF-16 without a mark and ISO-2022-JP look like ASCII too
        return wanted or "utf-8"
    if not survey.stray:
        if wanted and wanted != "utf-8":
            notices.append(f"{name} is UTF-8 throughout; {wanted} was not used")
        return "utf-8"
    if wanted:
        return wanted
    notices.append(
        f"{name} is not UTF-8; it was read as {FALLBACK} (Windows, Western Europe): line {survey.line} has "
        f"'{survey.value()}'. If that looks wrong, name the encoding with --encoding"
    )
    return FALLBACK


def open_text(stream: IO[bytes], encoding: str, *, newline: str | None) -> io.TextIOWrapper:
    """The stream as text in which a byte that the encoding does not have is one of U+DC00 to U+DCFF.

    So a bad byte spoils its own row and no other.
    """
    return io.TextIOWrapper(stream, encoding=encoding, errors=_TEXT_ERRORS, newline=newline)


def _mark_undecodable(error: UnicodeError) -> tuple[str, int]:
    # Like surrogateescape, which refuses bytes below 128; those are undecodable in UTF-16 and its like.
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error(_TEXT_ERRORS, _mark_undecodable)


def _known(wanted: str, name: str) -> str:
    try:
        b"a".decode(wanted, "replace")  # refuses what is no text encoding, such as "hex"
        return codecs.lookup(wanted).name
    except (LookupError, ValueError):
        raise ListError(
            f"{name}: there is no encoding named '{printable(wanted, 40)}'",
            hint='common ones are "utf-8", "cp1252", "cp1250", "latin-1", "shift_jis" and "gb18030"',
        ) from None


@dataclass(frozen=True, slots=True)
class _Survey:
    """What a pass over the bytes found.  `stray` is the surroundings of the first that is not UTF-8, from `at` on."""

    is_ascii: bool
    stray: bytes = b""
    at: int = 0
    line: int = 0

    def value(self) -> str:
        """The cell around it, in the fallback encoding."""
        before = self.stray[: self.at].decode(FALLBACK, "replace")
        after = self.stray[self.at :].decode(FALLBACK, "replace")
        start = max(before.rfind(separator) for separator in _SEPARATORS) + 1
        ends = [end for separator in _SEPARATORS if (end := after.find(separator)) >= 0]
        return printable(before[start:] + after[: min(ends, default=len(after))], 60)


def _survey(stream: IO[bytes]) -> _Survey:
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    is_ascii, line, tail, feeds, returns = True, 1, b"", 0, 0
    while True:
        chunk = stream.read(_CHUNK_BYTES)
        is_ascii = is_ascii and chunk.isascii()
        try:
            decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            # error.object begins with what the decoder held back of the chunk before: it is in `tail` too.
            seen = error.object[: error.start]
            feeds, returns = feeds + seen.count(b"\n"), returns + seen.count(b"\r")
            before = (tail[: len(tail) - max(0, len(error.object) - len(chunk))] + seen)[-_CONTEXT_BYTES:]
            after = (error.object[error.start :] + stream.read(_CONTEXT_BYTES))[:_CONTEXT_BYTES]
            return _Survey(False, before + after, at=len(before), line=line + (feeds or returns))
        if not chunk:
            return _Survey(is_ascii)
        feeds, returns = feeds + chunk.count(b"\n"), returns + chunk.count(b"\r")
        tail = (tail + chunk[-_CONTEXT_BYTES:])[-_CONTEXT_BYTES:]
