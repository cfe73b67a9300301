"""Writing a file so that its name always means a whole one: the old or the new."""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from bulkmail.model.errors import BulkmailError, ConfigError
from bulkmail.text import printable

_PART = ".part"
_ABANDONED = 3600.0  # seconds since anything was written into it


@contextmanager
def replacing(target: Path | BinaryIO) -> Iterator[BinaryIO]:
    """A file to write into that takes the place of `target` when the block ends well; else `target` is as it was.

    It lies in the same folder meanwhile, readable by its owner only, and is on the disk before it gets its name, so
    that neither a killed process nor a pulled plug leaves half a file under that name; what it leaves beside it, the
    next one takes away, an hour later.  A symbolic link stays one.  A `target` that is open already, such as standard
    output, gets everything at the end or nothing.  Raises `ReportUnwritten`.
    """
    if not isinstance(target, Path):
        with tempfile.TemporaryFile() as whole:
            yield whole
            whole.seek(0)
            shutil.copyfileobj(whole, target)
        return
    path = target.resolve()
    if path.exists() and not path.is_file():
        raise ReportUnwritten(target, "that is not a plain file")
    part: str | None = None
    _take_away_abandoned(path)
    try:
        descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path), suffix=_PART)
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        part = None
        _sync_folder(path.parent)
    except OSError as error:
        raise ReportUnwritten(target, error.strerror or str(error)) from None
    finally:
        if part is not None:
            with suppress(OSError):
                os.unlink(part)


class ReportUnwritten(BulkmailError):
    """There is no space or memory for a report; its content is complete in the outbox."""

    def __init__(self, target: Path, why: str) -> None:
        super().__init__(
            f"cannot write the report {_say(target)}: {why}",
            hint="nothing is lost; write it elsewhere with bulkmail report … -o FILE",
        )
        self.target = target


def check_folder(target: Path) -> None:
    """Raises `ConfigError` when a report could not be written there: better before the mailing than after."""
    folder = target.resolve().parent
    if target.is_dir():
        raise ConfigError(f"cannot write the report {_say(target)}: that is a folder", hint="name a file in it")
    if not folder.is_dir():
        raise ConfigError(
            f"cannot write the report {_say(target)}: there is no folder {_say(folder)}", hint="create the folder first"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(
            f"cannot write the report {_say(target)}: you may not write into {_say(folder)}",
            hint="name a file in another folder",
        )


def _prefix(path: Path) -> str:
    return f".{path.name[:40]}."


def _take_away_abandoned(path: Path) -> None:
    """A process killed while writing leaves part of a list of people."""
    with suppress(OSError):
        for part in path.parent.glob(f"{glob.escape(_prefix(path))}*{_PART}"):
            if time.time() - part.stat().st_mtime > _ABANDONED:
                part.unlink()


def _sync_folder(folder: Path) -> None:
    """The new name is in the folder, which is a file of its own.  Not every file system can sync one."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _say(path: Path) -> str:
    return printable(str(path), 4_000)
