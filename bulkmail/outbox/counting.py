"""How many rows have come to what, kept up to date without counting again."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence

from bulkmail.model.delivery import WORST_FIRST, Status, worst
from bulkmail.model.tally import Tally
from bulkmail.outbox.encoding import STATUS_OF
from bulkmail.outbox.settling import Change

_RANK = " ".join(f"WHEN '{status.value}' THEN {rank}" for rank, status in enumerate(WORST_FIRST))
_BY_ROW = f"""
    SELECT worst, count(*) FROM (SELECT min(CASE status {_RANK} END) AS worst FROM delivery GROUP BY row)
    GROUP BY worst
"""  # noqa: S608 (our own words only)


def count_rows(connection: sqlite3.Connection) -> int:
    """The input's rows; their numbers are dense."""
    return int(connection.execute("SELECT coalesce(max(number), 0) FROM row").fetchone()[0])


def has_several_paths(connection: sqlite3.Connection) -> bool:
    """Whether some row has more than one delivery: both kinds of number are dense, and no row is without a delivery."""
    deliveries = connection.execute("SELECT coalesce(max(id), 0) FROM delivery").fetchone()[0]
    return bool(deliveries != count_rows(connection))


def count_statuses(connection: sqlite3.Connection) -> Counter[Status]:
    """Rows by status, by reading all of them."""
    if has_several_paths(connection):
        return Counter({WORST_FIRST[rank]: n for rank, n in connection.execute(_BY_ROW)})
    found = connection.execute("SELECT status, count(*) FROM delivery GROUP BY status")
    return Counter({STATUS_OF[status]: n for status, n in found})


class RunningTally:
    """The tally of an outbox that only its owner changes: counted once, then moved along with every commit."""

    def __init__(self) -> None:
        self._counts: Counter[Status] | None = None
        self._several_paths = False
        self._rows = 0

    def forget(self) -> None:
        """Something changed many rows, or a transaction failed: count again when asked."""
        self._counts = None

    def tally(self, connection: sqlite3.Connection) -> Tally:
        """Rows by status, as they are committed.  Reads all of them once, later none."""
        if self._counts is None:
            self._several_paths = has_several_paths(connection)
            self._rows = count_rows(connection)
            self._counts = count_statuses(connection)
        return Tally(self._rows, {status: n for status, n in self._counts.items() if n})

    def moves(self, connection: sqlite3.Connection, changes: Sequence[Change]) -> list[tuple[Status, Status]]:
        """What `changes`, made in this order in this transaction, mean for their rows."""
        if self._counts is None:
            return []
        if not self._several_paths:
            return [(change.before, change.after) for change in changes]
        earlier: dict[int, dict[int, Status]] = {}
        for change in changes:
            earlier.setdefault(change.row, {}).setdefault(change.delivery, change.before)
        found = []
        for row, befores in earlier.items():
            deliveries = connection.execute("SELECT id, status FROM delivery WHERE row = ?", (row,)).fetchall()
            then = {befores.get(delivery, STATUS_OF[status]) for delivery, status in deliveries}
            now = {STATUS_OF[status] for _, status in deliveries}
            found.append((worst(then), worst(now)))
        return found

    def apply(self, moves: Iterable[tuple[Status, Status]]) -> None:
        """Books what `moves()` said.  Only after the commit."""
        if self._counts is None:
            return
        for before, after in moves:
            self._counts[before] -= 1
            self._counts[after] += 1
