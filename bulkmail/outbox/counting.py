"""How many rows and copies have come to what, kept up to date without counting again."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from bulkmail.model.status import Status
from bulkmail.model.tally import Tally
from bulkmail.outbox.encoding import STATUS_OF
from bulkmail.outbox.settling import Change

# A row's deliveries follow one another, its own recipient first, and ids are dense.
IS_COPY = "EXISTS (SELECT 1 FROM delivery AS before WHERE before.id = {0}.id - 1 AND before.row = {0}.row)"
"""Whether a delivery goes to another address of its row than the recipient's own; to be formatted with its alias."""

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
