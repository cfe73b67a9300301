"""What an outbox says of the run as a whole: its header, and how many rows and copies have come to what."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import msgspec

from bulkmail.model.campaign import Campaign
from bulkmail.model.lazy import dataclass
from bulkmail.model.tally import Status, Tally
from bulkmail.outbox.entries import IS_COPY, STATUS_OF, decode_campaign
from bulkmail.outbox.run_info import RunInfo
from bulkmail.outbox.settling import Change
from bulkmail.outbox.sqlite_file import Moment, damaged, noticing_damage

# -- How many rows and copies have come to what, kept up to date without counting again.


_BY_STATUS = f"""
    SELECT {IS_COPY.format("d")}, d.status, count(*) FROM delivery AS d WHERE d.status <> 'grouped' GROUP BY 1, 2
"""  # noqa: S608
# Grouping costs four times as much as reading, so the two statuses that nearly all rows have are worked out instead:
# what is due is pending or deferred (the index of what is due knows how much), and the rest is accepted.
_RARE_BY_STATUS = """
    SELECT status, count(*) FROM delivery WHERE status NOT IN ('accepted', 'pending', 'grouped') GROUP BY status
"""
_DUE = "SELECT count(*) FROM delivery WHERE due_at IS NOT NULL"
_IN_ALL = "SELECT count(*) FROM delivery"
_SHARING = "SELECT count(*) FROM part"
MESSAGES_DELIVERY = "(SELECT min(first.id) FROM delivery AS first WHERE first.row = {0}.message)"
"""The delivery to the recipient of the message that a row shares; to be formatted with an alias of `part`."""
_SHARED_BY_STATUS = f"""
    SELECT d.status, count(*) FROM part AS p JOIN delivery AS d ON d.id = {MESSAGES_DELIVERY.format("p")} GROUP BY 1
"""  # noqa: S608
_IS_COPY = f"SELECT {IS_COPY.format('d')} FROM delivery AS d WHERE d.id = ?"  # noqa: S608


def count_rows(connection: sqlite3.Connection) -> int:
    """The input's rows; their numbers are dense."""
    return int(connection.execute("SELECT coalesce(max(number), 0) FROM row").fetchone()[0])


def has_copies(connection: sqlite3.Connection) -> bool:
    """Whether some row has more than one delivery: both kinds of number are dense, and no row is without a delivery."""
    deliveries = connection.execute("SELECT coalesce(max(id), 0) FROM delivery").fetchone()[0]
    return bool(deliveries != count_rows(connection))


def read_tally(connection: sqlite3.Connection) -> Tally:
    """Rows and copies by status, by reading all of them."""
    found: tuple[Counter[Status], Counter[Status]] = Counter(), Counter()
    (sharing,) = connection.execute(_SHARING).fetchone()
    if has_copies(connection):
        for is_copy, status, n in connection.execute(_BY_STATUS):
            found[is_copy][STATUS_OF[status]] = n
    else:
        found[0].update(_rows_by_status(connection, sharing))
    return Tally(count_rows(connection), *found, sharing)


def _rows_by_status(connection: sqlite3.Connection, sharing: int) -> dict[Status, int]:
    """Where each row has one delivery; those that share a message have theirs beside it, and `sharing` are they."""
    counts = {STATUS_OF[status]: n for status, n in connection.execute(_RARE_BY_STATUS)}
    (due,) = connection.execute(_DUE).fetchone()
    (in_all,) = connection.execute(_IN_ALL).fetchone()
    counts[Status.PENDING] = due - counts.get(Status.DEFERRED, 0)
    counts[Status.ACCEPTED] = in_all - sharing - sum(counts.values())
    return {status: n for status, n in counts.items() if n}


def by_row(connection: sqlite3.Connection, tally: Tally) -> Tally:
    """The tally of the tables with each row that shares a message in the status of that, instead of beside them."""
    counts = Counter(tally.by_status)
    if tally.sharing:
        counts.update({STATUS_OF[status]: n for status, n in connection.execute(_SHARED_BY_STATUS)})
    return replace(tally, by_status=counts, sharing=0)


class RunningTally:
    """The tally of an outbox that only its owner changes: counted once, then moved along with every commit."""

    def __init__(self) -> None:
        self._counts: tuple[Counter[Status], Counter[Status]] | None = None  # of rows, of copies
        self._has_copies = False
        self._rows = 0
        self._sharing = 0
        self._accepted: list[int] = []  # deliveries that were pending, not counted yet

    def forget(self) -> None:
        """Something changed many rows, or a transaction failed: count again when asked."""
        self._counts = None
        self._accepted.clear()

    def accepted(self, deliveries: Iterable[int]) -> None:
        """These, which were pending, are now accepted.  Only after the commit; they are counted when that matters."""
        if self._counts is not None:
            self._accepted += deliveries

    def tally(self, connection: sqlite3.Connection, *, complete: Callable[[Tally], Tally]) -> Tally:
        """Rows and copies by status, as they are committed.  Reads all of them once, later none.

        `complete` adds what the tables do not say yet.
        """
        if self._counts is None:
            self._has_copies = has_copies(connection)
            read = complete(read_tally(connection))
            self._rows, self._counts = read.rows, (Counter(read.by_status), Counter(read.copies))
            self._sharing = read.sharing
        self._count_accepted(connection)
        by_status, copies = ({status: n for status, n in counts.items() if n} for counts in self._counts)
        return Tally(self._rows, by_status, copies, self._sharing)

    def _count_accepted(self, connection: sqlite3.Connection) -> None:
        numbers, self._accepted = self._accepted, []
        if self._counts is None or not numbers:
            return
        of_copies = 0
        if self._has_copies:
            of_copies = sum(connection.execute(_IS_COPY, (number,)).fetchone()[0] for number in numbers)
        for counts, n in zip(self._counts, (len(numbers) - of_copies, of_copies), strict=True):
            counts[Status.PENDING] -= n
            counts[Status.ACCEPTED] += n

    def moves(self, connection: sqlite3.Connection, changes: Sequence[Change]) -> list[tuple[int, Status, Status]]:
        """What `changes`, made in this order in this transaction, are to be booked as."""
        if self._counts is None:
            return []
        self._count_accepted(connection)
        if not self._has_copies:
            return [(0, change.before, change.after) for change in changes]
        return [
            (connection.execute(_IS_COPY, (change.delivery,)).fetchone()[0], change.before, change.after)
            for change in changes
        ]

    def apply(self, moves: Iterable[tuple[int, Status, Status]]) -> None:
        """Books what `moves()` said.  Only after the commit."""
        if self._counts is None:
            return
        for is_copy, before, after in moves:
            self._counts[is_copy][before] -= 1
            self._counts[is_copy][after] += 1


# -- What an outbox says of the run as a whole.


@dataclass(frozen=True, slots=True)
class Header:
    """The run, its campaign (None for ready-made messages) and what is noted of it.  Times are wall-clock seconds.

    `loaded_at` is None while rows are missing, `started_at` before the first message, `ended_at` before the end.
    """

    run_id: str
    created_at: float
    loaded_at: float | None
    started_at: float | None
    ended_at: float | None
    allow_duplicates: bool
    recovered: int
    recovered_at: float | None
    campaign: Campaign | None
    info: RunInfo


_RUN = tuple[str, Moment, Moment | None, Moment | None, Moment | None, int, int, Moment | None, int]


def read_header(connection: sqlite3.Connection, name: str) -> Header:
    """The header of the outbox called `name`.  Raises `OutboxError` when it does not fit the rows."""
    run = connection.execute(
        "SELECT run_id, created_at, loaded_at, started_at, ended_at, allow_duplicates, recovered, recovered_at,"
        " row_count FROM run"
    ).fetchone()
    if run is None:
        raise damaged(name, "it does not say which run it is")
    try:
        msgspec.convert(run, _RUN)
    except msgspec.ValidationError as error:
        raise damaged(name, f"what it says of the run cannot be read: {error}") from error
    if run[2] is not None and run[-1] != (rows := count_rows(connection)):
        raise damaged(name, f"it should have {run[-1]:,} rows and has {rows:,}")
    found = connection.execute("SELECT content FROM campaign").fetchone()
    with noticing_damage(name, "what it says of the run"):
        notes = msgspec.convert(dict(connection.execute("SELECT key, value FROM setting")), dict[str, str])
        info = RunInfo.read(notes)
    with noticing_damage(name, "its campaign"):
        campaign = decode_campaign(found[0]) if found else None
    run_id, created_at, loaded_at, started_at, ended_at, allow_duplicates, recovered, recovered_at, _ = run
    return Header(
        run_id=run_id,
        created_at=created_at,
        loaded_at=loaded_at,
        started_at=started_at,
        ended_at=ended_at,
        allow_duplicates=bool(allow_duplicates),
        recovered=recovered,
        recovered_at=recovered_at,
        campaign=campaign,
        info=info,
    )
