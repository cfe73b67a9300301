"""Watches one run: notifies of its end, of a standstill, and, in its place, of a run that was killed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import anyio
import msgspec
from anyio import to_thread

from bulkmail.config.notifying import load_notify
from bulkmail.config.permission import commands_in, refuse_unallowed
from bulkmail.config.secrets import find_passwords
from bulkmail.engine.ports import DeliveryResult, Event, Waiting
from bulkmail.mailing import run_notes
from bulkmail.mailing.mailing import Mailing
from bulkmail.mailing.notifying import BACKOFF, MailWay, NotifiedRun, make_notification, notify, sender_of
from bulkmail.mailing.resuming import from_settings
from bulkmail.model.errors import BulkmailError, ConfigError, OutboxError
from bulkmail.model.notification import NotifyEvent, NotifySettings, Stillness, event_of
from bulkmail.model.relay import Secret
from bulkmail.model.tally import Tally
from bulkmail.outbox.outbox import Outbox
from bulkmail.outbox.reader import OutboxReader

SETTING = "notify"  # of the outbox: what the campaign says, never what the user's own settings say
LOOK = 30.0  # seconds: how exactly a standstill is noticed


def recorded_notify(settings: Mapping[str, str]) -> NotifySettings:
    """What the campaign of a run said of notifying, as its outbox keeps it.  Raises `OutboxError`."""
    kept = settings.get(SETTING)
    if not kept:
        return NotifySettings()
    try:
        return msgspec.json.decode(kept, type=NotifySettings)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise OutboxError(f"the outbox does not say whom to notify: {error}", hint="send the campaign again") from None


def record_notify(outbox: Outbox, settings: NotifySettings) -> None:
    """Keeps in the outbox what the campaign says, so that `resume` goes by it."""
    kept = msgspec.json.encode(settings).decode() if settings != NotifySettings() else ""
    if outbox.settings.get(SETTING, "") != kept:
        outbox.set_setting(SETTING, kept)


class RunWatch:
    """Notifies of one run, if anybody is to be notified.  `say` gets what failed, for the screen.

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
            settings = recorded_notify(outbox.settings).over(load_notify()) if is_wanted else NotifySettings()
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
            note = await to_thread.run_sync(run_notes.claim, path)
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
                case DeliveryResult():
                    self._moved_at = now
                    stillness.moved(now)
                case Waiting(until=until, is_planned=True):
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
        if outbox.path is not None:  # before the outbox is free: nobody else may take this run for a killed one
            await to_thread.run_sync(run_notes.claim, outbox.path)
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
            run_notes.keep(run_notes.RunNote(run.outbox, run.run_id, run.name, self.settings, faults))
        except (OSError, RuntimeError) as error:
            self._say(f"no notification would follow if this process were killed: {error}")

    def _slowest_step(self) -> float:
        """Seconds between two messages that the rate alone asks for, twice over."""
        rates = [self._mailing.pace.rate, *(route.rate for route in self._mailing.routes)]
        return max((2 / rate.per_second for rate in rates if rate is not None), default=0.0)


def _name_of(outbox: Outbox | OutboxReader) -> str:
    return outbox.campaign.name if outbox.campaign is not None else outbox.settings.get("name", "messages")


async def notify_if_killed(outbox: Path, *, backoff: Sequence[float] = ()) -> list[str]:
    """Notifies, once, of a run whose process is gone and that nobody was notified of; returns what failed, in words.

    Nothing is asked of the terminal: a password that cannot be found is one of the faults.
    """
    note = await to_thread.run_sync(run_notes.note_of, outbox)
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
        await to_thread.run_sync(run_notes.keep, replace(note, failed=tuple(faults)))
    return faults


def _look(outbox: Path, note: run_notes.RunNote) -> tuple[Tally, NotifiedRun, MailWay | None, list[str]] | None:
    """What a notification of a killed run needs, and what is missing for the mail; None where nothing was killed."""
    if not outbox.exists():
        run_notes.claim(outbox)
        return None
    with OutboxReader.open(outbox) as reader:
        if reader.is_running is not None:
            return None
        if run_notes.claim(outbox) is None or reader.run_id != note.run_id:
            return None  # another process was first, or a new run has taken its place
        run = NotifiedRun(_name_of(reader), reader.run_id, str(outbox.absolute()), reader.is_rehearsal)
        tally, campaign, settings = reader.tally(), reader.campaign, reader.settings
    if not note.notify.mail:
        return tally, run, None, []
    try:
        routes, _ = from_settings(settings, outbox)
        refuse_unallowed(outbox, commands_in(None, routes))
        return tally, run, MailWay(routes, find_passwords(routes, ask=None), sender_of(campaign, routes)), []
    except (ConfigError, OutboxError) as error:
        return tally, run, None, [f"by mail: {error}"]


def failed_notification(outbox: Path) -> tuple[str, ...]:
    """Why nobody could be notified of the last end of the run in `outbox`; empty if all is well."""
    note = run_notes.note_of(outbox)
    return note.failed if note is not None else ()


async def notify_of_all_killed() -> list[str]:
    """`notify_if_killed()` for every run of this user; returns what failed, in words."""
    notes = await to_thread.run_sync(lambda: list(run_notes.all_notes()))
    return [fault for note in notes for fault in await notify_if_killed(Path(note.outbox), backoff=BACKOFF)]
