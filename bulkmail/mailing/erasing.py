"""An address erased everywhere that bulkmail keeps it; and runs that are old enough to go."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import field
from pathlib import Path

from bulkmail.mailing.previous_run import INBOX_MARK, inbox_of, look, reports_beside
from bulkmail.model.delivery import Status
from bulkmail.model.errors import BulkmailError, OutboxError
from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.outbox.addresses import erase, pattern
from bulkmail.outbox.outbox_reader import OutboxReader, is_outbox
from bulkmail.report.recognising import is_report
from bulkmail.report.report import Report
from bulkmail.report.saving import save_report

_SUFFIX = ".outbox"
_LARGEST = 1 << 28  # bytes of a file that is looked through
_PASS = lazy_pattern(r"\.\d+$")


@dataclass(slots=True)
class Erased:
    """What an erasure did: outboxes, reports and messages of rehearsals; `left` are files that still name the address,
    with the reason.
    """

    outboxes: list[Path] = field(default_factory=list)
    reports: list[Path] = field(default_factory=list)
    messages: int = 0
    left: list[tuple[Path, str]] = field(default_factory=list)


def find_outboxes(folders: Iterable[Path], known: Iterable[str] = ()) -> list[Path]:
    """The outboxes below `folders`, and those at the paths `known` that are still there."""
    found = {path.resolve(): None for path in map(Path, known) if path.is_file() and is_outbox(path)}
    for folder in folders:
        for path in sorted(folder.rglob(f"*{_SUFFIX}")):
            if path.is_file() and is_outbox(path):
                found[path.resolve()] = None
    return list(found)


def erase_everywhere(key: str, outboxes: Iterable[Path], *, dry_run: bool = False) -> Erased:
    """Takes the address with this `Address.key` out of finished outboxes, reports and kept mail beside them.

    What cannot be changed is left and named: an outbox that is in use or has rows open or in doubt, and files that are
    not ours to change, such as a trace.
    """
    done, wanted = Erased(), pattern(key)
    outboxes = list(outboxes)
    rewritten: set[Path] = set()
    for path in outboxes:
        try:
            erasure = erase(path, key, dry_run=dry_run)
            if not erasure.records:
                continue
            if erasure.is_open:
                done.left.append((path, "some of its rows are open or in doubt"))
                continue
            done.outboxes.append(path)
            for report in _reports_of(path):
                if _names(report, wanted):
                    done.reports.append(report)
                    if not dry_run:
                        save_report(Report.read(path), report)
                        rewritten.add(report)
        except OutboxError as error:
            if _names(path, wanted):
                done.left.append((path, str(error)))
        except BulkmailError as error:
            done.left.append((path, f"its reports cannot be written: {error}"))
    for inbox in dict.fromkeys(inbox_of(path) for path in outboxes):
        done.messages += _drop(inbox, wanted, dry_run=dry_run)
    taken = {*done.outboxes, *(path for path, _ in done.left), *(done.reports if dry_run else ())}
    for folder in dict.fromkeys(path.parent for path in outboxes):
        for file in _files(folder):
            if file not in taken and _names(file, wanted):
                done.left.append((file, "names the address, and is not rewritten by this command"))
    return done


def _reports_of(outbox: Path) -> Iterator[Path]:
    """The reports that stand beside an outbox and are its own."""
    with OutboxReader.open(outbox) as reader:
        number, run_id = reader.info.number, reader.run_id
    base = outbox.with_name(_PASS.sub("", outbox.stem) + outbox.suffix)
    for report in reports_beside(base, number):
        if report.is_file() and is_report(report) and _is_of(report, run_id):
            yield report


def _is_of(report: Path, run_id: str) -> bool:
    """Whether the report says that it is of that run, or does not say."""
    if report.suffix.lower() == ".csv":
        return True
    return run_id.encode() in report.read_bytes()


def _files(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda each: each.name):
            if entry.is_file(follow_symlinks=False):
                yield Path(entry.path)


def _names(path: Path, wanted: re.Pattern[bytes]) -> bool:
    """Whether the file names the address, as far as it can be read."""
    try:
        with path.open("rb") as file:
            return wanted.search(file.read(_LARGEST)) is not None
    except OSError:
        return False


def _drop(inbox: Path, wanted: re.Pattern[bytes], *, dry_run: bool) -> int:
    """Removes the messages that name the address from a mail folder that a rehearsal made; says how many."""
    if not (inbox / INBOX_MARK).is_file():
        return 0
    dropped = 0
    for name in ("tmp", "new", "cur"):
        folder = inbox / name
        for file in _files(folder) if folder.is_dir() and not folder.is_symlink() else ():
            if _names(file, wanted) or wanted.search(os.fsencode(file.name)):
                dropped += 1
                if not dry_run:
                    file.unlink()
    return dropped


# Runs that are old enough ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OldRun:
    """A run that may go: its outbox, and the reports and the mail folder beside it."""

    outbox: Path
    others: tuple[Path, ...]
    ended_at: float


def find_old(folder: Path, *, before: float) -> tuple[list[OldRun], list[tuple[Path, str]]]:
    """The runs below `folder` that ended before `before` (wall clock), and those as old that stay, with the reason.

    A run with rows that are open or in doubt stays, and so do all passes of a campaign as long as one of them does:
    only they say whom it reached.
    """
    by_name: dict[Path, list[Path]] = {}
    for outbox in find_outboxes([folder]):
        by_name.setdefault(outbox.with_name(_PASS.sub("", outbox.stem)), []).append(outbox)
    old, kept = list[OldRun](), list[tuple[Path, str]]()
    for passes in by_name.values():
        found, reason = list[OldRun](), ""
        for outbox in passes:
            try:
                past = look(outbox)
            except OutboxError as error:
                reason = reason or str(error)
                continue
            ended = past.ended_at if past.ended_at is not None else outbox.stat().st_mtime
            if past.tally.open or past.tally[Status.IN_DOUBT]:
                if ended < before:
                    kept.append((outbox, "some of its rows are open or in doubt"))
                reason = reason or "another pass has rows that are open or in doubt"
            elif ended >= before:
                reason = reason or "a later pass is not old enough"
            else:
                others = tuple(path for path in (*_reports_of(outbox), inbox_of(outbox)) if path.exists())
                found.append(OldRun(outbox, others, ended))
        if reason:
            kept += [(run.outbox, reason) for run in found]
        else:
            old += found
    return old, kept


def remove(run: OldRun) -> None:
    """Removes a run and the files beside it.  Raises `OutboxBusy` while a process has it open, `OSError`."""
    import shutil

    from bulkmail.outbox.lock import Lock
    from bulkmail.outbox.sqlite_file import remove as remove_outbox

    lock = Lock(run.outbox)
    try:
        for path in run.others:
            if path.is_dir():
                if (path / INBOX_MARK).is_file() and not path.is_symlink():
                    shutil.rmtree(path)
            else:
                path.unlink()
        remove_outbox(run.outbox)
    finally:
        lock.release()
