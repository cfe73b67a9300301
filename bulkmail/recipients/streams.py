"""The list as a stream of text: opened, decompressed, its encoding found out."""

from __future__ import annotations

import codecs
import gzip
import io
import itertools
import os
import shutil
import stat
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

from bulkmail.model.campaign import other_case, same_name
from bulkmail.model.errors import ListError
from bulkmail.model.lazy import dataclass
from bulkmail.text import close_matches, printable

STANDARD_INPUT = "-"
_GZIP = b"\x1f\x8b"
_MOST_NEIGHBOURS = 10_000  # file names looked at for a "did you mean"


@dataclass(frozen=True, slots=True)
class OpenedList:
    """A list's bytes.  `name` is as the user gave it and safe to print; `suffix` is lower-case, without `.gz`.

    `stream` is uncompressed, at its beginning, and can `seek(0)`.  `path` is empty unless it is a plain file's.
    """

    name: str
    suffix: str
    stream: IO[bytes]
    beneath: IO[bytes]
    path: str = ""

    def close(self) -> None:
        """Closes the file too: a `GzipFile` leaves open what it reads from."""
        self.stream.close()
        self.beneath.close()


def open_bytes(source: str | os.PathLike[str]) -> OpenedList:
    """Opens a file, or standard input for `"-"`.  Raises `ListError` for what cannot be read at all."""
    path = os.fspath(source)
    if path == STANDARD_INPUT:
        name = "<stdin>"
        with list_errors(name):
            return _opened(name, suffix="", beneath=_standard_input(), path="")
    name = (path if path.isprintable() else printable(path)) or "''"
    stem = path[:-3] if path.lower().endswith(".gz") else path
    with list_errors(name):
        return _opened(name, suffix=os.path.splitext(stem)[1].lower(), beneath=_open_file(path, name), path=path)


@contextmanager
def list_errors(name: str) -> Iterator[None]:
    """Turns what can go wrong with any read of `name` into a `ListError`."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ListError(
            f"{name}: the compressed file is damaged or cut short: {printable(str(error))}",
            hint="fetch or compress it again",
        ) from error
    except OSError as error:
        raise ListError(f"{name} cannot be read: {error.strerror or printable(str(error))}") from error


def _open_file(path: str, name: str) -> IO[bytes]:
    try:
        stream = open(path, "rb")  # noqa: SIM115  (the caller closes it)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the path
        folder, wanted = os.path.split(path)
        same = same_name(wanted, _neighbours(folder) or ())
        if same and same != wanted:
            return _open_file(os.path.join(folder, same), name)
        raise ListError(f"there is no file {name}", hint=_similar_names(path)) from None
    except IsADirectoryError:
        raise ListError(f"{name} is a folder, expected a file", hint=f"name the list in it: {name}/list.csv") from None
    except PermissionError:
        raise ListError(f"{name} cannot be read: permission denied", hint=f"allow it: chmod u+r {name}") from None
    if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        return stream
    with stream:  # a pipe such as /dev/fd/63: it can be read only once
        return _spooled(stream)


def _standard_input() -> IO[bytes]:
    if sys.stdin is None or sys.stdin.closed:
        raise ListError("standard input is closed, so there is no list in it", hint="name a file instead of -")
    return _spooled(sys.stdin.buffer)


def _spooled(stream: IO[bytes]) -> IO[bytes]:
    """A copy in a temporary file without a name: gone when it is closed, or when the program dies."""
    spool = tempfile.TemporaryFile()  # noqa: SIM115  (the caller closes it)
    try:
        shutil.copyfileobj(stream, spool, 1 << 18)
        spool.seek(0)
    except BaseException:
        spool.close()
        raise
    return spool


def _opened(name: str, *, suffix: str, beneath: IO[bytes], path: str) -> OpenedList:
    """The content shows whether it is compressed: browsers unpack a download and leave the name, or the reverse."""
    try:
        magic = beneath.read(2)
        beneath.seek(0)
    except BaseException:
        beneath.close()
        raise
    if magic == _GZIP:
        return OpenedList(name, suffix, stream=cast(IO[bytes], gzip.GzipFile(fileobj=beneath)), beneath=beneath)
    return OpenedList(name, suffix, stream=beneath, beneath=beneath, path=path)


def _similar_names(path: str) -> str:
    folder, wanted = os.path.split(path)
    names = _neighbours(folder)
    if names is None:
        return f"there is no folder {printable(folder)} either"
    same = other_case(wanted, names)
    near = [same] if same else close_matches(wanted, names)
    if not near:
        return "check the name, or the folder you are in"
    return "did you mean " + " or ".join(printable(os.path.join(folder, each)) for each in near) + "?"


def _neighbours(folder: str) -> list[str] | None:
    """The names in a folder; None if it cannot be read."""
    try:
        with os.scandir(folder or ".") as entries:
            return [entry.name for entry in itertools.islice(entries, _MOST_NEIGHBOURS)]
    except (OSError, ValueError):
        return None


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
