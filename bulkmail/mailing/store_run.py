"""One campaign of a store in PostgreSQL, sent by this process among others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import msgspec
from msgspec import structs

from bulkmail.cluster.campaigns import (
    CampaignState,
    StoredCampaign,
    begin_work,
    cancel,
    end_work,
    read_state,
    senders,
    set_setting,
    set_state,
)
from bulkmail.cluster.database import STANDS_STILL, StoreError, connect
from bulkmail.cluster.judging import judge, stop_for
from bulkmail.cluster.session import Session
from bulkmail.cluster.shared_limits import Shared, SharedLimiter
from bulkmail.cluster.store import ClusterStore
from bulkmail.engine.contracts import Connect, Ending, Event, Notice, Outlet, Plan, make_shaper
from bulkmail.engine.contracts import Connection as Connected
from bulkmail.engine.engine import Engine
from bulkmail.mailing.composing import composing
from bulkmail.mailing.list_keeper import noticing_all
from bulkmail.mailing.permits import is_counted, open_permits
from bulkmail.mailing.relays import Sorted, know_tables
from bulkmail.mailing.run_record import RestNote, SlowdownNote
from bulkmail.mailing.store_ledger import StoreLedger
from bulkmail.mailing.store_list import StoredRun, StoreListKeeper, keeping_store_to_list
from bulkmail.model.breaker import StopRequest
from bulkmail.model.campaign import NO_KEYS, Campaign, Keys
from bulkmail.model.errors import BreakerTripped, ConfigError, OutboxError
from bulkmail.model.lazy import dataclass
from bulkmail.model.pace import Pace
from bulkmail.model.recipient import RowFields
from bulkmail.model.route import MailboxProviders, Route
from bulkmail.model.tally import Tally
from bulkmail.outbox.entries import decode_campaign
from bulkmail.outbox.ledger import account_of
from bulkmail.outbox.run_info import RunInfo, written
from bulkmail.outbox.sqlite_file import noticing_damage
from bulkmail.settings.presets import known_feedback

if TYPE_CHECKING:
    from asyncpg import Connection

QUEUES = "queues_record"  # a setting: which relays serve which queue, and whose queue it is
PROVIDERS = "providers_record"  # a setting: the mailbox providers as they were known when the list was loaded
LOOK = 1.0  # seconds between two looks at the campaign's state


class StoreNotes:
    """The notes of a campaign in the store.  A change is here at once, and soon in the store."""

    def __init__(self, url: str, campaign: int, info: RunInfo) -> None:
        self.info = info
        self._url = url
        self._campaign = campaign
        self._changed: dict[str, str] = {}
        self._writing: asyncio.Task[None] | None = None

    def note(self, **changes: object) -> None:
        """Changes what `info` says."""
        self.info = structs.replace(self.info, **changes)
        self._changed |= written(changes)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def aclose(self) -> None:
        """Everything is in the store, if that answers."""
        if self._writing is not None:
            with suppress(StoreError):
                await self._writing

    async def _write(self) -> None:
        connection = await connect(self._url)
        try:
            while self._changed:
                key, value = self._changed.popitem()
                await set_setting(connection, self._url, self._campaign, key, value)
        finally:
            await connection.close(timeout=2)


@dataclass(slots=True)
class StoreRun:
    """What is needed to send `stored` from here; made by `of()`.

    It has the parts of a run that composing and reporting ask for.
    """

    url: str
    stored: StoredCampaign
    campaign: Campaign
    routes: tuple[Route, ...]
    pace: Pace
    keys: Keys = NO_KEYS
    path: Path | None = None  # other processes cannot read its rows
    _engine: Engine | None = None
    _store: ClusterStore | None = None
    _shared: Shared | None = None
    _is_stopped: bool = False
    _keeper: StoreListKeeper | None = None

    @classmethod
    def of(cls, url: str, stored: StoredCampaign, *, keys: Keys = NO_KEYS, pace: Pace | None = None) -> StoreRun:
        """As it was loaded; `pace` in place of the one it was loaded with.  Raises `StoreError`, `OutboxError`."""
        routes, recorded = info_of(stored).read_sending(stored.name)
        return cls(url, stored, campaign_of(stored), routes, pace or recorded, keys)

    @property
    def store(self) -> ClusterStore | None:
        """Where the deliveries come from, while it is being sent."""
        return self._store

    @property
    def run_id(self) -> str:
        """As the messages have it."""
        return self.stored.run_id

    def tally(self) -> Tally:
        """As far as it is known without asking: for how many messages composing pays."""
        return Tally(self.stored.rows)

    def rows_of(self, row: int) -> tuple[RowFields, ...]:
        """The fields of all rows that share the message of `row`, which was claimed."""
        if self._store is None:
            raise StoreError("nothing was claimed yet")
        return self._store.rows_of(row)

    def stop(self) -> None:
        """Finishes the messages under way, and begins no others here."""
        self._is_stopped = True
        if self._engine is not None:
            self._engine.stop()

    async def send(
        self,
        session: Session,
        connects: Sequence[Connect],
        *,
        observe: Callable[[Event], None],
        fed: bool = False,
        ready: Callable[[], None] = lambda: None,
    ) -> Ending:
        """Delivers what is open, among other workers, until nothing is left or the campaign is stopped.

        With `fed` only the shards that `store` is told to hold, until that is finished; `ready` is called when it can
        be told.
        """
        await know_tables()
        notes = StoreNotes(self.url, self.stored.id, info_of(self.stored))
        async with AsyncExitStack() as stack:
            connection = await connect(self.url, stands_still=STANDS_STILL)
            stack.push_async_callback(_close, connection)
            stack.push_async_callback(notes.aclose)
            self._store = await ClusterStore.open(session, self.stored.name)
            if fed:
                self._store.feed()
            await begin_work(connection, self.url, session.id, self.stored.id)
            ready()
            self._shared = Shared(self.url, lambda: session.id)
            stack.push_async_callback(self._shared.aclose)
            try:
                ending = await self._watched(connection, connects, notes, observe)
                if isinstance(ending.error, BreakerTripped):
                    await stop_for(connection, self.url, self.stored.id, ending.error.sentence)
                else:  # outcomes that came behind what stopped it elsewhere
                    state, why = await read_state(connection, self.url, self.stored.id)
                    if state is CampaignState.STOPPED and request_in(why) is None:
                        await stop_for(connection, self.url, self.stored.id, why)
            finally:
                with anyio.CancelScope(shield=True):
                    await self._store.aclose()
                    with suppress(StoreError):
                        await end_work(connection, self.url, session.id, self.stored.id)
        return ending

    async def _watched(
        self, connection: Connection, connects: Sequence[Connect], notes: StoreNotes, observe: Callable[[Event], None]
    ) -> Ending:
        ending = Ending(was_stopped=True)  # where `stop --now` cuts it short
        failed: Exception | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch, connection, group.cancel_scope, observe)
            try:
                async with self._keeping(observe) as keeper:
                    self._keeper = keeper
                    if keeper is not None:
                        connects = noticing_all(keeper, [route.label for route in self.routes], connects)
                    ending = await self._send(connects, notes, observe if keeper is None else keeper.observe)
            except Exception as error:
                failed = error
            group.cancel_scope.cancel()
        if failed is not None:
            raise failed
        return ending

    async def _watch(self, connection: Connection, scope: anyio.CancelScope, observe: Callable[[Event], None]) -> None:
        """Ends the work when the campaign is stopped, on whichever machine that is said."""
        is_told = False
        while True:
            with suppress(StoreError):  # cut off: no mark is granted then, and so nothing is sent
                state, why = await read_state(connection, self.url, self.stored.id)
                if state is CampaignState.CANARY:
                    await judge(connection, self.url, self.stored.id, self.pace.breakers)
                if not state.is_active:
                    request = request_in(why)
                    if not is_told and request is not None:
                        what = "aborting" if request.now else "finishing"
                        observe(Notice(f"{request.by} stopped this campaign: {what} the messages under way", ""))
                    elif not is_told and state is CampaignState.STOPPED:
                        observe(Notice(f"this campaign was stopped on all machines: {why}", ""))
                    is_told = True
                    self.stop()
                    if request is not None and request.now:
                        scope.cancel()
                        return
            await anyio.sleep(LOOK)

    async def _send(self, connects: Sequence[Connect], notes: StoreNotes, observe: Callable[[Event], None]) -> Ending:
        assert self._store is not None  # noqa: S101
        shared = self._shared
        assert shared is not None  # noqa: S101
        slowing = SlowdownNote(notes, observe)
        note = RestNote(notes, slowing.observe)
        queues = queues_in(self.stored.settings, len(self.routes))
        providers = providers_in(self.stored.settings)
        async with (
            open_permits(
                self.routes,
                self.pace,
                run_id=self.run_id,
                is_rehearsal=self.stored.is_rehearsal,
                shared=lambda account: StoreLedger(self.url, account),
            ) as permits,
            composing(self, keys=self.keys, on_message=None, processes=1, observe=note.observe) as (compose, sign),
        ):
            plan = Plan(
                self._store,
                compose=compose,
                outlets=[
                    Outlet(route, self._taking_turns(route, connect), permit)
                    for route, connect, permit in zip(self.routes, connects, permits, strict=True)
                ],
                serving={queue: numbers for queue, numbers in queues.serving.items() if numbers},
                pace=self.pace,
                mailbox_providers=providers,
                shaper=make_shaper(
                    providers,
                    self.pace,
                    known=slowing.known(),
                    limiter=SharedLimiter(shared, key_of=self._key_of),
                ),
                providers=queues.providers,
                feedback=known_feedback(),
                sign=sign,
                observe=note.observe,
                planned_until=await self._planned_until(),
            )
            if self._is_stopped:
                return Ending(was_stopped=True)
            ending = await self._passes(plan)
        note.ended(ending)
        slowing.ended()
        return ending

    def _keeping(self, observe: Callable[[Event], None]) -> AbstractAsyncContextManager[StoreListKeeper | None]:
        assert self._store is not None  # noqa: S101
        stored = self.stored
        run = StoredRun(self.url, stored.id, self.run_id, self.campaign, info_of(stored))
        return keeping_store_to_list(
            run, self._store, is_rehearsal=stored.is_rehearsal, interrupt=self._let_go, observe=observe
        )

    async def _passes(self, plan: Plan) -> Ending:
        """One engine's work; it lets go of what it holds when the suppression list names some of it, and goes on."""
        keeper = self._keeper
        while True:
            self._engine = Engine(plan)
            try:
                ending = await self._engine.run()
            finally:
                self._engine = None
            is_interrupted = keeper is not None and keeper.is_interrupted
            if keeper is not None:
                keeper.take_found()
            if ending.error is not None or self._is_stopped or not (is_interrupted and ending.was_stopped):
                return ending

    def _let_go(self) -> None:
        if self._engine is not None:
            self._engine.stop()

    def _key_of(self, name: str) -> str:
        """The key in the store of a rate: a relay's is its account's, which other campaigns use, too."""
        for route in self.routes:
            if name == f"relay {route.label}":
                return f"account {account_of(route.relay)}"
        return f"{self.stored.id} {name}"

    def _taking_turns(self, route: Route, connect: Connect) -> Connect:
        """Opens sessions when the workers together may: one at a time while the relay fails or is not known."""
        shared, key = self._shared, account_of(route.relay)
        if shared is None or not is_counted(route):
            return connect

        async def opened() -> Connected:
            while wait := await shared.opening(key):  # noqa: ASYNC110 - another worker ends it, in the store
                await anyio.sleep(min(wait, LOOK))
            try:
                connection = await connect()
            except Exception:
                await shared.opened(key, well=False)
                raise
            await shared.opened(key, well=True)
            return connection

        return opened

    async def _planned_until(self) -> float:
        """The last planned time, wall-clock seconds, that is waited for; 0 for none."""
        assert self._store is not None  # noqa: S101
        if self.pace.wait <= 0 or self.stored.is_rehearsal:
            return 0.0
        last = await self._store.last_planned()
        return self.pace.windows.next_open(max(last, self.pace.start or 0.0)) if last else 0.0


async def _close(connection: Connection) -> None:
    with suppress(Exception):
        await connection.close(timeout=2)


def campaign_of(stored: StoredCampaign) -> Campaign:
    """The message of a campaign in the store.  Raises `StoreError`."""
    try:
        return decode_campaign(stored.content)
    except (msgspec.MsgspecError, ValueError) as error:
        raise StoreError(
            f"the campaign {stored.name!r} was loaded by bulkmail {stored.version}, and cannot be read: {error}",
            hint=f"send it with bulkmail {stored.version}",
        ) from error


def queues_to_setting(queues: Sorted) -> str:
    """Which relays serve which queue, for the store."""
    return msgspec.json.encode(queues).decode()


def info_of(stored: StoredCampaign) -> RunInfo:
    """What the store notes of the campaign.  Raises `OutboxError`."""
    with noticing_damage(stored.name, "what it says of the run"):
        return RunInfo.read(stored.settings)


def queues_in(settings: Mapping[str, str], relays: int) -> Sorted:
    """The reverse; without it all queues are one, which every relay serves."""
    kept = settings.get(QUEUES)
    if not kept:
        return Sorted({0: tuple(range(relays))}, {})
    return msgspec.json.decode(kept, type=Sorted)


def providers_in(settings: Mapping[str, str]) -> MailboxProviders:
    """The mailbox providers as they were known when the list was loaded."""
    kept = settings.get(PROVIDERS)
    return msgspec.json.decode(kept, type=MailboxProviders) if kept else MailboxProviders()


def request_in(why: str) -> StopRequest | None:
    """Who stopped a campaign, if a person did: what stops it by itself is a sentence."""
    with suppress(OutboxError):
        return StopRequest.read(why)
    return None


class StoreControl:
    """Stopping and cancelling a campaign in a store: the `RunControl` of a run that several machines send from."""

    def __init__(self, connection: Connection, url: str, stored: StoredCampaign) -> None:
        self._connection = connection
        self._url = url
        self._stored = stored

    async def sender(self) -> str:
        """As `RunControl` says."""
        return ", ".join(str(each) for each in await senders(self._connection, self._url, self._stored.id))

    async def ask_to_stop(self, request: StopRequest) -> None:
        """As `RunControl` says.  It is the state of the campaign, and stays until it is resumed."""
        await set_state(
            self._connection,
            self._url,
            self._stored.id,
            CampaignState.STOPPED,
            why=request.recorded(),
            among=(CampaignState.CANARY.value, CampaignState.SENDING.value, CampaignState.STOPPED.value),
        )

    async def begin(self) -> None:
        """As `RunControl` says."""

    async def asked(self) -> StopRequest | None:
        """As `RunControl` says."""
        state, why = await read_state(self._connection, self._url, self._stored.id)
        return None if state.is_active else request_in(why) or StopRequest(at=time.time())

    async def withdraw(self) -> None:
        """As `RunControl` says: a campaign that was stopped stays so, for machines that come later."""

    async def cancel(self) -> int:
        """As `RunControl` says."""
        return await cancel(self._connection, self._url, self._stored.id)


def refuse_inactive(stored: StoredCampaign) -> None:
    """Raises `ConfigError` for a campaign that is over."""
    if stored.state is CampaignState.CANCELLED:
        raise ConfigError(
            f"the campaign {stored.name!r} was cancelled, and nothing is sent from it any more",
            hint="load it under another name to send it again",
        )
