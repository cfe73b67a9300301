"""One mailing from its list to its report: prepare, send, read."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bulkmail.engine.engine import Engine
from bulkmail.engine.ports import Connect, Ending, Event
from bulkmail.engine.run import Plan
from bulkmail.mailing.loading import Told, record, try_letters
from bulkmail.message.composer import Composer
from bulkmail.message.ready_made import message_of
from bulkmail.message.templates import compile_condition, referenced_names
from bulkmail.model.address import Address
from bulkmail.model.campaign import Campaign
from bulkmail.model.errors import BulkmailError, ConfigError, OutboxError
from bulkmail.model.message import Envelope, Message
from bulkmail.model.pace import Pace
from bulkmail.model.recipient import BadRow, Recipient
from bulkmail.model.relay import Relay
from bulkmail.model.tally import Tally
from bulkmail.outbox.outbox import Job, Outbox
from bulkmail.preflight.finding import Finding, refuse
from bulkmail.preflight.letter import LetterCheck
from bulkmail.recipients.screening import Suppression, screen
from bulkmail.report.report import Report


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows of the list are meant: `where` is a Jinja expression over the row, empty for all."""

    where: str = ""
    suppression: Suppression | None = None
    allow_duplicates: bool = False
    redirect_to: Address | None = None
    sample: int | None = None


@dataclass(slots=True)
class Mailing:
    """An outbox that has been filled and checked, and what is needed to send from it.  Close it when done.

    `takes_over` is the outbox of an earlier run whose place it takes as soon as it is sent.
    """

    outbox: Outbox
    relay: Relay
    pace: Pace
    findings: list[Finding] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    takes_over: Path | None = None
    _engine: Engine | None = None

    @classmethod
    async def prepare(
        cls,
        path: Path | None,
        *,
        campaign: Campaign,
        rows: Iterable[Recipient | BadRow],
        columns: Callable[[], Sequence[str]],
        relay: Relay,
        pace: Pace,
        selection: Selection = Selection(),
        is_rehearsal: bool = False,
        settings: Mapping[str, str] | None = None,
        told_loading: Told = lambda rows: None,
        told_checking: Told = lambda rows: None,
    ) -> Mailing:
        """Records every row in a new outbox at `path` (None: in memory) and tries every letter.

        Raises `TemplateError`, `ListError`, `OutboxError`, and `GateClosed` when no letter at all can be sent.
        """
        composer = Composer(campaign, run_id="0")  # before the outbox: a letter that does not compile leaves nothing behind
        where = compile_condition(selection.where) if selection.where else None
        outbox = Outbox.create(
            path,
            campaign=campaign,
            settings={
                "relay": str(relay),
                "relay_kind": relay.kind.value,
                "rehearsal": "yes" if is_rehearsal else "no",
                "redirect_to": selection.redirect_to.readable if selection.redirect_to else "",
                **(settings or {}),
            },
            durability=pace.durability,
            allow_duplicates=selection.allow_duplicates,
        )
        mailing = cls(outbox, relay, pace, is_rehearsal=is_rehearsal)
        try:
            await record(
                outbox,
                rows,
                screen=lambda row: screen(row, suppression=selection.suppression, where=where),
                redirect_to=selection.redirect_to,
                told=told_loading,
            )
            outbox.set_setting("columns", json.dumps(list(columns())))
            check = LetterCheck(composer.check, frozenset(referenced_names(campaign)))
            mailing.findings = await try_letters(outbox, check, told=told_checking)
            refuse(mailing.findings)
            outbox.finish_loading()
        except BaseException:
            outbox.close()
            raise
        return mailing

    @classmethod
    def reopen(cls, path: Path, *, relay: Relay, pace: Pace) -> Mailing:
        """Goes on with a run as it was recorded: its rows, its letter.  Raises `OutboxError`."""
        outbox = Outbox.open(path, durability=pace.durability)
        try:
            if not outbox.is_loaded:
                raise ConfigError(f"{path} was never completely filled", hint="send the campaign again")
            return cls(outbox, relay, pace, is_rehearsal=outbox.settings.get("rehearsal") == "yes")
        except BaseException:
            outbox.close()
            raise

    @property
    def tally(self) -> Tally:
        """Rows by status as of now."""
        return self.outbox.tally()

    async def send(
        self,
        connect: Connect,
        *,
        observe: Callable[[Event], None] = lambda event: None,
        wants: Callable[[Job], bool] | None = None,
    ) -> Ending:
        """Delivers what is open.  The error of the `Ending`, if any, has left every row that was not dealt with as it was."""
        engine = Engine(
            Plan(
                self.outbox,
                compose=self._compose(),
                connect=connect,
                relay_name=str(self.relay),
                connections=self.relay.connections,
                pace=self.pace,
                observe=observe,
                wants=wants,
                dice=random.random,
            )
        )
        self._engine = engine
        try:
            ending = await engine.run()
        finally:
            self._engine = None
        if not self.outbox.tally().adds_up:
            raise OutboxError("the outbox does not add up; please report this as a bug of bulkmail")
        return ending

    def stop(self) -> None:
        """Finishes the transactions under way and begins no others."""
        if self._engine is not None:
            self._engine.stop()

    def close(self) -> Report:
        """Lets go of the outbox (a finished one becomes a single plain file) and reads it."""
        try:
            self.outbox.finish()
            return Report.read(self.outbox.path) if self.outbox.path else Report.read(self.outbox.reader())
        finally:
            self.outbox.close()

    def _compose(self) -> Callable[[Job, float], Message]:
        campaign = self.outbox.campaign
        composer = Composer(campaign, run_id=self.outbox.run_id) if campaign else None

        def compose(job: Job, first_at: float) -> Message:
            if job.ready_made is not None:
                envelope = Envelope(job.ready_made.reverse_path, job.delivery.forward_path)
                return message_of(job.ready_made.content, envelope=envelope, message_id=job.ready_made.message_id)
            if composer is None or job.recipient is None:
                raise BulkmailError(f"row {job.delivery.row} of the outbox has no letter")
            return composer.compose(
                job.recipient, row=job.delivery.row, forward_path=job.delivery.forward_path, date=first_at
            )

        return compose
