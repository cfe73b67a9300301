"""The messages of a Maildir, by their headers."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from email.parser import BytesHeaderParser
from pathlib import Path

from bulkmail.evidence.sighting import Sighting, sighted
from bulkmail.model.errors import ConfigError
from bulkmail.model.printing import printable

LONGEST_HEADER = 262_144  # bytes that are read of a message


def look_in_maildir(folder: Path) -> Iterator[Sighting]:
    """What lies in `new` and `cur` of `folder`.  Raises `ConfigError` where that is no Maildir or cannot be read."""
    for path in mails_in(folder):
        data = read_mail(path, LONGEST_HEADER)
        found = None if data is None else sighted(BytesHeaderParser().parsebytes(data), printable(str(path)))
        if found is not None:
            yield found


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
