"""What a person does about a run from elsewhere: stops it, decides rows in doubt, erases an address or an old run."""

from __future__ import annotations

import getpass
import os
import re
import socket
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import field
from enum import Enum
from pathlib import Path
from typing import Protocol

import anyio
from anyio import to_thread

from bulkmail.engine.contracts import Event, Notice
from bulkmail.mailing.previous_run import INBOX_MARK, inbox_of, look, reports_beside
from bulkmail.model.breaker import StopRequest
from bulkmail.model.errors import BulkmailError, OutboxBusy, OutboxError
from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.model.tally import Status
from bulkmail.outbox.entries import Doubtful
from bulkmail.outbox.lock import holder, side_file
from bulkmail.outbox.lookup import erase, pattern
from bulkmail.outbox.outbox import Outbox
from bulkmail.outbox.outbox_reader import OutboxReader, is_outbox
from bulkmail.reconcile.sighting import Sighting
from bulkmail.report.recognising import is_report
from bulkmail.report.report import Report
from bulkmail.report.saving import save_report

# -- Stopping a run from elsewhere: another terminal, another user, another container, a program.
#
# `RunControl` is what it takes: a request is left, and the sending process looks for one once a second.  For a run in a
# file the request is a note beside its outbox, so that no signal and no process id is needed.


EVERY = 1.0  # seconds between two looks for a request
WAIT = 10.0  # seconds to wait for the sending process to end
CANCEL_WAIT = 60.0  # seconds; what is under way may take as long as the server does
_LOOK = 0.1  # seconds between two looks whether it has ended
_LARGEST_NOTE = 4_096  # bytes of a note
_REPLACE_TRIES = 20  # Windows does not replace a file while another process reads it


class RunControl(Protocol):
    """How a run is stopped and cancelled while another process may be sending from it.

    Every method raises `OutboxError` when the place that the run is kept in does not answer.
    """

    async def sender(self) -> str:
        """Who sends from the run just now, in words; empty when no process does."""

    async def ask_to_stop(self, request: StopRequest) -> None:
        """Leaves a request for the sending process, in place of an earlier one."""

    async def begin(self) -> None:
        """The sending process begins to look: a request that an earlier one left is forgotten."""

    async def asked(self) -> StopRequest | None:
        """The request that there is, if any."""

    async def withdraw(self) -> None:
        """There is no request any more."""

    async def cancel(self) -> int:
        """Recipients not yet sent to are skipped; returns how many.  Raises `OutboxBusy` while a process sends."""


class FileControl:
    """The control of a run in a file, by a note beside the outbox.

    The folder may belong to another user: a note counts only if it is a regular file of a few kilobytes, never a link.
    """

    def __init__(self, outbox: Path) -> None:
        self._outbox = outbox
        self._note = stop_note(outbox)
        self._leftover: os.stat_result | None = None

    async def sender(self) -> str:
        """As `RunControl` says."""
        found = await to_thread.run_sync(holder, self._outbox)
        return "" if found is None else str(found)

    async def ask_to_stop(self, request: StopRequest) -> None:
        """As `RunControl` says."""
        await to_thread.run_sync(self._write, request.recorded())

    async def begin(self) -> None:
        """As `RunControl` says.  What is older than the lock of this run was meant for an earlier one."""
        await to_thread.run_sync(self._forget_leftover)

    async def asked(self) -> StopRequest | None:
        """As `RunControl` says.  An empty note, or one in other words, is a request as well: `touch` makes one."""
        return await to_thread.run_sync(self._read)

    async def withdraw(self) -> None:
        """As `RunControl` says."""
        await to_thread.run_sync(self._remove)

    async def cancel(self) -> int:
        """As `RunControl` says."""
        return await to_thread.run_sync(_cancel, self._outbox)

    def _write(self, text: str) -> None:
        try:
            with tempfile.NamedTemporaryFile(
                "w", encoding="utf-8", dir=self._note.parent, prefix=f"{self._note.name}.", delete=False
            ) as new:
                new.write(text)
                if hasattr(os, "fchmod"):
                    os.fchmod(new.fileno(), 0o644)  # the sending process may be another user's
            _replace(Path(new.name), self._note)
        except OSError as error:
            raise OutboxError(
                f"{self._note} cannot be written: {error.strerror}",
                hint="stop it as the user who sends, or get write permission for the folder",
            ) from error

    def _forget_leftover(self) -> None:
        with suppress(OSError):
            found = os.lstat(self._note)
            if found.st_mtime_ns < os.stat(side_file(self._outbox)).st_mtime_ns:
                self._leftover = found  # if it is not ours to remove
                self._remove()

    def _read(self) -> StopRequest | None:
        try:
            found = os.lstat(self._note)
            if not stat.S_ISREG(found.st_mode) or self._is_leftover(found):
                return None
            descriptor = os.open(self._note, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
            with open(descriptor, "rb") as file:
                opened = os.fstat(file.fileno())
                if not stat.S_ISREG(opened.st_mode) or opened.st_size > _LARGEST_NOTE:
                    return None
                text = file.read(_LARGEST_NOTE)
        except FileNotFoundError:
            return None
        except OSError:  # a note that is not ours to read still says that we are to stop
            return StopRequest(at=time.time()) if self._note.is_file() and not self._note.is_symlink() else None
        try:
            return StopRequest.read(text)
        except OutboxError:
            return StopRequest(at=opened.st_mtime)

    def _is_leftover(self, found: os.stat_result) -> bool:
        left = self._leftover
        return left is not None and (found.st_ino, found.st_mtime_ns) == (left.st_ino, left.st_mtime_ns)

    def _remove(self) -> None:
        with suppress(OSError):
            self._note.unlink()


def stop_note(outbox: Path) -> Path:
    """Where a request to stop the run in `outbox` is left."""
    return outbox.with_name(outbox.name + ".stop")


def _replace(new: Path, old: Path) -> None:
    tries = _REPLACE_TRIES if os.name == "nt" else 1
    try:
        while True:
            tries -= 1
            try:
                new.replace(old)
                return
            except PermissionError:
                if not tries:
                    raise
            time.sleep(0.05)
    except OSError:
        new.unlink()
        raise


def _cancel(outbox: Path) -> int:
    with Outbox.open(outbox) as opened:
        number = opened.cancel()
        opened.finish()
        return number


@asynccontextmanager
async def watching_for_stop(
    outbox: Outbox, stop: Callable[[], None], observe: Callable[[Event], None], *, control: RunControl | None = None
) -> AsyncIterator[None]:
    """Around the sending from `outbox`: calls `stop` when a request comes, and ends the block at once when one says
    `now`.  `observe` gets a notice for people; the outbox remembers who asked, until sending goes on.

    What the block raises comes as it was.  No other process can ask for a run in memory.
    """
    if control is None:
        if outbox.path is None:
            yield
            return
        control = FileControl(outbox.path)
    await control.begin()
    if outbox.info.stopped is not None:
        outbox.note(stopped=None)
    heard: list[StopRequest] = []
    failed: Exception | None = None
    async with anyio.create_task_group() as group:

        async def look() -> None:
            while not (heard and heard[-1].now):
                request = await control.asked()
                if request is not None and (request.now or not heard):
                    heard.append(request)
                    observe(Notice(_said(request), ""))
                    stop()
                else:
                    await anyio.sleep(EVERY)
            group.cancel_scope.cancel()

        group.start_soon(look)
        try:
            yield
        except Exception as error:
            failed = error
        group.cancel_scope.cancel()
    if heard:
        await control.withdraw()
        with suppress(OutboxError):  # the sending says so, if it matters
            if outbox.tally().open:
                outbox.note(stopped=heard[0])
    if failed is not None:
        raise failed


def _said(request: StopRequest) -> str:
    what = "aborting the messages under way" if request.now else "finishing the messages under way"
    return f"{request.by} stopped this run: {what}"


def is_sending(outbox: Path) -> bool:
    """Whether a process sends from `outbox` just now."""
    return holder(outbox.resolve()) is not None


def requested_here(now: bool = False) -> StopRequest:
    """A request by the user of this process."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user without a name
        user = f"user {os.getuid()}" if hasattr(os, "getuid") else "a user"
    return StopRequest(f"{user} on {socket.gethostname()}", time.time(), now)


async def stop(outbox: str | os.PathLike[str], *, now: bool = False, wait: float = WAIT) -> bool:
    """Stops the run that another process, or another task, is sending from `outbox`.

    The messages under way are finished and no others begun; with `now` they are aborted, and may be in doubt.  Returns
    whether the run has ended after at most `wait` seconds; also True when it was not being sent.  Raises `OutboxError`.
    """
    control = await to_thread.run_sync(_control_of, outbox)
    return await stop_run(control, await to_thread.run_sync(requested_here, now), wait=wait)


async def cancel(outbox: str | os.PathLike[str], *, wait: float = CANCEL_WAIT) -> int:
    """Cancels the run in `outbox`, which is stopped first if it is being sent: recipients not yet sent to are skipped.

    Returns how many.  Raises `OutboxBusy` when it has not ended after `wait` seconds, and `OutboxError`.
    """
    control = await to_thread.run_sync(_control_of, outbox)
    if not await stop_run(control, await to_thread.run_sync(requested_here), wait=wait):
        raise still_sending(os.fspath(outbox), await control.sender())
    return await control.cancel()


async def stop_run(control: RunControl, request: StopRequest, *, wait: float) -> bool:
    """Leaves `request` and waits until no process sends; False when one still does after `wait` seconds."""
    if not await control.sender():
        return True
    await control.ask_to_stop(request)
    until = anyio.current_time() + wait
    while await control.sender():
        if anyio.current_time() >= until:
            return False
        await anyio.sleep(_LOOK)
    await control.withdraw()  # where the run has ended by itself in the meantime
    return True


def still_sending(outbox: str, sender: str) -> OutboxBusy:
    """The error for a run that was asked to stop and has not ended."""
    return OutboxBusy(
        f"{outbox} is stopping, but messages are still under way ({sender})",
        hint=f"try again in a minute; bulkmail stop {outbox} --now aborts them",
    )


def _control_of(outbox: str | os.PathLike[str]) -> FileControl:
    path = Path(outbox)
    if not is_outbox(path):
        raise OutboxError(f"{path}: there is no outbox", hint="name the outbox of a run")
    return FileControl(path.resolve())


# -- Rows in doubt: what a person decides about them, and which of their messages were found after all.


class Doubt(Enum):
    """What a person decides about rows in doubt."""

    HOLD = "hold"
    RETRY = "retry"
    ACCEPTED = "accepted"
    REJECTED = "rejected"

    @property
    def status(self) -> Status:
        """What those rows become."""
        return _DECISIONS[self]


_DECISIONS = {
    Doubt.HOLD: Status.IN_DOUBT,
    Doubt.RETRY: Status.PENDING,
    Doubt.ACCEPTED: Status.ACCEPTED,
    Doubt.REJECTED: Status.REJECTED,
}


SERVER_TIMEOUT = 600.0  # seconds a server may take over the end of a message, RFC 5321 §4.5.3.2.6
REWRITERS = {"amazonaws.com": "Amazon SES"}
"""Relays, by their domain, that put a Message-ID of their own in the place of ours."""


@dataclass(frozen=True, slots=True)
class SeenDelivery:
    """A delivery in doubt and where its message was seen."""

    doubtful: Doubtful
    place: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What a search came to.

    `unclear` were seen, but their message went to several people and nothing says whose copy that was.  `missing` were
    not seen, which proves nothing.  `looked_at` counts everything that had a Message-ID.
    """

    seen: tuple[SeenDelivery, ...]
    unclear: tuple[SeenDelivery, ...]
    missing: tuple[Doubtful, ...]
    looked_at: int


def weigh(doubts: Iterable[Doubtful], sightings: Iterable[Sighting]) -> Findings:
    """Holds the one against the other.  `sightings` is read to its end and not kept."""
    doubts = tuple(doubts)
    by_id: dict[str, list[Doubtful]] = {}
    for doubtful in doubts:
        if doubtful.message_id:
            by_id.setdefault(doubtful.message_id, []).append(doubtful)
    seen: dict[int, SeenDelivery] = {}
    unclear: dict[int, SeenDelivery] = {}
    looked_at = 0
    for looked_at, sighting in enumerate(sightings, 1):  # noqa: B007 - the last number is wanted
        for doubtful in by_id.get(sighting.message_id, ()):
            is_his = doubtful.is_alone or doubtful.forward_path.casefold() in sighting.forward_paths
            (seen if is_his else unclear).setdefault(doubtful.delivery, SeenDelivery(doubtful, sighting.place))
    return Findings(
        tuple(seen[key] for key in sorted(seen)),
        tuple(unclear[key] for key in sorted(unclear) if key not in seen),
        tuple(doubtful for doubtful in doubts if doubtful.delivery not in seen and doubtful.delivery not in unclear),
        looked_at,
    )


def settle(outbox: Outbox, findings: Findings) -> int:
    """What was seen becomes accepted, with the place as the reason; says how many deliveries that were."""
    found = {finding.doubtful.delivery: f"found in {finding.place}" for finding in findings.seen}
    return outbox.settle_found(found) if found else 0


def decide(outbox: Outbox, decision: Doubt, rows: Sequence[range] | None = None) -> int:
    """What becomes of what is in doubt, of `rows` or of all; says how many deliveries there were.

    To try one again waits until the server must have given up on the first copy (RFC 5321 §4.5.3.2.6).
    """
    if decision is Doubt.HOLD:
        return 0
    return outbox.settle_in_doubt(decision.status, wait=SERVER_TIMEOUT if decision is Doubt.RETRY else 0.0, rows=rows)


def rewriter_of(relay: str) -> str:
    """The service named in `relay` that replaces our Message-IDs; empty if none is known to."""
    host = relay.casefold()
    return next((who for name, who in REWRITERS.items() if name in host), "")


# -- An address erased everywhere that bulkmail keeps it; and runs that are old enough to go.


_SUFFIX = ".outbox"
_LARGEST_SEARCHED = 1 << 28  # bytes of a file that is looked through
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
            return wanted.search(file.read(_LARGEST_SEARCHED)) is not None
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
