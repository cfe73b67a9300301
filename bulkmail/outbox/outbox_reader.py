"""Looking at a run, also while another process sends."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from heapq import merge
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from bulkmail.model.campaign import Campaign
from bulkmail.model.delivery import AttemptResult, Delivery, Job
from bulkmail.model.outcome import Outcome, Reason, Reply, Scope, Stage, Verdict
from bulkmail.model.recipient import Address, Place, RowFields
from bulkmail.model.schedule import Planned
from bulkmail.model.tally import RowStatus, Status, Tally
from bulkmail.outbox import jobs, lookup, sqlite_file
from bulkmail.outbox.entries import IS_COPY, STATUS_OF, AcceptedRow, AttemptRecord, PathRecord, RowRecord, decode_fields
from bulkmail.outbox.lock import holder
from bulkmail.outbox.lookup import FoundDelivery, Try, rows_to, rows_with
from bulkmail.outbox.outbox import Outbox
from bulkmail.outbox.run_header import MESSAGES_DELIVERY, by_row, has_copies, read_header, read_tally
from bulkmail.outbox.run_info import RunInfo
from bulkmail.outbox.sqlite_file import Moment, noticing_damage
from bulkmail.outbox.turns import Overlay, Turns

_PAGE = 1_000
_RECORDS = """
    SELECT d.id, d.row, r.source, r.line, r.address, r.name, r.fields, d.forward_path, d.status, d.reason, d.tries,
           d.first_at, d.in_doubt_before, d.message_id, r.message_id, a.at + a.took, a.relay, a.code, a.enhanced,
           a.text, a.breakage, a.reason, d.id, 0
    FROM delivery AS d JOIN row AS r ON r.number = d.row LEFT JOIN attempt AS a ON a.id = d.last_attempt
    WHERE d.id > ? ORDER BY d.id LIMIT ?
"""
# The same where several rows may share a message: a row that shares one has the outcome of that.
_GROUPED_RECORDS = f"""
    SELECT d.id, d.row, r.source, r.line, r.address, r.name, r.fields, d.forward_path, o.status, o.reason, o.tries,
           o.first_at, o.in_doubt_before, o.message_id, r.message_id, a.at + a.took, a.relay, a.code, a.enhanced,
           a.text, a.breakage, a.reason, o.id, coalesce(p.message, 0)
    FROM delivery AS d JOIN row AS r ON r.number = d.row LEFT JOIN part AS p ON p.row = d.row
    JOIN delivery AS o ON o.id = CASE WHEN p.row IS NULL THEN d.id ELSE {MESSAGES_DELIVERY.format("p")} END
    LEFT JOIN attempt AS a ON a.id = o.last_attempt
    WHERE d.id > ? AND NOT (d.status = 'grouped' AND {IS_COPY.format("d")}) ORDER BY d.id LIMIT ?
"""  # noqa: S608
_DOUBTFUL = _RECORDS.replace("WHERE", "WHERE d.row IN (SELECT row FROM delivery WHERE status = 'in_doubt') AND")
_THESE = _RECORDS.replace("WHERE", "WHERE d.id IN (SELECT value FROM json_each(?)) AND")
_OF_ROWS = "WHERE d.row IN (SELECT value FROM json_each(?)) AND d.id > ?"
_UNACCEPTED = _RECORDS.replace("WHERE", "WHERE d.status <> 'accepted' AND")
_UNACCEPTED_COPIES = _RECORDS.replace(
    "WHERE",
    "WHERE EXISTS (SELECT 1 FROM delivery AS other WHERE other.row = d.row AND other.status <> 'accepted') AND",
)
# As `AcceptedRow`; the third column says whether it is one, but for further deliveries of the same row.
_BRIEF = """
    SELECT d.id, d.row, d.status = 'accepted' AND d.reason = '' AND a.code IS NOT NULL AND a.breakage IS NULL,
           r.fields, a.code, a.enhanced, a.text, d.tries, a.relay,
           CASE r.message_id WHEN '' THEN d.message_id ELSE r.message_id END, d.first_at, a.at + a.took
    FROM delivery AS d JOIN row AS r ON r.number = d.row LEFT JOIN attempt AS a ON a.id = d.last_attempt
    WHERE d.id > ? ORDER BY d.id LIMIT ?
"""
_ATTEMPTS = """
    SELECT a.id, d.row, d.forward_path, a.at, a.took, a.relay, a.code, a.enhanced, a.outcome, a.reason
    FROM attempt AS a JOIN delivery AS d ON d.id = a.delivery
    WHERE a.id > ? ORDER BY a.id LIMIT ?
"""
_REACHED = """
    SELECT d.id, r.address, d.forward_path FROM delivery AS d JOIN row AS r ON r.number = d.row
    WHERE d.id > ? AND d.status IN ('accepted', 'in_doubt') ORDER BY d.id LIMIT ?
"""
# The first condition is that of the index of what is due.
_NEXT_TRY = "SELECT min(due_at) FROM delivery WHERE due_at IS NOT NULL AND status = 'deferred'"
_STATUSES = """
    SELECT d.id, d.row, r.address, d.status FROM delivery AS d JOIN row AS r ON r.number = d.row
    WHERE d.id > ? ORDER BY d.id LIMIT ?
"""
_BY_RELAY = """
    SELECT coalesce(a.relay, ''), count(*) FROM delivery AS d LEFT JOIN attempt AS a ON a.id = d.last_attempt
    WHERE d.status = 'accepted' GROUP BY 1 ORDER BY min(d.id)
"""
# What the columns of these queries hold; SQLite itself takes anything.
_RECORD = tuple[
    int, int, str, int, str, str, Any, str, str, str, int, Moment | None, int, str, str,
    Moment | None, str | None, int | None, str | None, str | None, str | None, str | None, int, int,
]  # fmt: skip
_RECORD_PAGE = list[_RECORD]
_BRIEF_PAGE = list[tuple[int, int, int, Any, int, str, str, int, str, str, Moment | None, Moment | None]]
_ATTEMPT = tuple[int, int, str, Moment, float, str, int | None, str, str, str]
_REFUSALS = """
    SELECT d.id, d.row, d.forward_path, d.status, d.tries, a.at, a.took, a.relay, a.stage, a.code, a.enhanced, a.text,
           a.outcome, a.reason
    FROM delivery AS d JOIN attempt AS a ON a.id = d.last_attempt
    WHERE d.id > ? AND d.status IN ('rejected', 'expired') AND a.scope = 'recipient' AND a.code IS NOT NULL
    ORDER BY d.id LIMIT ?
"""
_REASONS = frozenset(reason.value for reason in Reason)
_SETTLED = frozenset({Status.ACCEPTED.value, Status.REJECTED.value})
RETRIED = "in doubt before, to be sent again"
"""The reason of an open row that was in doubt: its message may have arrived already."""


class OutboxReader:
    """One moment of a run: whatever is read from one reader agrees, however the sending goes on meanwhile.

    Reads only, and never moves SQLite's log into the file.  A context manager; while one is open the log of a running
    outbox can only grow, so open a new one for a new look.  Every method may raise `OutboxError`.

    Times are wall-clock seconds: `started_at` is None before the first message, `ended_at` before the end.  `recovered`
    is how many deliveries crashes have left in doubt, `recovered_at` when the last of them was noticed.
    It has more methods than a class should: each answers one question about one and the same snapshot.
    """

    def __init__(self, opened: sqlite_file.OutboxFile, *, owns: bool) -> None:
        """For `open()` and `over()` only."""
        self._store = opened
        self._owns = owns
        self._laid_over: Overlay | None = None
        with opened.reading() as connection:
            header = read_header(connection, opened.name)
        self.run_id: str = header.run_id
        self.campaign: Campaign | None = header.campaign
        self.info: RunInfo = header.info
        self.is_loaded: bool = header.loaded_at is not None
        self.is_rehearsal: bool = header.info.is_rehearsal
        self.created_at: float = header.created_at
        self.started_at: float | None = header.started_at
        self.ended_at: float | None = header.ended_at
        self.recovered: int = header.recovered
        self.recovered_at: float | None = header.recovered_at

    @classmethod
    def open(cls, path: Path) -> Self:
        """The run at `path`, as it is now.  Raises `OutboxError` for what is not an outbox of ours."""
        path = path.resolve()
        sqlite_file.check_exists(path)
        sqlite_file.put_in_order(path)
        opened = sqlite_file.connect(path, writes=False)
        try:
            sqlite_file.check_identity(opened)
            with opened.reading() as connection:
                connection.execute("PRAGMA query_only = ON")
                connection.execute("PRAGMA trusted_schema = OFF")
                connection.execute("BEGIN")  # the moment is that of the first look, and lasts until the end
            return cls(opened, owns=True)
        except BaseException:
            opened.close()
            raise

    @classmethod
    def over(cls, outbox: Outbox) -> OutboxReader:
        """An outbox of this program, which may be in memory: reads what is there at the time of each call."""
        return cls(outbox.store, owns=False)

    @property
    def name(self) -> str:
        """The file, for people."""
        return self._store.name

    @property
    def is_running(self) -> tuple[int, str] | None:
        """Pid and host of the process that has this outbox open for sending now; None when none has."""
        if self._store.path is None:
            return None
        found = holder(self._store.path)
        return (found.pid, found.host) if found else None

    def tally(self) -> Tally:
        """Messages and copies by status: rows that share one count once.  Reads all of them."""
        with self._store.reading() as connection, noticing_damage(self.name):
            tally, overlay = read_tally(connection), self._overlay(connection)
            return overlay.tallied(connection, tally) if overlay else tally

    def tally_by_row(self) -> Tally:
        """Rows and copies by status: each row that shares a message has the status of that.  Reads all of them."""
        with self._store.reading() as connection, noticing_damage(self.name):
            tally, overlay = by_row(connection, read_tally(connection)), self._overlay(connection)
            return overlay.tallied_by_row(connection, tally) if overlay else tally

    @property
    def is_grouped(self) -> bool:
        """Whether several rows may share a message."""
        return self.campaign is not None and bool(self.campaign.group_by)

    @property
    def has_marks(self) -> bool:
        """Whether the end of some message is, or was at a crash, about to be written: its fate is not known yet."""
        with self._store.reading() as connection:
            query = "SELECT 1 FROM delivery WHERE ending_at IS NOT NULL LIMIT 1"
            return connection.execute(query).fetchone() is not None or self._overlay(connection).has_marks

    def next_try_at(self) -> float | None:
        """When the first of the deferred deliveries may be tried again (wall-clock seconds); None if there is none."""
        with self._store.reading() as connection:
            (due,) = connection.execute(_NEXT_TRY).fetchone()
            return self._moment(due)

    def planned(self, now: float, *, zone_column: str = "", fallback: str = "") -> Planned:
        """The rows never tried by their planned times; those without a value in `zone_column` count as `fallback`."""
        with self._store.reading() as connection, noticing_damage(self.name):
            found = jobs.planned(connection, now, zone_column=zone_column, fallback=fallback)
            unfolded = len(self._overlay(connection).accepted)  # the tables have them as due still
            return replace(found, at_once=max(0, found.at_once - unfolded))

    def last_tried_at(self) -> float | None:
        """When the last try ended (wall-clock seconds); None if there was none.  Reads all of them."""
        with self._store.reading() as connection:
            (last,) = connection.execute("SELECT max(at + took) FROM attempt").fetchone()
            unfolded = [each.accepted.at + each.accepted.took for each in self._overlay(connection).accepted.values()]
            return self._moment(max([*unfolded, *([] if last is None else [last])], default=None))

    def rows(self) -> Iterator[RowRecord]:
        """Every input row, in the order of the input, in flat memory."""
        return self._records(_GROUPED_RECORDS if self.is_grouped else _RECORDS)

    def statuses(self) -> Iterator[RowStatus]:
        """The result of each row and of its copies, in the order of the input; keys are `Address.key`s where rows have
        an address.
        """
        if self.is_grouped:
            for record in self.rows():
                others = tuple(copy.status for copy in record.copies)
                yield RowStatus(record.row, _known_by(record.address), record.status, others)
            return
        with self._store.reading() as connection:
            unfolded = self._overlay(connection).accepted
        for row, deliveries in groupby(self._pages(_STATUSES), key=itemgetter(1)):
            with noticing_damage(self.name):
                found = [
                    (address, Status.ACCEPTED if number in unfolded else STATUS_OF[word])
                    for number, _, address, word in deliveries
                ]
                (address, own), *copies = found
                kept = tuple(each for _, each in copies if each is not own or each.is_eligible)
                status = RowStatus(row, _known_by(address), own, kept)
            yield status

    def batches(self) -> Iterator[list[AcceptedRow] | Iterator[RowRecord | AcceptedRow]]:
        """As `rows()`, some at a time; a row with one delivery, which a server took, comes as an `AcceptedRow`.

        A list has nothing else.
        """
        if self.is_grouped or self._has_unfolded():  # while a process sends, or after a kill
            yield self.rows()
            return
        after = 0
        while page := self._whole_rows(_BRIEF, after):
            after = page[-1][0]
            if page[-1][1] - page[0][1] == len(page) - 1 and all(map(itemgetter(2), page)):
                yield self._checked(page, _BRIEF_PAGE)
                continue
            times = Counter(map(itemgetter(1), page))
            is_brief = [bool(columns[2]) and times[columns[1]] == 1 for columns in page]
            brief = self._checked([columns for columns, yes in zip(page, is_brief, strict=True) if yes], _BRIEF_PAGE)
            others = [columns[0] for columns, yes in zip(page, is_brief, strict=True) if not yes]
            yield merge(brief, self._records_of(others), key=_number)

    def unaccepted(self) -> Iterator[RowRecord]:
        """The rows that are not accepted or have a copy that is not, in the order of the input."""
        if self.is_grouped or self._has_unfolded():
            accepted = Status.ACCEPTED
            return (row for row in self.rows() if any(path.status is not accepted for path in (row, *row.copies)))
        with self._store.reading() as connection:
            query = _UNACCEPTED_COPIES if has_copies(connection) else _UNACCEPTED
        return self._records(query)

    def accepted_by_relay(self) -> dict[str, int]:
        """How many deliveries each relay took, in the order of the first of each.  Reads all of them."""
        with self._store.reading() as connection, noticing_damage(self.name):
            found = Counter(msgspec.convert(dict(connection.execute(_BY_RELAY)), dict[str, int]))
            found.update(each.accepted.relay for each in self._overlay(connection).accepted.values())
            return dict(found)

    def in_doubt(self) -> Iterator[RowRecord]:
        """The rows that are in doubt or have a copy that is, in the order of the input."""
        return self._records(_DOUBTFUL)

    def attempts(self) -> Iterator[AttemptRecord]:
        """Every try, in the order in which they ended, in flat memory."""
        for columns in self._pages(_ATTEMPTS):
            with noticing_damage(self.name):
                record = AttemptRecord(*msgspec.convert(columns, _ATTEMPT)[1:])
            yield record
        with self._store.reading() as connection:
            unfolded = self._overlay(connection).attempts(connection)
        yield from unfolded

    def refusals(self) -> Iterator[tuple[Delivery, AttemptResult]]:
        """What failed because of its recipient, by a server's word, with its last try as it was judged.

        A try whose reason has a label of its own is passed over: it says nothing about a mailbox.
        """
        for columns in self._pages(_REFUSALS):
            number, row, path, status, tries, at, took, relay, stage, code, enhanced, text, outcome, reason = columns
            if reason not in _REASONS:
                continue
            with noticing_damage(self.name):
                verdict = Verdict(Outcome(outcome), Scope.RECIPIENT, Reason(reason))
                attempt = AttemptResult(at, took, relay, Reply(Stage(stage), code, enhanced, text), verdict)
                found = Delivery(number, row, path, STATUS_OF[status], tries=tries), attempt
            yield found

    def find(
        self,
        *,
        numbers: Collection[int] = (),
        rows: Collection[int] = (),
        message_ids: Collection[str] = (),
        paths: Collection[str] = (),
    ) -> list[FoundDelivery]:
        """The deliveries with one of these numbers, rows, Message-IDs or forward paths (in lower case).

        To find the last two all deliveries are read once, whatever their number.
        """
        found: dict[int, FoundDelivery] = {}
        with self._store.reading() as connection, noticing_damage(self.name):
            overlay = self._overlay(connection)
            numbers = {*numbers, *overlay.deliveries_with(message_ids)}
            for each in chain(
                lookup.by_numbers(connection, numbers) if numbers else (),
                lookup.by_rows(connection, rows) if rows else (),
                lookup.by_message_ids(connection, message_ids) if message_ids else (),
                lookup.by_paths(connection, paths) if paths else (),
            ):
                found[each.id] = overlay.found(each)
        return list(found.values())

    def open_between(self, after: int, last: int, now: float) -> list[Job]:
        """The deliveries with ids above `after` up to `last` that could be tried at `now`, by id.

        The journal of turns is not asked: some of them may have got an outcome already.
        """
        with self._store.reading() as connection, noticing_damage(self.name):
            return jobs.open_between(connection, after, last, now)

    def rows_of(self, row: int) -> tuple[RowFields, ...]:
        """The fields of all rows that share the message of `row`, in their order; that row's alone if none does."""
        with self._store.reading() as connection, noticing_damage(self.name):
            return jobs.rows_of(connection, row)

    def last_delivery(self) -> int:
        """The highest id of a delivery, 0 for none."""
        with self._store.reading() as connection:
            return int(connection.execute("SELECT coalesce(max(id), 0) FROM delivery").fetchone()[0])

    def renew(self) -> None:
        """From here on the moment is now."""
        self._laid_over = None
        with self._store.reading() as connection:
            connection.execute("COMMIT")
            connection.execute("BEGIN")

    def page(
        self, *, after: int = 0, status: Status | None = None, address: str = "", limit: int = 100
    ) -> tuple[list[RowRecord], int]:
        """Rows with a delivery behind the id `after` that has this status and `address` somewhere in its own.

        Also the id to go on behind; 0 at the end.
        """
        with self._store.reading() as connection, noticing_damage(self.name):
            found = lookup.find_page(connection, after=after, status=status, address=address, limit=limit)
        rows = list(dict.fromkeys(row for _, row in found))
        return self.records(rows), found[-1][0] if len(found) == limit else 0

    def records(self, rows: Collection[int]) -> list[RowRecord]:
        """These rows, in the order of the input."""
        query = (_GROUPED_RECORDS if self.is_grouped else _RECORDS).replace("WHERE d.id > ?", _OF_ROWS)
        with self._store.reading() as connection:
            columns = connection.execute(query, (json.dumps(list(rows)), 0, -1)).fetchall()
            overlay = self._overlay(connection)
        return list(self._made([overlay.laid_over(each) for each in columns] if overlay else columns))

    def tries_after(self, after: int, limit: int) -> list[Try]:
        """The tries behind the id `after`, in the order in which they ended, without those that are not folded yet."""
        with self._store.reading() as connection, noticing_damage(self.name):
            return msgspec.convert(lookup.tries_after(connection, after, limit), list[Try])

    def tries_of(self, row: int) -> list[Try]:
        """The tries of a row and of its copies, in the order in which they ended."""
        with self._store.reading() as connection, noticing_damage(self.name):
            return msgspec.convert(lookup.tries_of(connection, row), list[Try])

    def reached(self) -> Iterator[str]:
        """`Address.key` of each recipient who has the message, or may have it (in doubt); of a rehearsal, none."""
        return (path for _, path in self.reached_of_rows())

    def reached_of_rows(self) -> Iterator[tuple[str, str]]:
        """The same, each behind the `Address.key` of the row whose message it is."""
        if self.is_rehearsal:
            return
        with self._store.reading() as connection:
            unfolded = self._overlay(connection).reached(connection)
        for _, own, path in chain(self._pages(_REACHED), unfolded):
            with noticing_damage(self.name):
                keys = _key(own), _key(path)
            yield keys

    def rows_to(self, keys: Collection[str]) -> list[int]:
        """Rows that have open deliveries and go to one of these `Address.key`s in ASCII, or `@domain`s; reads all."""
        with self._store.reading() as connection:
            return rows_to(connection, keys)

    def rows_with(self, reason_of: Callable[[Address], str]) -> list[int]:
        """Rows with open deliveries to an address that `reason_of` gives a reason for; asks for each."""
        with self._store.reading() as connection:
            return rows_with(connection, reason_of)

    def _records(self, query: str) -> Iterator[RowRecord]:
        """The rows whose deliveries a query like `_RECORDS` gives."""
        after = 0
        while page := self._whole_rows(query, after):
            after = page[-1][0]
            with self._store.reading() as connection:
                overlay = self._overlay(connection)
            yield from self._made([overlay.laid_over(columns) for columns in page] if overlay else page)

    def _records_of(self, ids: Sequence[int]) -> Iterator[RowRecord]:
        """The rows whose deliveries have these ids."""
        with self._store.reading() as connection:
            page = connection.execute(_THESE, (json.dumps(ids), 0, len(ids))).fetchall()
        return self._made(page)

    def _made(self, page: list[tuple[Any, ...]]) -> Iterator[RowRecord]:
        """The records of whole rows."""
        for _, deliveries in groupby(self._checked(page, _RECORD_PAGE), key=itemgetter(1)):
            try:
                record = _record(list(deliveries))
            except Exception:
                with noticing_damage(self.name):  # only here: entered for each row it would cost as much as the record
                    raise
            yield record

    def _checked(self, page: list[tuple[Any, ...]], kind: Any) -> list[Any]:
        """The same page if its values are those of `kind`, a list of tuples."""
        with noticing_damage(self.name):
            try:
                return msgspec.convert(page, kind)  # type: ignore[no-any-return]
            except msgspec.ValidationError:  # said of the row that is wrong
                (columns_kind,) = kind.__args__
                return [msgspec.convert(columns, columns_kind) for columns in page]

    def _moment(self, value: object) -> float | None:
        with noticing_damage(self.name):
            return msgspec.convert(value, Moment | None)

    def _pages(self, query: str) -> Iterator[tuple[Any, ...]]:
        """All rows of a query by id, some at a time: no other process waits for the lock while the caller works."""
        after = 0
        while True:
            page = self._page(query, after)
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1][0]

    def _overlay(self, connection: sqlite3.Connection) -> Overlay:
        """What the journal of turns adds to the tables, at the moment of this reader."""
        if self._laid_over is not None:
            return self._laid_over
        with noticing_damage(self.name):
            overlay = Overlay(Turns.read(connection))
        if self._owns:  # a file, at one moment
            self._laid_over = overlay
        return overlay

    def _has_unfolded(self) -> bool:
        with self._store.reading() as connection:
            return bool(self._overlay(connection))

    def _whole_rows(self, query: str, after: int) -> list[tuple[Any, ...]]:
        """About a thousand deliveries behind the id `after`, all or none of each row's; none at the end."""
        found: list[tuple[Any, ...]] = []
        while True:
            page = self._page(query, found[-1][0] if found else after)
            found += page
            if len(page) < _PAGE:
                return found
            cut, last = len(found), found[-1][1]
            while cut and found[cut - 1][1] == last:
                cut -= 1
            if cut:
                return found[:cut]

    def _page(self, query: str, after: int) -> list[tuple[Any, ...]]:
        with self._store.reading() as connection:
            return connection.execute(query, (after, _PAGE)).fetchall()

    def close(self) -> None:
        """Ends the look.  May be called again."""
        if self._owns:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def is_outbox(path: Path) -> bool:
    """Whether the file looks like an outbox from outside; False for one that cannot be read."""
    try:
        with path.open("rb") as file:
            return sqlite_file.looks_like_outbox(file.read(72))
    except OSError:
        return False


def _record(deliveries: list[tuple[Any, ...]]) -> RowRecord:
    """One row from its deliveries, of which the first is that to its own recipient."""
    _, row, source, line, address, name, fields, _, status = deliveries[0][:9]
    return RowRecord(
        row=row,
        place=Place(source, line),
        name=name,
        fields=decode_fields(fields),
        shares=deliveries[0][23],
        copies=tuple(
            PathRecord(address=copy[7], **_outcome(copy))
            for copy in deliveries[1:]
            if copy[8] != status or STATUS_OF[status].is_eligible  # else the row was left out with its copies
        ),
        address=address,
        **_outcome(deliveries[0]),
    )


def _number(row: RowRecord | AcceptedRow) -> int:
    return row.row if isinstance(row, RowRecord) else row[1]


def _known_by(address: str) -> str:
    return _key(address) if "@" in address else address.lower()


def _key(path: str) -> str:
    local, _, domain = path.rpartition("@")
    return Address(local, domain).key


def _outcome(columns: tuple[Any, ...]) -> dict[str, Any]:
    """What has become of one delivery."""
    status, decided, tries, first_at, was_in_doubt, marked_id, ready_id, last_at = columns[8:16]
    relay, code, enhanced, text, breakage, reason = columns[16:22]
    known = STATUS_OF[status]
    return {
        "status": known,
        "code": code,
        "enhanced": enhanced or "",
        "reply": text if code is not None else "",
        "reason": RETRIED if was_in_doubt and known.is_open else decided or reason or "",
        "attempts": tries,
        "relay": relay or "",
        "message_id": ready_id or marked_id,
        "first_at": first_at,
        "last_at": last_at,
        "error": text if breakage is not None else "",
        "overruled": decided if tries and status in _SETTLED else "",
    }
