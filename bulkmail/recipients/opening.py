"""The bytes behind a list: a file or standard input, compressed or not, as one stream that can be read twice."""

from __future__ import annotations

import gzip
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

from bulkmail.model.errors import ListError
from bulkmail.model.filenames import other_case, same_name
from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.text import close_matches, printable

STANDARD_INPUT = "-"
_GZIP = b"\x1f\x8b"
_MOST_NEIGHBOURS = 10_000  # file names looked at for a "did you mean"


@dataclass(frozen=True, slots=True)
class Opened:
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


def open_bytes(source: str | os.PathLike[str]) -> Opened:
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


def _opened(name: str, *, suffix: str, beneath: IO[bytes], path: str) -> Opened:
    """The content shows whether it is compressed: browsers unpack a download and leave the name, or the reverse."""
    try:
        magic = beneath.read(2)
        beneath.seek(0)
    except BaseException:
        beneath.close()
        raise
    if magic == _GZIP:
        return Opened(name, suffix, stream=cast(IO[bytes], gzip.GzipFile(fileobj=beneath)), beneath=beneath)
    return Opened(name, suffix, stream=beneath, beneath=beneath, path=path)


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
