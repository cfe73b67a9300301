"""The outbox: what is to be sent, what is being sent and what has become of it, durable from one moment to the next."""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextlib import suppress as suppress_errors
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec import structs

from bulkmail.model.campaign import Campaign
from bulkmail.model.delivery import Job, Written, check_move
from bulkmail.model.errors import OutboxError
from bulkmail.model.pace import Durability
from bulkmail.model.recipient import Address, PlainRows, Recipient, RowFields, StoredRow
from bulkmail.model.schedule import Planned
from bulkmail.model.tally import Status, Tally
from bulkmail.outbox import entries, jobs
from bulkmail.outbox import sqlite_file as stores
from bulkmail.outbox.entries import (
    Doubtful,
    Entry,
    Fold,
    ReadyMade,
    RowRecord,
    Suppressed,
    decode_fields,
    encode_campaign,
    storable,
)
from bulkmail.outbox.jobs import Ids
from bulkmail.outbox.lock import Lock, refuse_network
from bulkmail.outbox.lookup import suppress
from bulkmail.outbox.run_header import Header, RunningTally, count_rows, read_header
from bulkmail.outbox.run_info import RunInfo, written
from bulkmail.outbox.settling import Settler, dated, doubts, move_all, settle_found
from bulkmail.outbox.sqlite_file import check_values, noticing_damage
from bulkmail.outbox.turns import Overlay

__all__ = [
    "Doubtful",
    "Entry",
    "Fold",
    "Outbox",
    "ReadyMade",
    "RowRecord",
]


class Outbox:
    """The one read-write connection to a run.  Made by `create()` or `open()`; a context manager that closes it.

    Safe to use from several threads, one call at a time.  Every method may raise `OutboxError` with the file's name and
    the system's words; what was committed before stays.  A call that writes is durable when it returns, as far as
    `durability` says; with `Durability.POWER` it waits for the disk.

    `path` is None in memory.  `campaign` is None for ready-made messages.  `info` is what it notes of the run,
    changed by `note()`.  `newly_in_doubt` is how many deliveries this opening found marked by a crash.  `store` is for
    this room's own use.
    It has more methods than a class should: each is one transaction, and all of them are this file's promises.
    """

    def __init__(self, opened: stores.OutboxFile, lock: Lock | None, durability: Durability) -> None:
        """For `create()` and `open()` only."""
        self.durability = durability
        self.path = opened.path
        self.store = opened
        self._lock = lock
        self._running = RunningTally()
        self._settler = Settler()
        self._has_begun = False
        self.newly_in_doubt = 0
        with opened.reading() as connection:
            self._header: Header = read_header(connection, opened.name)
            self._rows = count_rows(connection)
            self._deliveries = int(connection.execute("SELECT coalesce(max(id), 0) FROM delivery").fetchone()[0])
        self.run_id: str = self._header.run_id
        self.campaign: Campaign | None = self._header.campaign
        self.info: RunInfo = self._header.info
        self.is_loaded: bool = self._header.loaded_at is not None
        self.is_rehearsal: bool = self.info.is_rehearsal
        self.started_at: float | None = self._header.started_at  # by an earlier process

    @classmethod
    def create(
        cls,
        path: Path | None,
        *,
        campaign: Campaign | None,
        info: RunInfo = RunInfo(),  # noqa: B008 - frozen
        durability: Durability = Durability.PROCESS,
        allow_duplicates: bool = False,
        replace: bool = False,
    ) -> Outbox:
        """A new, empty outbox with a fresh `run_id`, in memory when `path` is None.

        The file, readable by its owner only, appears complete or not at all; folders above it are made.  One that is
        there already is an `OutboxError`, or with `replace` removed, unless a process is sending from it.
        """
        content = encode_campaign(campaign) if campaign else b""

        def fill(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO run (id, run_id, created_at, allow_duplicates) VALUES (1, ?, ?, ?)",
                (secrets.token_hex(10), time.time(), allow_duplicates),
            )
            connection.executemany("INSERT INTO setting VALUES (?, ?)", info.notes().items())
            if campaign:
                connection.execute("INSERT INTO campaign VALUES (1, ?, ?)", (campaign.fingerprint, content))

        if path is not None:
            path = path.resolve()
            stores.make_folder(path.parent)
            return cls._locked(path, durability, make=lambda file: stores.make_file(file, fill, replace=replace))
        memory = stores.connect(None)
        stores.tune(memory, durability)
        stores.lay_down(memory, fill)
        return cls(memory, None, durability)

    @classmethod
    def open(cls, path: Path, *, durability: Durability = Durability.PROCESS) -> Outbox:
        """The run at `path`, to go on with.  Every delivery that a crash left marked is in doubt from here on.

        Raises `OutboxBusy` while another process has it, `OutboxError` for what is not an outbox of ours.  When loading
        was interrupted `is_loaded` is False: close it and begin again, nothing was sent.
        """
        path = path.resolve()
        stores.check_exists(path)
        outbox = cls._locked(path, durability, make=None)
        try:
            if outbox.is_loaded:
                with outbox.store.writing() as connection, noticing_damage(outbox.store.name, "its journal"):
                    check_values(connection, outbox.store.name)
                    relay = outbox.info.relay
                    outbox.newly_in_doubt = outbox._settler.recover(connection, relay=relay, now=time.time())
        except BaseException:
            outbox._let_go()
            raise
        return outbox

    @classmethod
    def _locked(cls, path: Path, durability: Durability, *, make: Callable[[Path], None] | None) -> Outbox:
        """Alone with the file at `path`, once `make` has made it if it is to be new."""
        refuse_network(path)
        lock = Lock(path)
        opened = None
        try:
            if make is not None:
                make(path)
            opened = stores.connect(path)
            stores.check_identity(opened)
            stores.tune(opened, durability)
            return cls(opened, lock, durability)
        except BaseException:
            if opened is not None:
                opened.close()
            lock.release()
            raise

    # Loading ----------------------------------------------------------------------------------------------------------

    def record(self, rows: Iterable[Entry | PlainRows]) -> None:
        """Adds input rows, numbered in order from 1, in one transaction: all of them or, after an exception, none.

        `PlainRows` are pending, each with its own address for its only forward path.
        Duplicates among the pending ones (equal `Address.key`) are found by `finish_loading()`; the first one stays.
        """
        with self.store.lock:
            self._must_be(loaded=False)
            self._forget()
            with self.store.writing() as connection:
                counts = entries.record(
                    connection,
                    rows,
                    rows=self._rows,
                    deliveries=self._deliveries,
                    allow_duplicates=self._header.allow_duplicates,
                )
            self._rows, self._deliveries = counts

    def finish_loading(self) -> None:
        """Every row is here: duplicates become DUPLICATE, and sending may begin.  On the disk when it returns.

        Where the campaign groups rows there are no duplicates: rows of one `Entry.group` share the message of the
        first.  They are INVALID if nothing can be sent for one of them, if their addresses differ or they are too many.
        """
        with self.store.lock:
            self._must_be(loaded=False)
            self._forget()
            with self.store.writing() as connection:
                entries.finish(connection, time.time(), is_grouped=self.is_grouped)
            self.store.checkpoint()
            self.is_loaded = True

    def pending_rows(self, after: int, limit: int) -> list[tuple[int, Recipient]]:
        """The next `limit` rows behind number `after` that are pending and made from templates, by number."""
        self._must_be(loaded=True)
        with self._looking() as connection, noticing_damage(self.store.name):
            return jobs.pending_rows(connection, after, limit)

    def pending_in_brief(self, after: int, limit: int) -> list[StoredRow]:
        """As `pending_rows()`, but as they are stored, and perhaps fewer; none only at the end."""
        self._must_be(loaded=True)
        with self.store.reading() as connection, noticing_damage(self.store.name):
            return jobs.pending_in_brief(connection, after, limit)

    def lines_with(self, status: Status, limit: int) -> list[int]:
        """The lines that the first `limit` rows in `status` had in their list."""
        with self._looking() as connection:
            return jobs.lines_with(connection, status.value, limit)

    def suppressed_copies(self, limit: int) -> tuple[int, list[int]]:
        """How many copies of pending rows are suppressed, and the lines of the first `limit` such rows."""
        with self._looking() as connection:
            return jobs.suppressed_copies(connection, limit)

    def rows_of(self, row: int) -> tuple[RowFields, ...]:
        """The fields of all rows that share the message of `row`, in their order; that row's alone if none does."""
        with self.store.reading() as connection, noticing_damage(self.store.name):
            return jobs.rows_of(connection, row)

    def message_of(self, row: int) -> int:
        """The number of the row whose message `row` shares: its own if that is none but itself."""
        with self.store.reading() as connection:
            return jobs.message_of(connection, row)

    def shared_messages(self) -> Iterator[tuple[str, list[tuple[int, Mapping[str, object]]]]]:
        """Each message that several rows share: its address, and lines and fields of its rows, in their order.

        Holds the lock: for the checks before sending.
        """
        with self._looking() as connection:
            for _, rows in groupby(jobs.sharing_rows(connection), key=itemgetter(0)):
                found = list(rows)
                yield found[0][1], [(line, decode_fields(fields)) for _, _, line, fields in found]

    def repeats(self) -> Iterator[tuple[str, list[tuple[int, Mapping[str, object]]]]]:
        """Each address that stands in the list more than once: lines and fields of its rows, the first of which counts.

        Holds the lock: for the checks before sending.
        """
        with self._looking() as connection:
            for _, rows in groupby(jobs.repeated_rows(connection), key=itemgetter(0)):
                found = list(rows)
                yield found[0][1], [(line, decode_fields(fields)) for _, _, line, fields in found]

    def invalidate(self, row: int, reason: str) -> None:
        """A pending row that cannot be written to becomes INVALID."""
        self.invalidate_many([(row, reason)])

    def invalidate_many(self, rows: Iterable[tuple[int, str]]) -> None:
        """Pending rows (number, reason) become INVALID: all of them or, after an exception, none."""
        self._must_be(loaded=True)
        check_move(Status.PENDING, Status.INVALID)
        statement = (
            "UPDATE delivery SET status = 'invalid', due_at = NULL, reason = ?"
            " WHERE row = ? AND status = 'pending' AND ending_at IS NULL"
        )
        with self._changing() as connection:
            for row, reason in rows:
                if not connection.execute(statement, (storable(reason), row)).rowcount:
                    raise OutboxError(f"row {row} is not pending and cannot become invalid")

    @property
    def is_grouped(self) -> bool:
        """Whether several rows may share a message."""
        return self.campaign is not None and bool(self.campaign.group_by)

    @property
    def has_copies(self) -> bool:
        """Whether some row goes to more than one address; both kinds of number are dense."""
        return self._deliveries != self._rows

    # Sending ----------------------------------------------------------------------------------------------------------

    def sort_into_queues(self, queue_of: jobs.QueueOf, *, reads_rows: bool) -> None:
        """Divides what may still be sent into queues, each of which can be asked for its jobs; all begin in queue 0.

        Without `reads_rows`, which is quicker, `queue_of` receives the forward path alone.
        """
        self._must_be(loaded=True)
        with self._changing() as connection:
            jobs.sort_into_queues(connection, queue_of, reads_rows=reads_rows)

    def domains(self, limit: int) -> list[str]:
        """At most `limit` domains that are still to be written to, those with most recipients first."""
        with self._looking() as connection:
            return jobs.domains(connection, limit)

    def deliveries_to(self, keys: Collection[str]) -> dict[str, list[int]]:
        """The ids of all deliveries of the rows with these `Address.key`s, by key; reads all rows."""
        with self._looking() as connection:
            return jobs.deliveries_to(connection, json.dumps(list(keys)))

    def count_wanted(self, wanted: Collection[int]) -> tuple[int, int]:
        """How many rows, and how many deliveries, of those with these ids sending goes on with."""
        with self._looking() as connection:
            return jobs.count_wanted(connection, json.dumps(list(wanted)))

    def count_open(self, queue: int, *, wanted: Ids = None) -> int:
        """How many deliveries of `queue` sending goes on with; `wanted` as in `due()`."""
        with self._looking() as connection:
            return jobs.count_open(connection, queue, wanted=wanted)

    def due(
        self, now: float, *, limit: int, excluding: Collection[int], queue: int = 0, after: int = 0, wanted: Ids = None
    ) -> list[Job]:
        """At most `limit` deliveries of `queue` that may be tried at `now` (wall clock), none marked, none excluded.

        Deferred ones come first, by due time, then pending ones by number, those behind the id `after`.  `wanted` is a
        JSON array of the only ids to return.  A caller excludes a job that it works on until it is settled: being
        handed out leaves no trace here.
        """
        self._must_be(loaded=True)
        with self.store.reading() as connection, noticing_damage(self.store.name):
            if claimed := self._settler.claimed(connection):
                excluding = {*claimed, *excluding}
            found = jobs.due(connection, now, limit=limit, excluding=excluding, queue=queue, after=after, wanted=wanted)
            self._settler.know(found)
            return found

    def next_due(self, queue: int = 0, *, after: float = 0.0, wanted: Ids = None) -> float | None:
        """The earliest time after `after` at which something in `queue` is due; None when nothing waits.

        What the journal of turns holds was never deferred, and so is not asked.
        """
        with self.store.reading() as connection:
            return jobs.next_due(connection, queue, after, wanted=wanted)

    def planned(self, now: float, *, zone_column: str = "", fallback: str = "") -> Planned:
        """The rows never tried by their planned times; those without a value in `zone_column` count as `fallback`."""
        with self._looking() as connection:
            return jobs.planned(connection, now, zone_column=zone_column, fallback=fallback)

    def demand(self, now: float, *, most: int) -> list[tuple[float, int]]:
        """From when on how many deliveries never tried may go, by the hour: at most the first `most` hours."""
        with self._looking() as connection:
            return jobs.demand(connection, now, most=most)

    def last_planned(self) -> float:
        """The latest time, wall-clock seconds, at which a delivery never tried is due; 0 when there is none."""
        with self._looking() as connection:
            return jobs.last_planned(connection)

    def write(self, entries: Sequence[Written | Fold]) -> None:
        """Entries in their order, in one transaction: all of them or, after an exception, none.

        Raises `OutboxError` for a mark or an outcome that may not follow what is stored: a settled delivery stays so.
        """
        if not entries:
            return
        with self.store.lock:
            now = time.time()
            try:
                if self._has_begun and self.store.is_open:
                    accepted = self._settler.append(self.store, entries, now=now)
                    if accepted is not None:
                        if accepted:
                            self._running.accepted(accepted)
                        return
                with self.store.writing() as connection:
                    if not self._has_begun:
                        connection.execute("UPDATE run SET started_at = coalesce(started_at, ?)", (now,))
                    changes = self._settler.write(connection, entries, now=now)
                    moves = self._running.moves(connection, changes)
            except BaseException:
                self._forget()  # whether a failed commit took effect, only a new look can tell
                raise
            self._has_begun = True
            self._running.apply(moves)

    def keep_sample(self, number: int, *, reason: str) -> None:
        """Of the pending rows `number`, drawn by lot, stay pending; the others become FILTERED with `reason`."""
        self._must_be(loaded=True)
        check_move(Status.PENDING, Status.FILTERED)
        with self._changing() as connection:
            connection.execute(entries.KEEP_SAMPLE, (storable(reason), number))

    def tally(self) -> Tally:
        """Rows by status.  The first call reads all rows; later ones do not, unless the operator has moved some.

        Call it once before sending: a million rows take a third of a second, and a commit would wait for that.
        """
        with self.store.reading() as connection, noticing_damage(self.store.name):
            overlay = Overlay(self._settler.journal(connection))
            return self._running.tally(connection, complete=lambda tally: overlay.tallied(connection, tally))

    # The operator's word ----------------------------------------------------------------------------------------------

    def cancel(self) -> int:
        """What is pending or deferred becomes CANCELLED; returns how many deliveries that were."""
        return sum(
            self._move_all(status, Status.CANCELLED, reason="cancelled") for status in (Status.PENDING, Status.DEFERRED)
        )

    def suppress(self, reason_of: Callable[[Address], str], *, rows: Collection[int] | None = None) -> Suppressed:
        """Open rows and copies whose address has a reason on a suppression list become SUPPRESSED; returns how many.

        With `rows` only those are looked at.
        """
        self._must_be(loaded=True)
        with self._changing() as connection:
            return suppress(connection, reason_of, rows=rows)

    def reopen(self, status: Status) -> int:
        """What is REJECTED or EXPIRED becomes pending with fresh patience; returns how many deliveries."""
        return self._move_all(status, Status.PENDING)

    def settle_in_doubt(self, to: Status, *, wait: float = 0.0, rows: Sequence[range] | None = None) -> int:
        """What is in doubt, of `rows` or of all, becomes PENDING, ACCEPTED or REJECTED; returns how many deliveries.

        A pending one is due `wait` seconds after its last attempt, so that the server may come to an end with that;
        what is then sent must be the same message, byte by byte.
        """
        reason = dated(f"{to.value} by the operator's word")
        return self._move_all(Status.IN_DOUBT, to, reason=reason, wait=wait, rows=rows)

    def doubts(self) -> list[Doubtful]:
        """What is in doubt, or was and is to be sent again, in the order of the input."""
        with self._looking() as connection:
            return doubts(connection)

    def settle_found(self, found: Mapping[int, str]) -> int:
        """Those that `doubts()` names (id → where the message was found) become ACCEPTED; returns how many."""
        self._must_be(loaded=True)
        with self._changing() as connection:
            return settle_found(connection, found)

    def _move_all(
        self, before: Status, after: Status, *, reason: str = "", wait: float = 0.0, rows: Sequence[range] | None = None
    ) -> int:
        self._must_be(loaded=True)
        with self._changing() as connection:
            return move_all(connection, before, after, reason=reason, wait=wait, rows=rows)

    # The rest ---------------------------------------------------------------------------------------------------------

    def note(self, **changes: object) -> None:
        """Changes what `info` says."""
        changed = structs.replace(self.info, **changes)
        with self.store.lock, self.store.writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO setting VALUES (?, ?)", written(changes).items())
            self.info = changed

    def finish(self, *, ended_at: float | None = None) -> None:
        """Notes the end, by default now, and leaves one plain file; nothing happens while anything is open."""
        self._must_be(loaded=True)
        with self.store.lock:
            self._settle_turns()
            with self.store.writing() as connection:
                if connection.execute("SELECT 1 FROM delivery WHERE due_at IS NOT NULL LIMIT 1").fetchone():
                    return
                connection.execute("UPDATE run SET ended_at = coalesce(ended_at, ?)", (ended_at or time.time(),))
            self.store.settle_down()

    def close(self) -> None:
        """Leaves one plain file, unless a process is reading it, and releases the lock.  May be called again.

        Deliveries left marked are in doubt when the outbox is opened next.
        """
        if not self.store.is_open:
            return
        try:
            with suppress_errors(OutboxError):  # what cannot be folded stays in the journal, for the next process
                self._settle_turns()
            self.store.settle_down()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        try:
            self.store.close()
        finally:
            if self._lock is not None:
                self._lock.release()

    @contextmanager
    def _looking(self) -> Iterator[sqlite3.Connection]:
        """Alone with the connection, and with tables that say all that is known."""
        with self.store.lock:
            self._settle_turns()
            with self.store.reading() as connection:
                yield connection

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """The same in a transaction, for what changes deliveries otherwise than `write()`."""
        with self.store.lock:
            self._settle_turns()
            self._forget()
            with self.store.writing() as connection:
                yield connection

    def _settle_turns(self) -> None:
        """Moves what the journal of turns holds into the tables, marks too."""
        with self.store.reading() as connection, noticing_damage(self.store.name):
            if not self._settler.has_turns(connection):
                return
        try:
            with self.store.writing() as connection:
                self._settler.settle_turns(connection)
        except BaseException:
            self._forget()
            raise

    @property
    def has_unfolded(self) -> bool:
        """Whether the journal of turns holds acceptances that the tables do not."""
        return self._settler.has_outcomes

    def _forget(self) -> None:
        """What is kept in memory to save looking up is looked up again."""
        self._running.forget()
        self._settler.forget()

    def _must_be(self, *, loaded: bool) -> None:
        if self.is_loaded is not loaded:
            what = "has all its rows already" if self.is_loaded else "does not have all its rows yet"
            raise OutboxError(f"{self.store.name} {what}", hint="call finish_loading() once, after the last record()")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except OutboxError as second:
            if error is None:
                raise
            error.add_note(str(second))  # the first one says why
