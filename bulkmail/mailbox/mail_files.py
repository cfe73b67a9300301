"""Mail in files: a Maildir, an mbox, and one mail on standard input."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from bulkmail.mailbox.mail_source import BATCH, KEEP, MOST_BYTES, Afterwards, FetchedMail, Interruptible
from bulkmail.model.errors import ConfigError, RelayError
from bulkmail.model.feedback_event import ReadingPlaces
from bulkmail.text import printable

_OVERLAP = 3_600  # seconds: a file may get its name some time after its last byte was written
_MAILDIR = 1  # stands for UIDVALIDITY in the place of a Maildir
_PAUSE = 5.0  # seconds between two looks


def mails_in(folder: Path) -> Iterator[Path]:
    """The files in `new` and `cur` of `folder`, in the order of their names.  Raises `ConfigError`."""
    shown = printable(str(folder))
    if not all((folder / name).is_dir() for name in ("new", "cur")):
        raise ConfigError(
            f"{shown} is no Maildir: it has no folders new and cur",
            hint="name the folder that new and cur are in, such as ~/Maildir or ~/Maildir/.Sent",
        )
    for part in ("new", "cur"):
        try:
            names = sorted(os.listdir(folder / part))
        except OSError as error:
            raise ConfigError(f"{shown}/{part} cannot be read: {error.strerror}") from None
        yield from (folder / part / name for name in names)


def read_mail(path: Path, limit: int) -> bytes | None:
    """The first `limit` bytes of a file; None for what is no message, or was moved away meanwhile."""
    try:
        opened = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with open(opened, "rb") as file:
            return file.read(limit) if stat.S_ISREG(os.fstat(opened).st_mode) else None
    except OSError:
        return None


class MaildirSource(Interruptible):
    """The mail in `new` and `cur` of a Maildir.

    With `places`, what was read before is passed over, by the time at which its file was written.
    """

    is_pushed = False

    def __init__(self, folder: Path, *, then: Afterwards = KEEP, places: ReadingPlaces | None = None) -> None:
        """Raises `ConfigError` for what is no Maildir."""
        self.folder = folder.absolute()
        super().__init__(f"maildir {printable(str(self.folder))}")
        self._then = then
        self._places = places if then.what == "keep" else None
        self._newest = 0
        self._seen: set[str] = set()  # by this process; the name without the flags that mail programs change
        next(mails_in(folder), None)

    def batches(self) -> Iterator[Sequence[FetchedMail]]:
        """All mail that is there and was not read before."""
        kind, newest = self._places.place(self.name) if self._places else (0, 0)
        since = newest - _OVERLAP if kind == _MAILDIR else 0
        found = (mail for path in mails_in(self.folder) if (mail := self._mail(path, since)) is not None)
        while batch := list(islice(found, BATCH)):
            self._go_on()
            yield batch

    def _mail(self, path: Path, since: int) -> FetchedMail | None:
        if path.name.partition(":")[0] in self._seen:
            return None
        try:
            written = int(path.stat().st_mtime)
        except OSError:
            return None
        if written < since:
            return None
        raw = read_mail(path, MOST_BYTES)
        self._newest = max(self._newest, min(written, int(time.time())))
        return None if raw is None else FetchedMail(str(path), raw)

    def done(self, mails: Sequence[FetchedMail], *, understood: frozenset[str]) -> None:
        """Moves or deletes the files of those that were understood."""
        self._seen |= {Path(mail.key).name.partition(":")[0] for mail in mails}
        if self._places is not None:
            self._places.set_place(self.name, (_MAILDIR, self._newest))
        for mail in mails if self._then.what != "keep" else ():
            if mail.key in understood:
                self._put_away(Path(mail.key))

    def _put_away(self, path: Path) -> None:
        try:
            if self._then.what == "delete":
                path.unlink(missing_ok=True)
                return
            target = self.folder / f".{self._then.folder.replace('/', '.').strip('.')}"
            for part in ("tmp", "new", "cur"):
                (target / part).mkdir(mode=0o700, parents=True, exist_ok=True)
            name = path.name if ":" in path.name else f"{path.name}:2,S"
            path.rename(target / "cur" / name)
        except FileNotFoundError:
            return  # another reader was quicker
        except OSError as error:
            raise RelayError(
                f"{self.name}: {printable(path.name)} cannot be put away: {error.strerror}",
                hint="its event is stored; make the folder writable, or leave out --then",
            ) from None

    def wait(self, seconds: float) -> None:
        """Looks again after some seconds."""
        self._pause(min(_PAUSE, seconds))

    def close(self) -> None:
        """Nothing is open."""


class MboxSource(Interruptible):
    """The mail in an mbox file, which is only read: programs that deliver into it lock and rewrite it."""

    is_pushed = False

    def __init__(self, path: Path, *, then: Afterwards = KEEP) -> None:
        """Raises `ConfigError` when the file cannot be read, or is to be changed."""
        self.path = path.absolute()
        super().__init__(f"mbox {printable(str(self.path))}")
        if then.what != "keep":
            raise ConfigError(
                f"{self.name}: mail in an mbox file is kept, and --then is {then}",
                hint="leave --then out: reading twice changes nothing",
            )
        self._seen = (-1, -1.0)  # its size and time when it was read to its end
        self._open().close()

    def _open(self) -> BinaryIO:
        try:
            if not self.path.is_file():
                raise ConfigError(f"{self.name}: is no file", hint="for a folder write --maildir")
            return self.path.open("rb")
        except OSError as error:
            raise ConfigError(f"{self.name}: cannot be read: {error.strerror}") from None

    def batches(self) -> Iterator[Sequence[FetchedMail]]:
        """All mail in the file, unless it is as it was when this was last asked."""
        with self._open() as file:
            found = os.fstat(file.fileno())
            if self._seen == (found.st_size, found.st_mtime):
                return
            mails = (FetchedMail(str(number), raw) for number, raw in enumerate(_divided(file), 1))
            while batch := list(islice(mails, BATCH)):
                self._go_on()
                yield batch
            self._seen = (found.st_size, found.st_mtime)

    def done(self, mails: Sequence[FetchedMail], *, understood: frozenset[str]) -> None:
        """Nothing: the file stays as it is."""

    def wait(self, seconds: float) -> None:
        """Looks again after some seconds."""
        self._pause(min(_PAUSE, seconds))

    def close(self) -> None:
        """Nothing is open."""


def _divided(file: BinaryIO) -> Iterator[bytes]:
    """The mails of an mbox, each cut at `MOST_BYTES`; a line that begins with "From " begins one."""
    lines: list[bytes] = []
    size = 0
    is_after_empty = True
    while line := file.readline(65_536):
        if is_after_empty and line.startswith(b"From "):
            if lines:
                yield b"".join(lines)[:MOST_BYTES]
            lines, size = [], 0
        if size < MOST_BYTES:
            lines.append(line)
            size += len(line)
        is_after_empty = line in (b"\n", b"\r\n")
    if lines:
        yield b"".join(lines)[:MOST_BYTES]


class StreamSource:
    """One mail on standard input, as an MTA hands it to a program."""

    is_pushed = True
    name = "standard input"

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def batches(self) -> Iterator[Sequence[FetchedMail]]:
        """The mail, if there is any.  Raises `RelayError`."""
        try:
            raw = self._stream.read(MOST_BYTES)
            while self._stream.read(1 << 20):  # an MTA takes a closed pipe for a failure
                pass
        except OSError as error:
            raise RelayError(f"standard input cannot be read: {error.strerror}") from None
        if raw.strip():
            yield [FetchedMail("1", raw)]

    def done(self, mails: Sequence[FetchedMail], *, understood: frozenset[str]) -> None:
        """Nothing: the MTA takes the exit code for an answer."""

    def wait(self, seconds: float) -> None:
        """Nothing comes any more."""

    def interrupt(self) -> None:
        """It is read at once."""

    def close(self) -> None:
        """It is not ours."""


def is_terminal(stream: BinaryIO) -> bool:
    """Whether a person would have to type the mail."""
    try:
        return os.isatty(stream.fileno())
    except (OSError, ValueError):
        return False
