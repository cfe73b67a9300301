"""What was started in the console, kept from one start to the next: a line of JSON for each begin and each end."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

import msgspec

from bulkmail.model.lazy import dataclass

FILE = "console-log.jsonl"
MOST_SHOWN = 500
_LONGEST_READ = 400_000  # bytes from the end
_LONGEST_FILE = 5_000_000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CommandEntry:
    """A command that began at, or, with an exit code, ended at this wall-clock second."""

    at: float
    command: str
    subject: str = ""
    pid: int = 0
    exit_code: int | None = None


class CommandJournal:
    """The entries in the state folder.  A full disk costs an entry, and never what it is about."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE

    def add(self, entry: CommandEntry) -> None:
        """Writes one entry."""
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                if self._file.stat().st_size > _LONGEST_FILE:
                    self._file.replace(self._file.with_suffix(".old.jsonl"))
            with open(self._file, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                file.write(msgspec.json.encode(entry) + b"\n")
        except OSError as error:
            log.warning("not noted", extra={"why": error.strerror})

    def entries(self) -> list[CommandEntry]:
        """The latest, the newest first: each command once, with its end if that is known."""
        try:
            with self._file.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _LONGEST_READ))
                lines = file.read().split(b"\n")
        except OSError:
            return []
        found: dict[tuple[int, str], CommandEntry] = {}
        for line in lines:
            with suppress(msgspec.MsgspecError):
                entry = msgspec.json.decode(line, type=CommandEntry)
                key = entry.pid, entry.command
                began = found.pop(key, None)
                if began is not None and began.exit_code is None and entry.exit_code is not None:
                    entry = CommandEntry(began.at, entry.command, entry.subject, entry.pid, entry.exit_code)
                found[key] = entry
        return sorted(found.values(), key=lambda entry: -entry.at)[:MOST_SHOWN]
