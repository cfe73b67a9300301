"""Who is not to be written to: files of addresses, delivery reports and outboxes, read again at every start."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from bulkmail.model.errors import ConfigError, OutboxError
from bulkmail.outbox.reader import OutboxReader, is_outbox
from bulkmail.recipients.screening import REACHED_NOBODY, Suppression
from bulkmail.text import printable

SETTING = "suppress"  # of the outbox: the files, as JSON

Name = str | os.PathLike[str]


def read_suppression(names: Iterable[Name]) -> Suppression:
    """The addresses and domains in all of these files.  Of another run, those that it reached.

    Raises `ListError` and `OutboxError` for a file that cannot be read.
    """
    suppression = Suppression()
    for path in map(Path, names):
        if is_outbox(path):
            add_reached(suppression, path)
        else:
            suppression.add_file(path)
    return suppression


def add_reached(suppression: Suppression, outbox: Path) -> None:
    """Adds the recipients that the run in `outbox` reached: none if it is a rehearsal.  Raises `OutboxError`."""
    with OutboxReader.open(outbox) as reader:
        if reader.is_rehearsal:
            suppression.notices.append(f"{outbox}: {REACHED_NOBODY}")
        suppression.add_keys(reader.reached(), name=f"{outbox.name}: reached already")


def add_pass(suppression: Suppression, outbox: Path) -> None:
    """Adds what an earlier pass of the same campaign, a real one, reached.  Raises `OutboxError`."""
    with OutboxReader.open(outbox) as reader:
        suppression.add_pass(reader.reached_of_rows(), name=f"{outbox.name}: reached already")


def refuse_faults(suppression: Suppression) -> None:
    """Raises `ConfigError` for entries that cannot be understood: the recipients they mean would be sent to."""
    if suppression.faults:
        place, reason = suppression.faults[0]
        more = f", and {suppression.fault_count - 1:,} more" if suppression.fault_count > 1 else ""
        raise ConfigError(
            f"{place}: {reason}, so that it is not clear which recipients to leave out{more}",
            hint="write one address or @domain in each line, or delete the line",
        )


def to_setting(names: Iterable[Name]) -> str:
    """What an outbox remembers, so that a later start finds the files from any folder.  A pipe cannot be read again."""
    paths = [os.path.abspath(name) for name in names]
    return msgspec.json.encode([path for path in dict.fromkeys(paths) if not _is_pipe(path)]).decode()


def _is_pipe(path: str) -> bool:
    return os.path.exists(path) and not os.path.isfile(path)


def recorded_files(settings: Mapping[str, str]) -> tuple[str, ...]:
    """The files that an outbox remembers."""
    try:
        return msgspec.json.decode(settings.get(SETTING) or "[]", type=tuple[str, ...])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise OutboxError(f"the outbox does not say which suppression files it was begun with: {error}") from None


def files_of_start(given: Iterable[Name], settings: Mapping[str, str]) -> list[str]:
    """The files to read when a run goes on: those that are named now, and those it remembers that are still there."""
    files = [os.path.abspath(name) for name in given]
    return list(dict.fromkeys([*files, *(file for file in recorded_files(settings) if os.path.isfile(file))]))


def check_there(files: Iterable[str]) -> None:
    """Raises `ConfigError` when one of the files that a run was begun with is gone: it may have new addresses."""
    for file in files:
        if not os.path.isfile(file):
            raise ConfigError(
                f"{printable(file, 4_000)}: this suppression file of the run is gone, so that recipients who have opted"
                " out since it began would be sent to",
                hint="put it back; if nobody has opted out, an empty file by that name will do",
            )
