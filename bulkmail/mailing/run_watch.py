"""Watches one run: notifies of its end, of a standstill, and, in its place, of a run that was killed."""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import anyio
import msgspec
from anyio import to_thread

from bulkmail.engine.contracts import Event, ResultBatch
from bulkmail.mailing.mailing import Mailing
from bulkmail.mailing.notifying import BACKOFF, MailWay, NotifiedRun, make_notification, notify, sender_of
from bulkmail.model.errors import BulkmailError, ConfigError, OutboxError
from bulkmail.model.lazy import dataclass
from bulkmail.model.notification import NotifyEvent, NotifySettings, Stillness, event_of
from bulkmail.model.relay import Secret
from bulkmail.model.tally import Tally
from bulkmail.model.timing import Hold
from bulkmail.outbox.ledger import state_folder
from bulkmail.outbox.outbox import Outbox
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.settings.allowed_commands import commands_in, refuse_unallowed
from bulkmail.settings.notify_settings import load_notify
from bulkmail.settings.secrets import find_passwords

_FOLDER = "notify"
_SUFFIX = ".json"
_CLAIMED = ".claimed"
_LARGEST = 1 << 16  # bytes


@dataclass(frozen=True, slots=True)
class RunNote:
    """A run that sends, or did until it was killed; `failed` says why nothing could be delivered of its end.

    A note is in the state folder, not beside the outbox: an outbox may come from anywhere, and a stranger's must not
    make a command that only looks at it call a web address or run a program.
    """

    outbox: str
    run_id: str
    name: str
    notify: NotifySettings
    failed: tuple[str, ...] = ()


def keep_note(note: RunNote, *, environ: Mapping[str, str] = os.environ) -> None:
    """Writes `note` in the place of an earlier one of its outbox.  Raises `OSError`."""
    file = _note_file(Path(note.outbox), environ)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("wb", dir=file.parent, delete=False) as new:
        new.write(msgspec.json.encode(note))
    Path(new.name).replace(file)


def note_of(outbox: Path, *, environ: Mapping[str, str] = os.environ) -> RunNote | None:
    """The note of the run in `outbox`, if there is one that can be read."""
    return _read_note(_note_file(outbox, environ))


def claim_note(outbox: Path, *, environ: Mapping[str, str] = os.environ) -> RunNote | None:
    """Takes the note of `outbox` away; of several processes that ask, one gets it."""
    file = _note_file(outbox, environ)
    claimed = file.with_suffix(f"{_CLAIMED}-{os.getpid()}")
    try:
        file.replace(claimed)
    except OSError:
        return None
    note = _read_note(claimed)
    with suppress(OSError):
        claimed.unlink()
    return note


def all_notes(*, environ: Mapping[str, str] = os.environ) -> Iterator[RunNote]:
    """Every note that there is."""
    try:
        files = sorted((state_folder(environ) / _FOLDER).glob(f"*{_SUFFIX}"))
    except (OSError, RuntimeError):
        return
    for file in files:
        if note := _read_note(file):
            yield note


def _note_file(outbox: Path, environ: Mapping[str, str]) -> Path:
    name = blake2b(os.fsencode(os.path.realpath(outbox)), digest_size=16).hexdigest()
    return state_folder(environ) / _FOLDER / f"{name}{_SUFFIX}"


def _read_note(file: Path) -> RunNote | None:
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


LOOK = 30.0  # seconds: how exactly a standstill is noticed


def record_notify(outbox: Outbox, settings: NotifySettings) -> None:
    """Keeps in the outbox what the campaign says, so that `resume` goes by it."""
    if outbox.info.notify != settings:
        outbox.note(notify=settings)


class RunWatch:
    """Notifies of one run, if notifications are set up.  `say` gets what failed, for the screen.

    From `begin()` to `ended()` a note in the state folder says that the run is under way, so that another command can
    notify of it should this process be killed.
    """

    def __init__(
        self, mailing: Mailing, settings: NotifySettings, *, mail: MailWay, say: Callable[[str], None]
    ) -> None:
        self.settings = settings
        self._mailing = mailing
        self._mail = mail
        self._say = say
        self._stillness: Stillness | None = None
        self._moved_at = 0.0

    @classmethod
    async def open(
        cls,
        mailing: Mailing,
        *,
        passwords: Sequence[Secret | None],
        wanted: bool | None = None,
        say: Callable[[str], None],
    ) -> RunWatch:
        """The watch over `mailing`, by what its outbox and the user's own settings say.

        `wanted` None means of every run but a rehearsal.  Raises `ConfigError`, `OutboxError`.
        """

        def find() -> tuple[NotifySettings, MailWay]:
            outbox = mailing.outbox
            is_wanted = not outbox.is_rehearsal if wanted is None else wanted
            settings = outbox.info.notify.over(load_notify()) if is_wanted else NotifySettings()
            sender = sender_of(outbox.campaign, mailing.routes)
            return settings, MailWay(mailing.routes, passwords, sender, inbox=mailing.inbox)

        settings, mail = await to_thread.run_sync(find)
        return cls(mailing, settings, mail=mail, say=say)

    async def begin(self) -> None:
        """Before sending: notifies of an earlier process that was killed, and notes that this one is at work.

        The outbox is ours now, so that the process of a note that is still there is gone.
        """
        if not self.settings.is_set:
            return
        path = self._mailing.outbox.path
        if path is not None:
            note = await to_thread.run_sync(claim_note, path)
            if note is not None and not note.failed and note.run_id == self._mailing.outbox.run_id:
                await self._notify(NotifyEvent.KILLED, self._mailing.tally)
            await to_thread.run_sync(self._note, ())
        if self.settings.after is not None:
            now = time.monotonic()
            self._moved_at = now
            self._stillness = Stillness(max(self.settings.after, self._slowest_step()), now=now)

    def observing(self, observe: Callable[[Event], None]) -> Callable[[Event], None]:
        """`observe`, and the watch sees what moves."""
        stillness = self._stillness
        if stillness is None:
            return observe

        def see(event: Event) -> None:
            now = time.monotonic()
            match event:
                case ResultBatch():
                    self._moved_at = now
                    stillness.moved(now)
                case Hold(until=until, is_planned=True):
                    stillness.waits_until(now + max(0.0, until - time.time()))
            observe(event)

        return see

    async def watch(self) -> None:
        """Notifies of a standstill, as long as the run goes on.  To be cancelled."""
        stillness = self._stillness
        while stillness is not None:
            due = stillness.due_in(time.monotonic())
            if due is not None and due <= 0:
                stillness.notified()
                still = time.monotonic() - self._moved_at
                with suppress(OutboxError):  # the sending says so, and ends
                    await self._notify(NotifyEvent.STALLED, self._mailing.tally, still=still)
            await anyio.sleep(LOOK if due is None else min(LOOK, max(due, 0.1)))

    async def ended(self, finish: Callable[[], int], exit_code_of: Callable[[BaseException], int]) -> int:
        """Calls `finish`, which closes the run, and notifies of its exit code, also if it raises.  Returns it."""
        if not self.settings.is_set:
            return finish()
        outbox, run = self._mailing.outbox, self._run()
        try:
            tally = self._mailing.tally
        except OutboxError:  # `finish` says so, too
            tally = Tally(0)
        if outbox.path is not None:  # before the outbox is free: no other process may take this run for a killed one
            await to_thread.run_sync(claim_note, outbox.path)
        failed: Exception | None = None
        try:
            code = finish()
        except Exception as error:
            failed, code = error, exit_code_of(error)
        event = event_of(tally, has_failed=failed is not None)
        faults = await self._notify(event, tally, exit_code=code, error=str(failed or ""), run=run)
        if faults and run.outbox:
            await to_thread.run_sync(self._note, tuple(faults))
        if failed is not None:
            raise failed
        return code

    async def _notify(
        self,
        event: NotifyEvent,
        tally: Tally,
        *,
        exit_code: int | None = None,
        error: str = "",
        still: float | None = None,
        run: NotifiedRun | None = None,
    ) -> list[str]:
        notification = make_notification(
            event, run or self._run(), tally, now=time.time(), exit_code=exit_code, error=error, still=still
        )
        faults = await notify(self.settings, notification, mail=self._mail)
        for fault in faults:
            self._say(f"could not notify {fault}")
        return faults

    def _run(self) -> NotifiedRun:
        outbox = self._mailing.outbox
        path = "" if outbox.path is None else str(outbox.path.absolute())
        return NotifiedRun(_name_of(outbox), outbox.run_id, path, outbox.is_rehearsal)

    def _note(self, faults: tuple[str, ...]) -> None:
        run = self._run()
        try:
            keep_note(RunNote(run.outbox, run.run_id, run.name, self.settings, faults))
        except (OSError, RuntimeError) as error:
            self._say(f"no notification would follow if this process were killed: {error}")

    def _slowest_step(self) -> float:
        """Seconds between two messages that the rate alone asks for, twice over."""
        rates = [self._mailing.pace.rate, *(route.rate for route in self._mailing.routes)]
        return max((2 / rate.per_second for rate in rates if rate is not None), default=0.0)


def _name_of(outbox: Outbox | OutboxReader) -> str:
    return outbox.campaign.name if outbox.campaign is not None else outbox.info.name or "messages"


async def notify_if_killed(outbox: Path, *, backoff: Sequence[float] = ()) -> list[str]:
    """Notifies, once, of a run whose process is gone without a notification; returns what failed, in words.

    Nothing is asked of the terminal: a password that cannot be found is one of the faults.
    """
    note = await to_thread.run_sync(note_of, outbox)
    if note is None or note.failed:
        return []
    try:
        found = await to_thread.run_sync(_look, outbox, note)
    except BulkmailError as error:
        return [str(error)]
    if found is None:
        return []
    tally, run, mail, faults = found
    event = NotifyEvent.KILLED if tally.open else NotifyEvent.FINISHED
    notification = make_notification(
        event, run, tally, now=time.time(), exit_code=None if tally.open else tally.exit_code
    )
    faults += await notify(note.notify, notification, mail=mail, backoff=backoff)
    if faults:
        await to_thread.run_sync(keep_note, replace(note, failed=tuple(faults)))
    return faults


def _look(outbox: Path, note: RunNote) -> tuple[Tally, NotifiedRun, MailWay | None, list[str]] | None:
    """What a notification of a killed run needs, and what is missing for the mail; None where nothing was killed."""
    if not outbox.exists():
        claim_note(outbox)
        return None
    with OutboxReader.open(outbox) as reader:
        if reader.is_running is not None:
            return None
        if claim_note(outbox) is None or reader.run_id != note.run_id:
            return None  # another process was first, or a new run has taken its place
        run = NotifiedRun(_name_of(reader), reader.run_id, str(outbox.absolute()), reader.is_rehearsal)
        tally, campaign, info = reader.tally(), reader.campaign, reader.info
    if not note.notify.mail:
        return tally, run, None, []
    try:
        routes, _ = info.read_sending(outbox)
        refuse_unallowed(outbox, commands_in(None, routes))
        return tally, run, MailWay(routes, find_passwords(routes, ask=None), sender_of(campaign, routes)), []
    except (ConfigError, OutboxError) as error:
        return tally, run, None, [f"by mail: {error}"]


def failed_notification(outbox: Path) -> tuple[str, ...]:
    """Why the notification of the last end of the run in `outbox` failed; empty if all is well."""
    note = note_of(outbox)
    return note.failed if note is not None else ()


async def notify_of_all_killed() -> list[str]:
    """`notify_if_killed()` for every run of this user; returns what failed, in words."""
    notes = await to_thread.run_sync(lambda: list(all_notes()))
    return [fault for note in notes for fault in await notify_if_killed(Path(note.outbox), backoff=BACKOFF)]
