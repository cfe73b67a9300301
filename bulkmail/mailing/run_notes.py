"""Which runs of this user are to be notified of and have not been: a file for each in the state folder.

They are not beside the outbox: an outbox may come from anywhere, and a stranger's must not make a command that only
looks at it call a web address or run a program.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import msgspec

from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.model.notification import NotifySettings
from bulkmail.outbox.ledger import state_folder

FOLDER = "notify"
_SUFFIX = ".json"
_CLAIMED = ".claimed"
_LARGEST = 1 << 16  # bytes


@dataclass(frozen=True, slots=True)
class RunNote:
    """A run that sends, or did until it was killed; `failed` says why nothing could be delivered of its end."""

    outbox: str
    run_id: str
    name: str
    notify: NotifySettings
    failed: tuple[str, ...] = ()


def keep(note: RunNote, *, environ: Mapping[str, str] = os.environ) -> None:
    """Writes `note` in the place of an earlier one of its outbox.  Raises `OSError`."""
    file = _file(Path(note.outbox), environ)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("wb", dir=file.parent, delete=False) as new:
        new.write(msgspec.json.encode(note))
    Path(new.name).replace(file)


def note_of(outbox: Path, *, environ: Mapping[str, str] = os.environ) -> RunNote | None:
    """The note of the run in `outbox`, if there is one that can be read."""
    return _read(_file(outbox, environ))


def claim(outbox: Path, *, environ: Mapping[str, str] = os.environ) -> RunNote | None:
    """Takes the note of `outbox` away; of several processes that ask, one gets it."""
    file = _file(outbox, environ)
    claimed = file.with_suffix(f"{_CLAIMED}-{os.getpid()}")
    try:
        file.replace(claimed)
    except OSError:
        return None
    note = _read(claimed)
    with suppress(OSError):
        claimed.unlink()
    return note


def all_notes(*, environ: Mapping[str, str] = os.environ) -> Iterator[RunNote]:
    """Every note that there is."""
    try:
        files = sorted((state_folder(environ) / FOLDER).glob(f"*{_SUFFIX}"))
    except (OSError, RuntimeError):
        return
    for file in files:
        if note := _read(file):
            yield note


def _file(outbox: Path, environ: Mapping[str, str]) -> Path:
    name = blake2b(os.fsencode(os.path.realpath(outbox)), digest_size=16).hexdigest()
    return state_folder(environ) / FOLDER / f"{name}{_SUFFIX}"


def _read(file: Path) -> RunNote | None:
    """What is in `file`; None where it is not one that only this user may write."""
    try:
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with open(descriptor, "rb") as opened:
            status = os.fstat(opened.fileno())
            is_ours = os.name != "posix" or (status.st_uid == os.geteuid() and not status.st_mode & 0o022)
            if not (is_ours and stat.S_ISREG(status.st_mode) and status.st_size <= _LARGEST):
                return None
            return msgspec.json.decode(opened.read(), type=RunNote)
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
        return None
