"""One mailing from its list to its report: prepare, send, read."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from enum import Enum
from pathlib import Path

from bulkmail.engine.engine import Engine
from bulkmail.engine.ports import Connect, Ending, Event, Outlet
from bulkmail.engine.run import Plan
from bulkmail.mailing.gate import Asked, gather
from bulkmail.mailing.loading import Told, nobody, record, record_messages
from bulkmail.mailing.resuming import to_settings
from bulkmail.mailing.routing import Serving, check_routes, find_unserved, sort_by_route
from bulkmail.mailing.rows import Rows
from bulkmail.message.composer import Composer
from bulkmail.message.hook import Hook
from bulkmail.message.ready_made import message_of
from bulkmail.message.templates import compile_condition
from bulkmail.model.address import Address
from bulkmail.model.campaign import Campaign
from bulkmail.model.delivery import Status
from bulkmail.model.errors import BulkmailError, ConfigError, GateClosed
from bulkmail.model.keys import NO_KEYS, Keys
from bulkmail.model.message import Envelope, Message
from bulkmail.model.pace import Pace
from bulkmail.model.recipient import BadRow, Recipient
from bulkmail.model.relay import Kind
from bulkmail.model.route import Route
from bulkmail.model.tally import Tally
from bulkmail.outbox.outbox import Job, Outbox
from bulkmail.outbox.reader import OutboxReader
from bulkmail.preflight.checks import gravest_first, judge, without
from bulkmail.preflight.evidence import Evidence
from bulkmail.preflight.finding import Finding, refuse
from bulkmail.preflight.rows import RowCheck
from bulkmail.recipients.screening import Screened, Suppression, screen
from bulkmail.report.report import Report

SERVER_TIMEOUT = 600.0  # seconds a server may take over the end of a message, RFC 5321 §4.5.3.2.6


class Doubt(Enum):
    """What a person decides about rows in doubt."""

    HOLD = "hold"
    RETRY = "retry"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


_DECISIONS = {Doubt.RETRY: Status.PENDING, Doubt.ACCEPTED: Status.ACCEPTED, Doubt.REJECTED: Status.REJECTED}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows of the list are meant: `where` is a Jinja expression over the row, empty for all.

    `own_columns` are those that settings name for addresses and names.
    """

    where: str = ""
    suppression: Suppression | None = None
    allow_duplicates: bool = False
    redirect_to: Address | None = None
    sample: int | None = None
    own_columns: frozenset[str] = frozenset()


@dataclass(slots=True)
class Mailing:
    """An outbox that has been filled and checked, and what is needed to send from it.  Close it when done.

    `takes_over` is the outbox of an earlier run whose place it takes as soon as it is sent.  `keys` and `on_message`
    are for the composer; neither is in the outbox.
    """

    outbox: Outbox
    routes: tuple[Route, ...]
    pace: Pace
    findings: list[Finding] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    takes_over: Path | None = None
    keys: Keys = NO_KEYS
    on_message: Hook | None = None
    evidence: Evidence | None = None
    _serving: Serving | None = None
    _engine: Engine | None = None

    @classmethod
    async def prepare(
        cls,
        path: Path | None,
        *,
        campaign: Campaign,
        rows: Rows,
        routes: Sequence[Route],
        pace: Pace,
        selection: Selection = Selection(),
        is_rehearsal: bool = False,
        settings: Mapping[str, str] | None = None,
        keys: Keys = NO_KEYS,
        on_message: Hook | None = None,
        told_loading: Told = nobody,
        told_checking: Told = nobody,
    ) -> Mailing:
        """Records every row in a new outbox at `path` (None: in memory) and tries every letter; see `findings`.

        What is at `path` is replaced.  Raises `TemplateError`, `ListError`, `OutboxError`.
        """
        check_routes(routes)
        # Before the outbox: a letter that does not compile leaves nothing behind.
        composer = Composer(campaign, run_id="", keys=keys, on_message=on_message)
        where = compile_condition(selection.where) if selection.where else None
        outbox = Outbox.create(
            path,
            campaign=campaign,
            settings={
                **to_settings(routes, pace),
                "rehearsal": "yes" if is_rehearsal else "no",
                "redirect_to": selection.redirect_to.readable if selection.redirect_to else "",
                "on_message": "yes" if on_message else "no",
                **(settings or {}),
            },
            durability=pace.durability,
            allow_duplicates=selection.allow_duplicates,
            replace=True,
        )
        mailing = cls(outbox, tuple(routes), pace, keys=keys, on_message=on_message)
        try:
            _empty_inbox(outbox, routes)
            seen = RowCheck()

            def look_at(row: Recipient | BadRow) -> Screened:
                seen.note(row)
                return screen(row, suppression=selection.suppression, where=where)

            await record(
                outbox,
                rows,
                screen=look_at,
                forward_paths=composer.forward_paths if composer.has_copies else None,
                redirect_to=selection.redirect_to,
                told=told_loading,
            )
            outbox.set_setting("columns", json.dumps(rows.columns))
            outbox.finish_loading()
            if selection.sample is not None:
                outbox.keep_sample(selection.sample, reason="not drawn for the sample")
            mailing.evidence = await gather(
                outbox,
                composer,
                campaign,
                seen=seen,
                rows=rows,
                routes=routes,
                asked=Asked(where.names if where else frozenset(), selection.own_columns),
                told=told_checking,
            )
            mailing.findings = gravest_first([*mailing._find_unserved(), *judge(mailing.evidence)])
        except BaseException:
            mailing.abandon()
            raise
        mailing.notices = list(rows.notices)
        return mailing

    @classmethod
    async def prepare_messages(
        cls, path: Path | None, messages: Iterable[EmailMessage], *, routes: Sequence[Route], pace: Pace
    ) -> Mailing:
        """Records ready-made messages, a delivery for each recipient of each, in place of what is at `path`."""
        check_routes(routes)
        rehearsal = "yes" if routes[0].relay.kind.is_rehearsal else "no"
        settings = {**to_settings(routes, pace), "rehearsal": rehearsal, "columns": "[]"}
        outbox = Outbox.create(
            path, campaign=None, settings=settings, durability=pace.durability, allow_duplicates=True, replace=True
        )
        mailing = cls(outbox, tuple(routes), pace)
        try:
            await record_messages(outbox, messages)
            outbox.finish_loading()
            mailing.findings = mailing._find_unserved()
        except BaseException:
            mailing.abandon()
            raise
        return mailing

    @classmethod
    def reopen(
        cls,
        path: Path,
        *,
        routes: Sequence[Route],
        pace: Pace,
        keys: Keys = NO_KEYS,
        on_message: Hook | None = None,
    ) -> Mailing:
        """Goes on with a run as it was recorded: its rows, its letter.

        Raises `OutboxError`, `ConfigError`, and `GateClosed` when no relay takes some of the mail.
        """
        check_routes(routes)
        outbox = Outbox.open(path, durability=pace.durability)
        try:
            if not outbox.is_loaded:
                raise ConfigError(f"{path} was never completely filled", hint="send the campaign again")
            if outbox.settings.get("on_message") == "yes" and on_message is None:
                raise ConfigError(
                    f"{path} was begun by a program whose on_message has a hand in each letter",
                    hint="go on with that program; without it people would get another letter",
                )
            if outbox.campaign is not None:
                Composer(outbox.campaign, run_id=outbox.run_id, keys=keys)  # a key that is missing is told now
            mailing = cls(outbox, tuple(routes), pace, keys=keys, on_message=on_message)
            refuse(mailing._find_unserved())
        except BaseException:
            outbox.close()
            raise
        return mailing

    def pass_gate(self, *, strict: bool = False, ignored: Iterable[str] = ()) -> None:
        """Raises `GateClosed`, and lets go of the outbox, when the findings forbid sending.

        With `strict` warnings do so, too; findings with a code in `ignored` are forgotten.
        """
        self.findings = without(self.findings, ignored)
        try:
            refuse(self.findings, strict=strict)
        except GateClosed:
            self.abandon()
            raise

    @property
    def tally(self) -> Tally:
        """Rows by status as of now."""
        return self.outbox.tally()

    @property
    def inbox(self) -> Path | None:
        """Where a sandbox keeps the mail of this run; None when that is of no account, as for a run in memory."""
        kept = self.outbox.settings.get("maildir")
        return Path(kept) if kept else None

    def _find_unserved(self) -> list[Finding]:
        self._serving = sort_by_route(self.outbox, self.routes, keys=self.keys)
        return find_unserved(self.outbox, self._serving)

    def decide_doubts(self, decision: Doubt) -> int:
        """What becomes of rows in doubt; says how many there were.

        To try one again waits until the server must have given up on the first copy (RFC 5321 §4.5.3.2.6).
        """
        if decision is Doubt.HOLD:
            return 0
        wait = SERVER_TIMEOUT if decision is Doubt.RETRY else 0.0
        return self.outbox.settle_in_doubt(_DECISIONS[decision], wait=wait)

    async def send(
        self,
        connects: Sequence[Connect],
        *,
        observe: Callable[[Event], None] = lambda event: None,
        ready: Callable[[], Awaitable[None]] | None = None,
        wants: Callable[[Job], bool] | None = None,
    ) -> Ending:
        """Delivers what is open; `connects` are for the routes, in their order.

        The error of the `Ending`, if any, has left every row it did not deal with as it was.
        `ready` is awaited before each message is begun; `wants` leaves the other deliveries as they are.
        """
        if self._serving is not None:
            refuse(find_unserved(self.outbox, self._serving))  # a row that was in doubt may be open by now
        if self.takes_over is not None:
            self._take_over(self.takes_over)
        self._engine = Engine(
            Plan(
                self.outbox,
                compose=self._compose(),
                outlets=[Outlet(*pair) for pair in zip(self.routes, connects, strict=True)],
                serving=self._serving and {lane: numbers for lane, numbers in self._serving.items() if numbers},
                pace=self.pace,
                observe=observe,
                ready=ready,
                wants=wants,
            )
        )
        try:
            return await self._engine.run()
        finally:
            self._engine = None

    def stop(self) -> None:
        """Finishes the transactions under way and begins no others."""
        if self._engine is not None:
            self._engine.stop()

    def close(self) -> Report:
        """Lets go of the outbox (a finished one becomes a single plain file) and reads it."""
        path = self.outbox.path
        try:
            self.outbox.finish()
            if path is None:
                return Report.read(OutboxReader.over(self.outbox))
        finally:
            self.outbox.close()
        return Report.read(path)

    def abandon(self) -> None:
        """Lets go of the outbox as it is."""
        self.outbox.close()

    def _take_over(self, old: Path) -> None:
        """The new outbox takes the old one's name, the old one a number: at no instant is there none."""
        new = self.outbox.path
        if new is None:
            return
        self.outbox.close()
        with Outbox.open(old):  # nobody sends from it, and closing it leaves a single file
            pass
        os.link(old, _free_name(old))
        os.replace(new, old)
        self.outbox = Outbox.open(old, durability=self.pace.durability)
        self.takes_over = None

    def _compose(self) -> Callable[[Job, float], Message]:
        campaign = self.outbox.campaign
        composer = (
            Composer(campaign, run_id=self.outbox.run_id, keys=self.keys, on_message=self.on_message)
            if campaign
            else None
        )

        def compose(job: Job, first_at: float) -> Message:
            if job.content is not None:
                envelope = Envelope(job.reverse_path, job.delivery.forward_path)
                return message_of(job.content, envelope=envelope, message_id=job.message_id)
            if composer is None or job.recipient is None:
                raise BulkmailError(f"row {job.delivery.row} of the outbox has no letter")
            return composer.compose(
                job.recipient, row=job.delivery.row, forward_path=job.delivery.forward_path, date=first_at
            )

        return compose


def _empty_inbox(outbox: Outbox, routes: Sequence[Route]) -> None:
    """A rehearsal always begins anew: what an earlier one kept beside this outbox goes."""
    kept_here = [route for route in routes if route.relay.kind is Kind.SANDBOX and not route.relay.directory]
    if not kept_here or outbox.path is None:
        return
    from bulkmail.sandbox.maildir import Maildir

    name = outbox.path.name.removesuffix(".outbox").removesuffix(".rehearsal") + ".inbox"
    inbox = outbox.path.with_name(name)
    if inbox.exists():
        Maildir(inbox).clear()
    outbox.set_setting("maildir", str(inbox))


def _free_name(path: Path) -> Path:
    """`NAME.1.outbox`, or the next number that no older run has."""
    number = 1
    while (name := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    return name
