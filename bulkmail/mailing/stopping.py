"""Stopping a run from elsewhere: another terminal, another user, another container, a program.

`RunControl` is what it takes: a request is left, and the sending process looks for one once a second.  For a run in a
file the request is a note beside its outbox, so that no signal and no process id is needed.
"""

from __future__ import annotations

import getpass
import os
import socket
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

import anyio
from anyio import to_thread

from bulkmail.engine.contracts import Event, Notice
from bulkmail.model.breaker import StopRequest
from bulkmail.model.errors import OutboxBusy, OutboxError
from bulkmail.outbox.lock import holder, side_file
from bulkmail.outbox.outbox import Outbox
from bulkmail.outbox.outbox_reader import is_outbox

EVERY = 1.0  # seconds between two looks for a request
WAIT = 10.0  # seconds to wait for the sending process to end
CANCEL_WAIT = 60.0  # seconds; what is under way may take as long as the server does
_LOOK = 0.1  # seconds between two looks whether it has ended
_LARGEST = 4_096  # bytes of a note
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
                if not stat.S_ISREG(opened.st_mode) or opened.st_size > _LARGEST:
                    return None
                text = file.read(_LARGEST)
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
