"""Mail kept as files: a Maildir, where a message is there whole or not at all."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from bulkmail.model.errors import RelayError
from bulkmail.text import printable

_HOST = re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname()) or "localhost"
_number = count(1)  # of the process: two Maildir objects on one folder must not give one name twice
_NAME = re.compile(r"(?P<seconds>\d{1,18})\.M(?P<micros>\d{1,18})P\d+Q(?P<number>\d{1,18})\.")
_CONTROLS = bytes((*range(0x20), 0x7F))


class Maildir:
    """A folder with `tmp`, `new` and `cur`, as the maildir(5) convention has it.

    Files have LF line ends, as every Unix delivery agent writes them, and can be read by their owner only.  Nothing is
    synced to the disk: what is kept survives a killed process, not a pulled plug.  Everything here blocks for some ten
    microseconds a message, which a thread would cost several times over.
    """

    def __init__(self, folder: Path) -> None:
        """Makes what is missing of the three folders.  Raises `RelayError`."""
        self.folder = folder
        try:
            for name in ("", "tmp", "new", "cur"):
                (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            raise RelayError(
                f"cannot keep mail in {printable(str(folder))}: {getattr(error, 'strerror', None) or error}",
                hint='name a folder that you may write to: "maildir:FOLDER"',
            ) from None
        self._tmp, self._new = str(folder / "tmp"), str(folder / "new")

    def write(self, reverse_path: str, forward_path: str, buffers: Sequence[bytes]) -> str:
        """Writes a message that is not visible yet; the name is for `publish()` or `discard()`.  Raises `OSError`.

        Its first two lines are `Return-Path` and `Delivered-To`, so that the envelope can be seen.
        """
        content = b"".join(buffers).replace(b"\r\n", b"\n")
        name = _unique_name(time.time())
        try:
            with open(f"{self._tmp}/{name}", "xb", opener=_open_private) as file:
                file.write(b"Return-Path: <%b>\nDelivered-To: %b\n" % (_path(reverse_path), _path(forward_path)))
                file.write(content)
        except BaseException:
            self.discard(name)
            raise
        return name

    def publish(self, name: str) -> None:
        """Makes a written message appear, whole, in one step.  Raises `OSError`."""
        os.rename(f"{self._tmp}/{name}", f"{self._new}/{name}")

    def discard(self, name: str) -> None:
        """Takes a written message back, published or not; never raises."""
        for folder in (self._tmp, self._new):
            try:
                os.unlink(f"{folder}/{name}")
            except OSError:
                continue

    def paths(self) -> list[Path]:
        """The messages in order of arrival, read ones too.  Raises `OSError`."""
        found: list[tuple[int, int, int, str, str]] = []
        for folder in ("new", "cur"):
            with os.scandir(self.folder / folder) as entries:
                found += [
                    (*_arrival(entry), entry.path)
                    for entry in entries
                    if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False)
                ]
        return [Path(path) for *_, path in sorted(found)]

    def clear(self) -> None:
        """Removes every message, half-written ones too, and nothing else.  Raises `OSError`."""
        for path in (*self.paths(), *(self.folder / "tmp").iterdir()):
            path.unlink(missing_ok=True)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _unique_name(now: float) -> str:
    """A name that sorts by `_arrival()` and that no other process, on this host or another, gives."""
    seconds, micros = divmod(int(now * 1e6), 1_000_000)
    return f"{seconds}.M{micros:06d}P{os.getpid()}Q{next(_number)}.{_HOST}"


def _arrival(entry: os.DirEntry[str]) -> tuple[int, int, int, str]:
    """What to sort by: the time in the name, or that of the file if another program named it."""
    found = _NAME.match(entry.name)
    if found:
        return int(found["seconds"]), int(found["micros"]), int(found["number"]), entry.name
    seconds, nanos = divmod(entry.stat(follow_symlinks=False).st_mtime_ns, 1_000_000_000)
    return seconds, nanos // 1000, 0, entry.name


def _path(path: str) -> bytes:
    """A reverse or forward path as bytes that cannot end a header line, whatever a client claimed."""
    return path.encode("utf-8", "surrogateescape").translate(None, _CONTROLS)
