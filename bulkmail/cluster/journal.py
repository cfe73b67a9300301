"""Marks and outcomes on their way into the store: whatever waits while a transaction is under way is the next one."""

# ruff: noqa: S608 - what is put into a statement is the number of a campaign, or another statement
from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Iterator, MutableMapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from bulkmail.cluster.database import STANDS_STILL, StoreError, connect, is_gone, is_to_be_repeated
from bulkmail.cluster.loading import clean
from bulkmail.cluster.session import Session
from bulkmail.model.delivery import Invalidation, Mark, PutBack, Release, Settlement, Written
from bulkmail.model.outcome import Reply
from bulkmail.model.tally import Status

if TYPE_CHECKING:
    from asyncpg import Connection

AGAIN = 0.5  # seconds after which the store is tried again that does not answer
MOST = 2_000  # entries of a transaction
ENDING = 10.0  # seconds in which what is not recorded at the end must be
UNMARKED = 0
"""In place of a session: the outcome of a try whose end was never written."""

# `live` is the fence: a session that was expired, or is being expired, marks nothing.
_LIVE = (
    "WITH live AS MATERIALIZED (SELECT id FROM session WHERE id = $1 AND ended_at IS NULL"
    " AND lease_until > clock_timestamp() FOR SHARE)"
)
_HELD = (
    "EXISTS (SELECT 1 FROM shard s WHERE s.campaign = $2 AND s.holder = $1 AND s.queue = d.queue"
    " AND d.id BETWEEN s.first_id AND s.last_id)"
)
# Ids that do not come back may not be sent.
_MARK = (
    _LIVE
    + """
    UPDATE delivery_{0} d SET marked_by = live.id, marked_at = clock_timestamp(), marked_relay = m.relay,
        digest = m.digest, message_id = m.message_id, first_at = coalesce(d.first_at, m.first_at)
    FROM live, unnest($3::bigint[], $4::bytea[], $5::text[], $6::float8[], $7::text[])
        AS m (id, digest, message_id, first_at, relay)
    WHERE d.campaign = $2 AND d.id = m.id AND d.marked_by IS NULL AND d.status IN ('pending', 'deferred')
        AND (NOT d.in_doubt_before OR d.digest IS NULL OR d.digest = m.digest) AND """
    + _HELD
    + " RETURNING d.id"
)
_OUTCOME = """
    UPDATE delivery_{0} d SET status = o.status, marked_by = NULL, attempts = o.attempts, tries = d.tries + 1,
        due_at = CASE WHEN o.due_in = '-infinity' THEN 'epoch'
            ELSE clock_timestamp() + make_interval(secs => o.due_in) END,
        first_at = coalesce(d.first_at, o.first_at), in_doubt_before = d.in_doubt_before OR o.status = 'in_doubt'
    FROM {1} unnest($3::bigint[], $4::text[], $5::float8[], $6::smallint[], $7::float8[])
        AS o (id, status, due_in, attempts, first_at)
    WHERE d.campaign = $2 AND d.id = o.id
"""
# Also after the lease was lost: an outcome of one's own mark is the truth and ends the doubt.
_SETTLE_MARKED = (
    _OUTCOME.replace("{1}", "") + " AND d.marked_by = $1 AND d.status IN ('pending', 'deferred', 'in_doubt')"
    " RETURNING d.id, d.tries"
)
_SETTLE_UNMARKED = (
    _LIVE
    + _OUTCOME.replace("{1}", "live,")
    + " AND d.marked_by IS NULL AND d.status IN ('pending', 'deferred') AND "
    + _HELD
    + " RETURNING d.id, d.tries"
)
# The paths of a row are neighbours; only their ids are indexed.
_INVALIDATE = (
    _LIVE
    + """
    UPDATE delivery_{0} d SET status = 'invalid', due_at = NULL, reason = $4 FROM live
    WHERE d.campaign = $2 AND d.row_number = $3 AND d.status = 'pending' AND d.marked_by IS NULL
        AND d.id BETWEEN $5::bigint - 1000 AND $5 + 1000 AND """
    + _HELD
)
_IS_INVALID = "SELECT 1 FROM delivery_{0} WHERE campaign = $1 AND id = $2 AND status = 'invalid'"
# The dot was certainly not written.  Also after the lease was lost.
_RELEASE = """
    UPDATE delivery_{0} d SET marked_by = NULL, due_at = coalesce(d.due_at, clock_timestamp()), status = CASE d.status
        WHEN 'in_doubt' THEN CASE WHEN d.tries = 0 THEN 'pending' ELSE 'deferred' END ELSE d.status END
    WHERE d.campaign = $2 AND d.id = ANY ($3::bigint[]) AND d.marked_by = $1
        AND d.status IN ('pending', 'deferred', 'in_doubt')
"""
_PUT_BACK = (
    "UPDATE delivery_{0} SET status = 'pending', due_at = 'epoch'"
    " WHERE campaign = $1 AND id = ANY ($2::bigint[]) AND status = 'rejected'"
)
# A delivery that is pending again in a shard without a holder makes the shard due.
_DUE = """
    UPDATE shard s SET due_at = least(s.due_at, (SELECT min(d.due_at) FROM delivery_{0} d WHERE d.campaign = s.campaign
        AND d.id BETWEEN s.first_id AND s.last_id AND d.queue = s.queue))
    WHERE s.campaign = $1 AND s.holder IS NULL
        AND EXISTS (SELECT 1 FROM unnest($2::bigint[]) AS o (id) WHERE o.id BETWEEN s.first_id AND s.last_id)
"""
_ATTEMPT = (
    "INSERT INTO attempt_{0} (campaign, delivery, try, session, at, took, relay, stage, code, enhanced, text, breakage,"
    " outcome, scope, reason, counts)"
    " SELECT $1, t.delivery, t.try, $2, to_timestamp(t.at), t.took, t.relay, t.stage, t.code, t.enhanced, t.text,"
    " t.breakage, t.outcome, t.scope, t.reason, t.counts FROM unnest($3::bigint[], $4::smallint[], $5::float8[],"
    " $6::float4[], $7::text[], $8::text[], $9::smallint[], $10::text[], $11::text[], $12::text[], $13::text[],"
    " $14::text[], $15::text[], $16::boolean[]) AS t (delivery, try, at, took, relay, stage, code, enhanced, text,"
    " breakage, outcome, scope, reason, counts)"
)
# A commit whose answer was lost: was the outcome recorded after all?
_RECORDED = (
    "SELECT a.delivery FROM attempt_{0} a JOIN unnest($1::bigint[], $2::smallint[]) AS o (id, try)"
    " ON a.delivery = o.id AND a.try = o.try WHERE a.campaign = $3 AND a.session = $4"
)

_Answer = asyncio.Future[Collection[int]]


class _Write:
    """One call, until it is answered."""

    __slots__ = ("answer", "entries", "taken")

    def __init__(self, entries: Sequence[Written], answer: _Answer) -> None:
        self.entries = list(entries)
        self.answer = answer
        self.taken: set[int] = set()


class ClusterJournal:
    """Writes for one campaign and one worker, in the order of the calls.  `out` are the claims, by their session.

    A mark whose commit was not answered was not granted; it is released as soon as the store can be reached.  Outcomes
    wait for that.  `marked` is what has a mark without an outcome, with the session that it was marked under.
    """

    def __init__(
        self, session: Session, campaign: int, *, out: MutableMapping[int, int], clock: Callable[[], float] = time.time
    ) -> None:
        self.marked: dict[int, int] = {}
        self._session = session
        self._campaign = campaign
        self._out = out
        self._clock = clock
        self._waiting: list[_Write] = []
        self._stray: list[tuple[int, int]] = []  # delivery and session: marks to be released
        self._writer: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._failure: StoreError | None = None

    def write(self, entries: Sequence[Written]) -> _Answer:
        """The answer of the contract, as soon as the transaction is committed."""
        answer: _Answer = asyncio.get_running_loop().create_future()
        if self._failure is not None:
            answer.set_exception(self._failure)
            return answer
        self._waiting.append(_Write(entries, answer))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._run())
        return answer

    async def aclose(self) -> None:
        """Waits for what is being written, but not for ever for a store that does not answer."""
        if self._writer is not None and not self._writer.done():
            await asyncio.wait([self._writer], timeout=ENDING)
            if not self._writer.done():
                self._writer.cancel()
                await asyncio.gather(self._writer, return_exceptions=True)
        if self._connection is not None:
            with suppress(Exception):
                await self._connection.close(timeout=2)
            self._connection = None

    async def _run(self) -> None:
        while self._waiting or self._stray:
            taken: list[_Write] = []
            while self._waiting and sum(len(write.entries) for write in taken) < MOST:
                taken.append(self._waiting.pop(0))
            asked, was_cut = self._session.id, False
            try:
                while not await self._try(taken, asked, was_cut=was_cut):
                    if not was_cut:
                        self._without_marks(taken, asked)
                        was_cut = True
                    await asyncio.sleep(AGAIN)
            except Exception as error:
                self._fail(taken, error)
                return
            self._tell(taken, asked)

    async def _try(self, writes: list[_Write], asked: int, *, was_cut: bool) -> bool:
        """Whether they are committed; False: the store is to be tried again."""
        for write in writes:
            write.taken.clear()
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await connect(self._session.url, stands_still=STANDS_STILL)
            stray = list(self._stray)
            async with self._connection.transaction():
                await _release(self._connection, self._campaign, stray)
                for group in _groups(writes):
                    await self._write_group(self._connection, group, asked)
            if was_cut:
                await self._find_recorded(self._connection, writes)
        except Exception as error:
            if is_to_be_repeated(error):
                return False
            if not (is_gone(error) or isinstance(error, StoreError)):
                raise
            if self._connection is not None:
                self._connection.terminate()
                self._connection = None
            return False
        del self._stray[: len(stray)]
        return True

    async def _write_group(self, connection: Connection, group: list[tuple[_Write, Written]], asked: int) -> None:
        """Entries no two of which are about the same delivery."""
        marks = [(write, entry) for write, entry in group if isinstance(entry, Mark)]
        held = [pair for pair in marks if self._out.get(pair[1].delivery_id) == asked]
        if held:
            entries = sorted((entry for _, entry in held), key=lambda mark: mark.delivery_id)
            granted = await connection.fetch(
                _MARK.format(self._campaign),
                asked,
                self._campaign,
                [mark.delivery_id for mark in entries],
                [mark.digest for mark in entries],
                [mark.message_id for mark in entries],
                [mark.first_at for mark in entries],
                [mark.relay for mark in entries],
            )
            self.marked.update((record["id"], asked) for record in granted)
            _note(held, {record["id"] for record in granted})
        settled: dict[int, list[tuple[_Write, Settlement]]] = {}
        for write, entry in group:
            if isinstance(entry, Settlement):
                marked_by = self.marked.get(entry.delivery.id)
                settled.setdefault(UNMARKED if marked_by is None else marked_by, []).append((write, entry))
        for session, pairs in settled.items():
            await self._settle(connection, pairs, session or asked, is_marked=session != UNMARKED)
        for write, entry in group:
            if isinstance(entry, Invalidation):
                await connection.execute(
                    _INVALIDATE.format(self._campaign),
                    asked,
                    self._campaign,
                    entry.row,
                    entry.reason,
                    entry.delivery_id,
                )
                if await connection.fetchval(_IS_INVALID.format(self._campaign), self._campaign, entry.delivery_id):
                    write.taken.add(entry.delivery_id)
            elif isinstance(entry, PutBack):
                await connection.execute(_PUT_BACK.format(self._campaign), self._campaign, sorted(entry.deliveries))
                await connection.execute(_DUE.format(self._campaign), self._campaign, sorted(entry.deliveries))
        released = [entry.delivery_id for _, entry in group if isinstance(entry, Release)]
        await _release(
            connection, self._campaign, [(number, self.marked[number]) for number in released if number in self.marked]
        )

    async def _settle(
        self, connection: Connection, pairs: list[tuple[_Write, Settlement]], session: int, *, is_marked: bool
    ) -> None:
        pairs = sorted(pairs, key=lambda pair: pair[1].delivery.id)
        now = self._clock()
        deliveries = [settlement.delivery for _, settlement in pairs]
        done = await connection.fetch(
            (_SETTLE_MARKED if is_marked else _SETTLE_UNMARKED).format(self._campaign),
            session,
            self._campaign,
            [delivery.id for delivery in deliveries],
            [delivery.status.value for delivery in deliveries],
            [_due_in(delivery.status, delivery.due_at, now) for delivery in deliveries],
            [delivery.attempts for delivery in deliveries],
            [delivery.first_at for delivery in deliveries],
        )
        tries = {record["id"]: record["tries"] for record in done}
        taken = [settlement for _, settlement in pairs if settlement.delivery.id in tries]
        if taken:
            numbers = [settlement.delivery.id for settlement in taken]
            columns = zip(*(_attempt(settlement) for settlement in taken), strict=True)
            await connection.execute(
                _ATTEMPT.format(self._campaign),
                self._campaign,
                session,
                numbers,
                [tries[n] for n in numbers],
                *map(list, columns),
            )
            await connection.execute(_DUE.format(self._campaign), self._campaign, numbers)
        _note(pairs, tries)

    async def _find_recorded(self, connection: Connection, writes: list[_Write]) -> None:
        """Outcomes that an earlier commit recorded, whose answer was lost."""
        pairs = [
            (w, e) for w in writes for e in w.entries if isinstance(e, Settlement) and e.delivery.id not in w.taken
        ]
        for session in {self.marked.get(entry.delivery.id, self._session.id) for _, entry in pairs}:
            numbers = [entry.delivery.id for _, entry in pairs]
            tries = [entry.delivery.tries for _, entry in pairs]
            found = await connection.fetch(_RECORDED.format(self._campaign), numbers, tries, self._campaign, session)
            _note(pairs, {record["delivery"] for record in found})

    def _without_marks(self, writes: list[_Write], asked: int) -> None:
        """A commit whose answer is lost is no permission: the marks in it are released, when that can be said."""
        for write in writes:
            for entry in write.entries:
                if isinstance(entry, Mark):
                    self._stray.append((entry.delivery_id, asked))
                    self.marked.pop(entry.delivery_id, None)
            write.entries = [entry for entry in write.entries if not isinstance(entry, Mark)]

    def _tell(self, writes: list[_Write], asked: int) -> None:
        """Answers; a mark that came back too late for the lease is not granted, and released."""
        is_safe = self._session.id == asked and self._session.is_safe()
        for write in writes:
            for entry in write.entries:
                if isinstance(entry, PutBack):
                    continue
                if isinstance(entry, Mark):
                    number = entry.delivery_id
                    if number in write.taken and not is_safe:
                        write.taken.discard(number)
                        self._stray.append((number, asked))
                        self.marked.pop(number, None)
                    if number not in write.taken:
                        self._out.pop(number, None)
                elif isinstance(entry, Release):
                    self.marked.pop(entry.delivery_id, None)
                else:
                    number = entry.delivery.id if isinstance(entry, Settlement) else entry.delivery_id
                    self.marked.pop(number, None)
                    self._out.pop(number, None)
            if not write.answer.done():
                write.answer.set_result(write.taken)

    def _fail(self, writes: list[_Write], error: BaseException) -> None:
        self._failure = StoreError(f"the store failed: {error}")
        for write in (*writes, *self._waiting):
            if not write.answer.done():
                write.answer.set_exception(self._failure)
        self._waiting.clear()


def _groups(writes: Iterable[_Write]) -> Iterator[list[tuple[_Write, Written]]]:
    """All entries in their order, parted before each that is about a delivery of the part before."""
    group: list[tuple[_Write, Written]] = []
    seen: set[int] = set()
    for write in writes:
        for entry in write.entries:
            ids = _ids(entry)
            if not seen.isdisjoint(ids):
                yield group
                group, seen = [], set()
            seen.update(ids)
            group.append((write, entry))
    if group:
        yield group


def _ids(entry: Written) -> Collection[int]:
    if isinstance(entry, PutBack):
        return entry.deliveries
    return (entry.delivery.id if isinstance(entry, Settlement) else entry.delivery_id,)


def _note(pairs: Iterable[tuple[_Write, Mark | Settlement]], taken: Collection[int]) -> None:
    for write, entry in pairs:
        number = entry.delivery_id if isinstance(entry, Mark) else entry.delivery.id
        if number in taken:
            write.taken.add(number)


async def _release(connection: Connection, campaign: int, marks: list[tuple[int, int]]) -> None:
    """Marks (delivery, session) are taken off."""
    for session in {session for _, session in marks}:
        numbers = sorted(number for number, of in marks if of == session)
        await connection.execute(_RELEASE.format(campaign), session, campaign, numbers)
        await connection.execute(_DUE.format(campaign), campaign, numbers)


def _due_in(status: Status, due_at: float, now: float) -> float | None:
    """Seconds until it is due; minus infinity is at once and in the order of the input."""
    if status not in (Status.PENDING, Status.DEFERRED):
        return None
    return float("-inf") if due_at == 0 else due_at - now


def _attempt(settlement: Settlement) -> tuple[object, ...]:
    """The columns of the try behind its number."""
    attempt = settlement.attempt
    event, verdict = attempt.event, attempt.verdict
    if isinstance(event, Reply):
        said: tuple[object, ...] = (event.stage.value, event.code, clean(event.enhanced), clean(event.text), None)
    else:
        said = (event.stage.value, None, "", clean(event.what), event.kind.value)
    judged = (verdict.outcome.value, verdict.scope.value, clean(verdict.says), verdict.counts)
    return attempt.at, attempt.took, clean(attempt.relay), *said, *judged
