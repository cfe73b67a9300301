"""One campaign in the store, for one engine: shards are held, jobs handed out, marks and outcomes written in groups."""

# ruff: noqa: S608 - what is put into a statement is the number of a campaign, or another statement
from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from bulkmail.cluster.database import StoreError, connect, is_gone, saying
from bulkmail.cluster.journal import ClusterJournal
from bulkmail.cluster.reader import read_tally
from bulkmail.cluster.session import Session
from bulkmail.model.delivery import Claim, Delivery, Job, PutBack, Release, Settlement, Written
from bulkmail.model.quantities import read_number
from bulkmail.model.recipient import Address, Place, Recipient, RowFields
from bulkmail.model.tally import Status, Tally

if TYPE_CHECKING:
    from asyncpg import Connection, Record

FED = 0.1  # seconds after which an engine that is fed with shards looks for more
LOOK = 1.0  # seconds after which shards that others hold are looked at again
_STATUS_OF = {status.value: status for status in Status}
_from_json = msgspec.json.Decoder(dict[str, object], float_hook=read_number).decode

# What was tried before first, then the order of the input.
_CLAIM = """
    WITH live AS MATERIALIZED (
        SELECT s.id, c.state = 'canary' AS is_canary FROM session s
        JOIN campaign c ON c.id = $2 AND c.state IN ('canary', 'sending')
        WHERE s.id = $1 AND s.ended_at IS NULL AND s.lease_until > clock_timestamp() FOR SHARE OF s),
    pick AS MATERIALIZED (
        SELECT s.campaign, s.id FROM shard s, live WHERE s.campaign = $2 AND s.queue = $3 AND s.holder IS NULL
        AND (s.is_canary OR NOT live.is_canary) AND s.due_at <= clock_timestamp()
        ORDER BY s.due_at DESC, s.id LIMIT 1 FOR UPDATE OF s SKIP LOCKED)
    UPDATE shard s SET holder = live.id FROM pick, live WHERE s.campaign = pick.campaign AND s.id = pick.id
    RETURNING s.id
"""
_DUE = """
    SELECT d.id, d.row_number, d.forward_path, d.status, d.attempts, d.tries, d.first_at, d.is_copy, d.digest,
        d.in_doubt_before, d.message_id, r.address, r.name, r.fields, r.source, r.line,
        CASE WHEN d.due_at > 'epoch' THEN extract(epoch FROM d.due_at - clock_timestamp())::float8 END AS due_in
    FROM shard s
    JOIN delivery_{0} d ON d.campaign = s.campaign AND d.id BETWEEN s.first_id AND s.last_id AND d.queue = s.queue
    JOIN row_{0} r ON r.campaign = d.campaign AND r.number = d.row_number
    WHERE s.campaign = $1 AND s.holder = $2 AND s.queue = $3 AND d.due_at <= clock_timestamp() AND d.marked_by IS NULL
    AND NOT d.id = ANY ($4) ORDER BY d.due_at = 'epoch', d.due_at, d.id LIMIT $5
"""
_END_OF_SHARD = (
    "(SELECT min(d.due_at) FROM delivery_{0} d WHERE d.campaign = s.campaign AND d.id BETWEEN s.first_id AND s.last_id"
    " AND d.queue = s.queue)"
)
_GIVE_BACK = (
    f"UPDATE shard s SET holder = NULL, due_at = {_END_OF_SHARD} WHERE s.campaign = $1 AND s.holder = $2"
    " AND ($3::integer IS NULL OR s.queue = $3)"
    " AND NOT EXISTS (SELECT 1 FROM unnest($4::bigint[]) AS o (id) WHERE o.id BETWEEN s.first_id AND s.last_id)"
    " RETURNING s.id"
)
# When there may be more: a shard without a holder by its due time, one that another holds in a second.
_MORE = """
    SELECT min(CASE WHEN s.holder IS NULL THEN extract(epoch FROM s.due_at - clock_timestamp())::float8
        WHEN s.holder = $2 THEN (SELECT extract(epoch FROM min(d.due_at) - clock_timestamp())::float8
            FROM delivery_{0} d WHERE d.campaign = s.campaign AND d.id BETWEEN s.first_id AND s.last_id
            AND d.queue = s.queue AND NOT d.id = ANY ($4))
        ELSE $5 END)
    FROM shard s WHERE s.campaign = $1 AND s.queue = $3 AND (s.due_at IS NOT NULL OR s.holder IS NOT NULL)
"""
_SHARED = """
    SELECT p.message, r.source, r.line, r.fields FROM part p
    JOIN row_{0} r ON r.campaign = p.campaign AND r.number = p.row
    WHERE p.campaign = $1 AND p.message = ANY ($2) ORDER BY p.message, p.row
"""
_LAST_PLANNED = """
    SELECT extract(epoch FROM max(due_at) - clock_timestamp())::float8 FROM delivery_{0}
    WHERE campaign = $1 AND status = 'pending' AND tries = 0 AND due_at > 'epoch'
"""
_OPEN = """
    SELECT count(*) FROM shard s
    JOIN delivery_{0} d ON d.campaign = s.campaign AND d.id BETWEEN s.first_id AND s.last_id AND d.queue = s.queue
    WHERE s.campaign = $1 AND s.queue = $2 AND d.status IN ('pending', 'deferred')
"""


class ClusterStore:
    """The deliveries of one campaign, for one engine of this worker; opened by `open()`, ended by `aclose()`.

    `clock` is this machine's wall clock, which engines use; stored times are by the store's own clock.
    """

    def __init__(
        self, session: Session, campaign: int, *, eligible: int, has_copies: bool, clock: Callable[[], float]
    ) -> None:
        """For `open()` only."""
        self.campaign = campaign
        self.eligible = eligible
        self.has_copies = has_copies
        self._session = session
        self._clock = clock
        self._out: dict[int, int] = {}  # under which session each was handed out
        self._is_dry: defaultdict[int, bool] = defaultdict(bool)  # by queue: nothing is left that is not out
        self._connection: Connection | None = None
        self._reading = asyncio.Lock()
        self._shared: dict[int, tuple[RowFields, ...]] = {}  # of rows that are out
        self._row_of: dict[int, int] = {}  # of deliveries that are out, where rows share messages
        self._is_grouped = False
        self._whom: dict[int, tuple[str, str]] = {}  # addresses of deliveries that are out
        self._asking: set[asyncio.Task[Any]] = set()
        self._is_finished = False
        self._is_closed = False
        self._fed: dict[tuple[int, int], asyncio.Event] | None = None  # shards held, by queue, until each is given back
        self._journal = ClusterJournal(session, campaign, out=self._out, clock=clock)

    @classmethod
    async def open(cls, session: Session, name: str, *, clock: Callable[[], float] = time.time) -> ClusterStore:
        """The campaign of that name.  Raises `StoreError`."""
        connection = await connect(session.url)
        with saying(session.url):
            found = await connection.fetchrow("SELECT id, eligible, has_copies FROM campaign WHERE name = $1", name)
        if found is None:
            await connection.close()
            raise StoreError(f"there is no campaign {name!r} in the store")
        store = cls(session, found["id"], eligible=found["eligible"], has_copies=found["has_copies"], clock=clock)
        store._connection = connection
        with saying(session.url):
            store._is_grouped = bool(
                await connection.fetchval("SELECT 1 FROM part WHERE campaign = $1 LIMIT 1", store.campaign)
            )
        return store

    def feed(self) -> None:
        """From now on this store holds the shards that `hold()` is asked for, and no others, until `finish()`."""
        self._fed = {}

    def finish(self) -> None:
        """No more shards are held: the engine ends when it is through with those that are."""
        self._is_finished = True

    async def hold(self, queue: int) -> int | None:
        """Claims a shard of `queue`; None when none is due, or the store is closed.  Raises `StoreError`."""
        async with self._reading:
            if self._is_closed:  # no engine would send it, and the lease would hold it for as long as this worker lives
                return None
            connection = await self._connected()
            with saying(self._session.url):
                number = await connection.fetchval(_CLAIM, self._session.id, self.campaign, queue)
            if number is not None and self._fed is not None:
                self._fed[queue, number] = asyncio.Event()
        return None if number is None else int(number)

    async def until_given_back(self, queue: int, shard: int) -> None:
        """Waits until nothing of the shard is left that is due, or the claims are lost."""
        if self._fed is not None and (ended := self._fed.get((queue, shard))) is not None:
            epoch = self.epoch
            while not ended.is_set() and self.epoch == epoch:
                with suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), LOOK)
            if self._fed.get((queue, shard)) is ended:  # else it was claimed again, under another lease
                del self._fed[queue, shard]

    def _ended(self, key: tuple[int, int]) -> None:
        if self._fed is not None and (event := self._fed.pop(key, None)) is not None:
            event.set()

    def rows_of(self, row: int) -> tuple[RowFields, ...]:
        """The fields of all rows that share the message of `row`, which was claimed; none if it has its own."""
        return self._shared[row] if self._is_grouped else ()

    async def last_planned(self) -> float:
        """When the last delivery never tried is planned for, wall-clock seconds; 0 for none."""
        async with self._reading:
            connection = await self._connected()
            with saying(self._session.url):
                wait = await connection.fetchval(_LAST_PLANNED.format(self.campaign), self.campaign)
        return 0.0 if wait is None else self._clock() + float(wait)

    def held(self, names: Callable[[Address], bool]) -> set[int]:
        """Those deliveries handed out here that go to one of the addresses that `names` is true for.  Any thread."""
        return {
            number
            for number, whom in list(self._whom.items())
            if number in self._out and any(names(_address(each)) for each in dict.fromkeys(whom))
        }

    @property
    def epoch(self) -> int:
        """Changes when the lease was lost, and with it all claims."""
        return self._session.epoch

    def claim(self, queue: int, *, limit: int, now: float) -> asyncio.Future[Claim]:
        """At most `limit` deliveries of `queue` that may be tried now, by the store's clock."""
        return self._ask(self._claim(queue, limit))

    def give_back(self, ids: Collection[int]) -> None:
        """These were claimed and are not taken up."""
        for number in ids:
            self._out.pop(number, None)
        self._is_dry.clear()

    def has_more(self, queue: int, *, besides: Collection[int]) -> bool:
        """Whether anything else of `queue` may be tried; True until the store has said that nothing is left."""
        return not self._is_dry[queue]

    def count_open(self, queue: int) -> asyncio.Future[int]:
        """How many deliveries of `queue` sending goes on with, by any worker."""
        return self._ask(self._count_open(queue))

    def tally(self) -> asyncio.Future[Tally]:
        """Rows by status."""
        return self._ask(self._tally())

    def write(self, entries: Sequence[Written]) -> asyncio.Future[Collection[int]]:
        """Records the entries together with whatever else waits while the transaction before is under way."""
        if any(isinstance(entry, Settlement | Release | PutBack) for entry in entries):
            self._is_dry.clear()
        return self._journal.write(entries)

    async def aclose(self) -> None:
        """Gives back what is held.  What is marked without an outcome stays so: its shards stay held with it."""
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        await self._journal.aclose()
        marked = list(self._journal.marked)
        self._out.clear()
        with suppress(StoreError):  # the lease ends it all the same
            async with self._reading:
                self._is_closed = True
                connection = await self._connected()
                with saying(self._session.url):
                    query = _GIVE_BACK.format(self.campaign)
                    await connection.execute(query, self.campaign, self._session.id, None, marked)
        for key in list(self._fed or ()):
            self._ended(key)
        if self._connection is not None:
            with suppress(Exception):
                await self._connection.close(timeout=2)
            self._connection = None

    # -- what takes its time

    def _ask(self, asking: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.ensure_future(asking)
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)
        return task

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._session.url)
        return self._connection

    async def _claim(self, queue: int, limit: int) -> Claim:
        while True:
            try:
                async with self._reading:
                    return await self._claimed(await self._connected(), queue, limit)
            except StoreError:  # cut off: nothing is lost by waiting, the lease ends by itself
                await asyncio.sleep(LOOK)
            except Exception as error:
                if not is_gone(error):
                    raise StoreError(f"the store failed: {error}") from error
                self._connection = None
                await asyncio.sleep(LOOK)

    async def _claimed(self, connection: Connection, queue: int, limit: int) -> Claim:
        session, epoch = self._session.id, self._session.epoch
        due = _DUE.format(self.campaign)
        for number in [number for number, under in self._out.items() if under != session]:
            del self._out[number]  # the engine knows by the epoch that these are lost
        while True:
            found = await connection.fetch(due, self.campaign, session, queue, list(self._out), limit)
            if found or self._fed is not None:
                break
            if await connection.fetchval(_CLAIM, session, self.campaign, queue) is None:
                break
        if self._session.epoch != epoch:
            return Claim([], 0.0, self._session.epoch)
        now = self._clock()
        if found:
            self._out.update((record["id"], session) for record in found)
            self._whom = {number: whom for number, whom in self._whom.items() if number in self._out}
            self._whom.update((record["id"], (record["address"], record["forward_path"])) for record in found)
            if self._is_grouped:
                await self._know_shared(connection, found)
            return Claim([_job(record, now) for record in found], 0.0, epoch)
        out = list(self._out)
        freed = await connection.fetch(_GIVE_BACK.format(self.campaign), self.campaign, session, queue, out)
        if self._fed is not None:
            for record in freed:
                self._ended((queue, record["id"]))
            if not self._is_finished:
                return Claim([], now + FED, epoch)
        wait = await connection.fetchval(_MORE.format(self.campaign), self.campaign, session, queue, out, LOOK)
        self._is_dry[queue] = wait is None
        return Claim([], math.inf if wait is None else now + max(0.05, wait), epoch)

    async def _know_shared(self, connection: Connection, found: Sequence[Record]) -> None:
        """The other rows of the messages of these rows."""
        own = {record["row_number"]: [RowFields(_from_json(record["fields"]), _place(record))] for record in found}
        for record in await connection.fetch(_SHARED.format(self.campaign), self.campaign, list(own)):
            own[record["message"]].append(RowFields(_from_json(record["fields"]), _place(record)))
        self._row_of = {number: row for number, row in self._row_of.items() if number in self._out}
        self._row_of.update((record["id"], record["row_number"]) for record in found)
        wanted = set(self._row_of.values())
        self._shared = {row: rows for row, rows in self._shared.items() if row in wanted}
        self._shared.update((number, tuple(rows)) for number, rows in own.items())

    async def _count_open(self, queue: int) -> int:
        async with self._reading:
            connection = await self._connected()
            with saying(self._session.url):
                return int(await connection.fetchval(_OPEN.format(self.campaign), self.campaign, queue))

    async def _tally(self) -> Tally:
        async with self._reading:
            connection = await self._connected()
            with saying(self._session.url):
                return await read_tally(connection, self.campaign)


def _place(record: Record) -> Place:
    return Place(record["source"], record["line"])


def _address(path: str) -> Address:
    local, _, domain = path.rpartition("@")
    return Address(local, domain)


def _job(record: Record, now: float) -> Job:
    person = Recipient(_address(record["address"]), record["name"], _from_json(record["fields"]), _place(record))
    delivery = Delivery(
        record["id"],
        record["row_number"],
        record["forward_path"],
        _STATUS_OF[record["status"]],
        record["attempts"],
        record["tries"],
        0.0 if record["due_in"] is None else now + record["due_in"],
        record["first_at"],
        record["is_copy"],
    )
    return Job(delivery, person, None, record["digest"], record["in_doubt_before"], "", record["message_id"])
