"""One mailing from its list to its report: prepare, send, read."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import field, replace
from email.message import EmailMessage
from functools import partial
from pathlib import Path

from anyio import to_thread
from msgspec import structs

from bulkmail.checks.catalog import SUPPRESSION_ENTRY, gravest_first, judge, without
from bulkmail.checks.check_finding import Finding, refuse
from bulkmail.checks.evidence import Evidence
from bulkmail.checks.row_checks import RowCheck
from bulkmail.engine.contracts import Connect, Ending, Event, Outlet, Plan, ResultBatch, make_shaper
from bulkmail.engine.engine import Engine
from bulkmail.mailing import suppression_list
from bulkmail.mailing.checking import (
    Asked,
    Messages,
    NothingToSend,
    Rules,
    Told,
    gather,
    no_one,
    record,
    record_messages,
    refuse_unknown_columns,
    refuse_unknown_names,
    why_empty,
)
from bulkmail.mailing.composing import composing
from bulkmail.mailing.following import Followed, following, subject_notice
from bulkmail.mailing.list_keeper import ListKeeper, keeping_to_list, noticing_all
from bulkmail.mailing.operator import Doubt, decide, watching_for_stop
from bulkmail.mailing.permits import (
    Canary,
    Planner,
    Wants,
    both,
    notices_of,
    open_permits,
    planned_until,
)
from bulkmail.mailing.previous_run import (
    DigestedRows,
    check_inbox,
    empty_inbox,
    refuse_relays_of_other_kind,
    take_over,
)
from bulkmail.mailing.relays import (
    Sorted,
    ask_exchangers,
    check_routes,
    find_unserved,
    know_tables,
    providers_for,
    sort_into_queues,
)
from bulkmail.mailing.rows import GivenRows, Rows, Selection, Where, blocks_of, varied
from bulkmail.mailing.run_record import RestNote, SlowdownNote
from bulkmail.message.compose.composer import Composer
from bulkmail.message.compose.ready_made import Hook
from bulkmail.message.template.locality import frozen, locality_of
from bulkmail.message.template.rendering import compile_condition
from bulkmail.model.breaker import Breaker
from bulkmail.model.campaign import NO_KEYS, Campaign, Keys
from bulkmail.model.errors import ChecksFailed, ConfigError
from bulkmail.model.lazy import dataclass
from bulkmail.model.pace import Pace
from bulkmail.model.route import MailboxProviders, Route
from bulkmail.model.schedule import Schedule
from bulkmail.model.tally import Status, Tally
from bulkmail.outbox.outbox import Outbox
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.outbox.run_info import RunInfo
from bulkmail.outbox.sending import OutboxStore
from bulkmail.recipients.grouping import Grouping
from bulkmail.recipients.screening import Suppression
from bulkmail.report.report import Report
from bulkmail.settings.presets import known_feedback
from bulkmail.settings.suppressions import SuppressionSettings


@dataclass(slots=True)
class Mailing:
    """An outbox that has been filled and checked, and what is needed to send from it.  Close it when done.

    `takes_over` is the outbox of an earlier run whose place it takes as soon as it is sent.  `keys` and `on_message`
    are for the composer; neither is in the outbox.  `wants` are the ids of the only deliveries to send.
    `suppression` holds for a run that goes on: open rows and copies that it names are suppressed whenever rows become
    open, `newly_suppressed` and `newly_suppressed_copies` count them.
    It has more attributes and methods than a class should: a mailing is all that its steps hand on to one another.
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
    wants: Wants | None = None
    suppression: Suppression | None = None
    newly_suppressed: int = 0
    newly_suppressed_copies: int = 0
    _sorted: Sorted | None = None
    _asked: MailboxProviders | None = None
    _engine: Engine | None = None
    _is_stopped: bool = False
    _list: suppression_list.ReadList | None = None
    _keeper: ListKeeper | None = None

    @classmethod
    async def prepare(
        cls,
        path: Path | None,
        *,
        campaign: Campaign,
        rows: Rows,
        routes: Sequence[Route],
        pace: Pace,
        selection: Selection = Selection(),  # noqa: B008 - frozen
        is_rehearsal: bool = False,
        info: RunInfo | None = None,
        keys: Keys = NO_KEYS,
        on_message: Hook | None = None,
        suppressions: SuppressionSettings | None = None,
        schedule: Schedule | None = None,
        followed: Followed | None = None,
        told_loading: Told = no_one,
        told_checking: Told = no_one,
    ) -> Mailing:
        """Records every row in a new outbox at `path` (None: in memory) and tries every message; see `findings`.

        An outbox at `path` is replaced.  `schedule` says when each row is due, from this call on for good.
        `followed` is the run that this one follows up; the campaign is that of `with_thread()` then.
        `suppressions` say which suppression list holds, None for none; it is read
        here, and noted in the outbox for the sending.  Raises `ConfigError` for a condition over columns that the list
        does not have, `TemplateError`, `ListError`, `OutboxError`, `SuppressionError`.
        """
        await know_tables()
        check_routes(routes)
        used = suppression_list.list_in_use(suppressions, campaign)
        now = time.time() if pace.start is None else max(time.time(), pace.start)
        planner = None
        if schedule is not None:  # reads time zones
            planner = await to_thread.run_sync(partial(Planner, schedule, now=now, is_rehearsal=is_rehearsal))
        campaign = frozen(campaign, time.time() if planner is None else planner.moment)
        fetch = rows.fetch if isinstance(rows, GivenRows | DigestedRows) else None
        rows = varied(following(rows, followed, campaign), campaign)
        await to_thread.run_sync(locality_of, campaign)  # reads files
        # Before the outbox: a message that does not compile leaves nothing behind.
        composer = Composer(campaign, run_id="", keys=keys, on_message=on_message)
        where = Where(compile_condition(selection.where)) if selection.where else None
        outbox = Outbox.create(
            path,
            campaign=campaign,
            info=_begun(
                routes,
                pace,
                info,
                is_rehearsal=is_rehearsal,
                redirect_to=selection.redirect_to.readable if selection.redirect_to else "",
                has_hook=on_message is not None,
                suppression_list=used,
                schedule=schedule,
                follows=str(followed.path) if followed is not None else "",
            ),
            durability=pace.durability,
            allow_duplicates=selection.allow_duplicates,
            replace=True,
        )
        mailing = cls(outbox, tuple(routes), pace, keys=keys, on_message=on_message)
        try:
            empty_inbox(outbox, routes)
            mailing._list = await to_thread.run_sync(suppression_list.ReadList.open, used)
            if mailing._list is not None:
                suppression = selection.suppression or Suppression()
                suppression.add_list(mailing._list.reason)
                selection = replace(selection, suppression=suppression)
            seen = RowCheck()
            grouping = Grouping(campaign.group_by, address_column=selection.address_column)
            is_one_each = not (composer.has_copies or campaign.group_by)
            are_all_meant = selection.takes_all and is_one_each
            due_at = planner.due_at if planner is not None else None
            why_not = followed.why_not if followed is not None else None
            await record(
                outbox,
                blocks_of(rows) if are_all_meant else rows,
                Rules(
                    partial(selection.screen, seen=seen, where=where, due_at=due_at, why_not=why_not),
                    selection,
                    composer.forward_paths if composer.has_copies else None,
                    grouping if campaign.group_by else None,
                    due_at,
                    why_not,
                ),
                fetch=fetch,
                reported=told_loading,
            )
            if where is not None:
                refuse_unknown_names(where.condition, rows.columns)
                where.refuse_senseless()
            if planner is not None:
                planner.check_columns(rows.columns)
            refuse_unknown_columns(campaign.group_by, rows.columns)
            outbox.note(columns=tuple(rows.columns))
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
                asked=Asked(
                    where.condition.names if where else frozenset(),
                    selection.own_columns | set(schedule.columns if schedule is not None else ()),
                    selection.most_invalid,
                ),
                reported=told_checking,
                suppression=selection.suppression,
            )
            mailing.findings = gravest_first(
                [*mailing._find_unserved(), *await to_thread.run_sync(judge, mailing.evidence)]
            )
        except BaseException:
            mailing.abandon()
            raise
        asks_for_now = bool(campaign.moment)
        mailing.notices = list(rows.notices)
        if followed is not None:
            mailing.notices += [*followed.notices, *subject_notice(campaign, followed)]
        mailing.notices += notices_of(schedule, is_rehearsal=is_rehearsal, asks_for_now=asks_for_now)
        return mailing

    @classmethod
    async def prepare_messages(
        cls,
        path: Path | None,
        messages: Messages,
        *,
        routes: Sequence[Route],
        pace: Pace,
        info: RunInfo | None = None,
        seen: Callable[[EmailMessage], None] | None = None,
        suppressions: SuppressionSettings | None = None,
    ) -> Mailing:
        """Records ready-made messages, a delivery for each recipient of each, in place of what is at `path`.

        `suppressions` say which suppression list holds, None for none.  `seen` is called with each message, in the
        thread that records it.
        """
        await know_tables()
        check_routes(routes)
        used = suppression_list.list_in_use(suppressions, None)
        is_rehearsal = routes[0].relay.kind.is_rehearsal
        info = _begun(routes, pace, info, is_rehearsal=is_rehearsal, suppression_list=used)
        outbox = Outbox.create(
            path, campaign=None, info=info, durability=pace.durability, allow_duplicates=True, replace=True
        )
        mailing = cls(outbox, tuple(routes), pace)
        try:
            await record_messages(outbox, messages, seen=seen)
            outbox.finish_loading()
            mailing._list = await to_thread.run_sync(suppression_list.ReadList.open, used)
            if mailing._list is not None:
                mailing.suppression = Suppression()
                mailing.suppression.add_list(mailing._list.reason)
                await to_thread.run_sync(mailing._suppress)
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
        suppress: Iterable[str | os.PathLike[str]] = (),
        ignored: Iterable[str] = (),
    ) -> Mailing:
        """Goes on with a run as it was recorded: its rows, its message.

        The files of `suppress`, and those that it was begun with as far as they are there, are read now: open rows and
        copies that they name are suppressed.  An entry that cannot be understood is a `ConfigError`, unless this
        finding is `ignored` or was when the run began.  Raises `OutboxError`, `ListError`, `ConfigError`, and
        `ChecksFailed` when no relay takes some of the mail.
        """
        check_routes(routes)
        outbox = Outbox.open(path, durability=pace.durability)
        mailing: Mailing | None = None
        try:
            refuse_relays_of_other_kind(path, outbox.info, routes)
            if not outbox.is_loaded:
                raise ConfigError(f"the list was never loaded completely into {path}", hint="send the campaign again")
            if outbox.started_at is None and not outbox.info.is_checked:
                raise ConfigError(
                    f"{path} did not pass the pre-send checks, or was interrupted during them",
                    hint="send the campaign again: it starts over and reports what is wrong, if anything",
                )
            if outbox.info.has_hook and on_message is None:
                raise ConfigError(
                    f"{path} was started by a program whose on_message may change each message",
                    hint="continue with that program; without it recipients would get a different message",
                )
            if outbox.campaign is not None:
                Composer(outbox.campaign, run_id=outbox.run_id, keys=keys)  # a missing key is reported now
            keys = suppression_list.with_bounce_key(outbox, keys)  # so is one that is another
            mailing = cls(outbox, tuple(routes), pace, keys=keys, on_message=on_message)
            files = suppression_list.files_of_start(suppress, outbox.info.suppress)
            mailing.suppression = suppression_list.read_suppression(files)
            mailing._list = suppression_list.ReadList.open(outbox.info.suppression_list)
            if mailing._list is not None:
                mailing.suppression.add_list(mailing._list.reason)
            mailing.notices += mailing.suppression.notices
            if SUPPRESSION_ENTRY not in {*ignored, *outbox.info.ignored}:
                suppression_list.refuse_faults(mailing.suppression)
            outbox.note(suppress=suppression_list.files_to_note(files))
            mailing._suppress()
            refuse(mailing._find_unserved())
        except BaseException:
            if mailing is not None:
                mailing._close_list()
            outbox.close()
            raise
        return mailing

    def pass_gate(self, *, strict: bool = False, ignored: Iterable[str] = ()) -> None:
        """Raises `ChecksFailed`, and lets go of the outbox, when the findings forbid sending.

        With `strict` warnings do so, too; findings with a code in `ignored` are forgotten.
        """
        ignored = tuple(ignored)
        self.findings = without(self.findings, ignored)
        try:
            refuse(self.findings, strict=strict)
        except ChecksFailed:
            self.abandon()
            raise
        if ignored:
            self.outbox.note(ignored=ignored)
        self.outbox.note(is_checked=True)  # without that no later start goes on with it

    def refuse_empty(self, *, where: str = "") -> None:
        """Raises `NothingToSend`, and lets go of the outbox, when no recipient is left to send to."""
        tally = self.tally
        if not tally.open:
            why = why_empty(tally, self.notices, where=where)
            raise NothingToSend(f"{why}: nothing was sent", self.close())

    @property
    def tally(self) -> Tally:
        """Rows by status as of now."""
        return self.outbox.tally()

    @property
    def inbox(self) -> Path | None:
        """Where a sandbox keeps the mail of this run; None when that is of no account, as for a run in memory.

        Raises `ConfigError` for a mail folder of another run: an outbox may come from anywhere.
        """
        kept = self.outbox.info.maildir
        if not kept:
            return None
        check_inbox(Path(kept))
        return Path(kept)

    def _find_unserved(self) -> list[Finding]:
        self._sorted = sort_into_queues(self.outbox, self.routes, self.providers, keys=self.keys)
        return find_unserved(self.outbox, self._sorted.serving)

    @property
    def providers(self) -> MailboxProviders:
        """The providers as this run knows them; a provider's own mail exchanger comes with its presets."""
        return providers_for(self.routes, self._asked or self.pace.mailbox_providers)

    def decide_doubts(self, decision: Doubt) -> int:
        """What becomes of rows in doubt; says how many there were."""
        if decision is Doubt.HOLD:
            return 0
        number = decide(self.outbox, decision)
        self._suppress()
        return number

    def try_again(self, status: Status) -> int:
        """What is rejected or expired becomes pending; says how many deliveries there were."""
        number = self.outbox.reopen(status)
        self._suppress()
        return number

    def _suppress(self) -> None:
        if self.suppression:
            found = self.outbox.suppress(self.suppression.matches)
            self.newly_suppressed += found.rows
            self.newly_suppressed_copies += found.copies

    async def send(
        self,
        connects: Sequence[Connect],
        *,
        observe: Callable[[Event], None] = lambda event: None,
        ready: Callable[[], Awaitable[None]] | None = None,
    ) -> Ending:
        """Delivers what is open; `connects` are for the routes, in their order.

        The error of the `Ending`, if any, has left every row it did not deal with as it was.
        `ready` is awaited before each message is begun.
        """
        found = await self.find_queues()
        if self.takes_over is not None:
            self.outbox = take_over(self.outbox, self.takes_over, durability=self.pace.durability)
            self.takes_over = None
        self.keys = await to_thread.run_sync(suppression_list.with_bounce_key, self.outbox, self.keys)
        ending = Ending(was_stopped=True)  # where `stop --now` cuts it short
        async with (
            watching_for_stop(self.outbox, self.stop, observe),
            keeping_to_list(self.outbox, interrupt=self._end_pass, observe=observe) as keeper,
        ):
            self._keeper = keeper
            try:
                observe = observe if keeper is None else keeper.observe
                ending = await self._send(connects, found, observe=observe, ready=ready)
            finally:
                self._keeper = None
        return ending

    async def find_queues(self) -> Sorted:
        """Which relays serve which queue of the outbox, also by the DNS of the domains.  Raises `ChecksFailed`."""
        await know_tables()
        if self.providers.by_exchanger and not self.routes[0].relay.kind.is_rehearsal:
            # Before the plan is made: the providers of the outbox are numbered once more, by what DNS said.
            self._asked = await ask_exchangers(self.outbox, self.providers)
            await to_thread.run_sync(self._find_unserved)
        found = self._sorted or Sorted({0: tuple(range(len(self.routes)))}, {})
        refuse(find_unserved(self.outbox, found.serving))  # a row that was in doubt may be open by now
        return found

    async def _send(
        self,
        connects: Sequence[Connect],
        found: Sorted,
        *,
        observe: Callable[[Event], None],
        ready: Callable[[], Awaitable[None]] | None,
    ) -> Ending:
        if self._keeper is not None:
            connects = noticing_all(self._keeper, [route.label for route in self.routes], connects)
        slowing = SlowdownNote(self.outbox, observe)
        note = RestNote(self.outbox, slowing.observe)
        canary = Canary(self.outbox, self.pace.breakers, limit=self.pace.limit, stop=self._end_pass)
        is_rehearsal = self.outbox.is_rehearsal
        async with (
            open_permits(self.routes, self.pace, run_id=self.outbox.run_id, is_rehearsal=is_rehearsal) as permits,
            composing(
                self.outbox,
                keys=self.keys,
                on_message=self.on_message,
                processes=self.pace.processes,
                observe=note.observe,
            ) as (compose, sign),
        ):
            plan = Plan(
                OutboxStore(self.outbox, wants=self.wants),
                compose=compose,
                outlets=[Outlet(*means) for means in zip(self.routes, connects, permits, strict=True)],
                serving={provider: numbers for provider, numbers in found.serving.items() if numbers},
                pace=self.pace,
                mailbox_providers=self.providers,
                shaper=make_shaper(self.providers, self.pace, known=slowing.known()),  # the canary's too: it learns
                providers=found.providers,
                feedback=known_feedback(),
                sign=sign,
                observe=note.observe,
                ready=ready,
                planned_until=planned_until(self.outbox, self.pace),
            )

            async def send_ahead(limit: int | None, only: Wants | None) -> Ending:
                def tell(event: Event) -> None:
                    canary.note(event)
                    note.observe(event)

                store = OutboxStore(self.outbox, wants=both(self.wants, only))
                breaker = canary.breaker(total=store.eligible)
                return await self._pass(replace(_limited(plan, limit), store=store, observe=tell, breaker=breaker))

            ending = await canary.go(send_ahead) or await self._pass(_limited(plan, canary.left))
        note.ended(ending)
        slowing.ended()
        return ending

    async def _pass(self, plan: Plan) -> Ending:
        """One engine's work, unless the run was stopped.

        When the suppression list names recipients that are still open, the engine stops for a moment: nothing is under
        way while they are left out, and it goes on with the same breaker and limit.
        """
        begun = 0

        def tell(event: Event) -> None:
            nonlocal begun
            begun += len(event.results) if isinstance(event, ResultBatch) else 0
            plan.observe(event)

        keeper = self._keeper
        breaker = plan.breaker or Breaker(plan.pace.breakers, total=self.outbox.tally().eligible)
        while True:
            if self._is_stopped:
                return Ending(was_stopped=True)
            if keeper is not None and keeper.found:
                self._leave_out(keeper)
            limit = None if plan.pace.limit is None else max(0, plan.pace.limit - begun)
            observe = plan.observe if limit is None else tell
            self._engine = Engine(_limited(replace(plan, observe=observe, breaker=breaker), limit))
            try:
                ending = await self._engine.run()
            finally:
                self._engine = None
            if keeper is None or not keeper.found:
                return ending
            is_interrupted = keeper.is_interrupted
            self._leave_out(keeper)
            if ending.error is not None or not (is_interrupted and ending.was_stopped):
                return ending

    def _leave_out(self, keeper: ListKeeper) -> None:
        """The rows that the list names by now are suppressed.  Nothing is under way."""
        found = self.outbox.suppress(keeper.matches, rows=keeper.take_found())
        self.newly_suppressed += found.rows
        self.newly_suppressed_copies += found.copies

    def _end_pass(self) -> None:
        if self._engine is not None:
            self._engine.stop()

    def stop(self) -> None:
        """Finishes the transactions under way and begins no others."""
        self._is_stopped = True
        self._end_pass()

    def close(self) -> Report:
        """Lets go of the outbox (a finished one becomes a single plain file) and reads it."""
        path = self.outbox.path
        self._close_list()
        try:
            self.outbox.finish()
            if path is None:
                return Report.read(OutboxReader.over(self.outbox))
        finally:
            self.outbox.close()
        return Report.read(path)

    def abandon(self) -> None:
        """Lets go of the outbox as it is."""
        self._close_list()
        self.outbox.close()

    def _close_list(self) -> None:
        if self._list is not None:
            self._list.close()


def _begun(routes: Sequence[Route], pace: Pace, info: RunInfo | None, **more: object) -> RunInfo:
    """What the outbox of a new run notes: `info` of the caller's, how it is sent, and `more`."""
    sending = RunInfo.begun(tuple(routes), pace)
    of_sending = {name: getattr(sending, name) for name in ("relay", "relay_kind", "relays", "sending")}
    return structs.replace(info or RunInfo(), **of_sending, **more)


def _limited(plan: Plan, limit: int | None) -> Plan:
    return replace(plan, pace=replace(plan.pace, limit=limit))
