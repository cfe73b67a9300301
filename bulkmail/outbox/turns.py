"""The journal of turns: what most messages leave behind is one row a commit, folded into the tables by the hundred.

A row of `turn` holds, in their order, marks, releases and acceptances of deliveries that were never tried before.  An
entry says all that the statements of `settling` would have written.  A reader of the outbox sees journal and tables
as one: `Outbox` folds first, a reader lays the entries over what it reads.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
from msgspec import Struct

from bulkmail.model.errors import OutboxError

FOLD = 512
"""Acceptances after which they are folded into the tables."""

APPEND = "INSERT INTO turn (entries) VALUES (?)"
"""Writes what `encode_entries()` made behind what the table holds."""

_FOLD_ACCEPTED = """
    UPDATE delivery
    SET status = 'accepted', due_at = NULL, ending_at = NULL, attempts = attempts + 1, tries = 1, first_at = ?,
        message_id = ?, digest = ?, ending_relay = ?, last_attempt = ?
    WHERE id = ? AND status = 'pending' AND tries = 0 AND ending_at IS NULL
"""
_FOLD_MARK = """
    UPDATE delivery SET ending_at = ?, first_at = ?, message_id = ?, digest = ?, ending_relay = ?
    WHERE id = ? AND status = 'pending' AND tries = 0 AND ending_at IS NULL
"""
_ATTEMPT = "INSERT INTO attempt VALUES (?, ?, ?, ?, ?, 'end', ?, ?, ?, NULL, 'accepted', 'recipient', 'accepted', 1)"


class Marked(Struct, frozen=True, array_like=True, tag=0):
    """The end of the message of this delivery is about to be written; `at` is wall-clock seconds, as all times here."""

    id: int
    at: float
    first_at: float
    message_id: str
    digest: bytes
    relay: str


class Released(Struct, frozen=True, array_like=True, tag=1):
    """It was not written after all."""

    id: int


class Accepted(Struct, frozen=True, array_like=True, tag=2):
    """The message of a marked delivery was accepted with these words, by a try that began `at` and took seconds."""

    id: int
    at: float
    took: float
    relay: str
    code: int
    enhanced: str
    text: str


Entry = Marked | Released | Accepted

encode_entries = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Entry]).decode


class Outcome(NamedTuple):
    """An acceptance with the mark that it answers."""

    mark: Marked
    accepted: Accepted


class Turns:
    """The entries of `turn` that are not folded yet: `marks` by delivery, and `outcomes` in their order.

    What is kept here is what the table holds, as of the last commit.  Every method works inside the caller's
    transaction; after one that failed, `read()` makes a new one.
    """

    def __init__(self) -> None:
        self.marks: dict[int, Marked] = {}
        self.outcomes: dict[int, Outcome] = {}

    @classmethod
    def read(cls, connection: sqlite3.Connection) -> Turns:
        """What the table holds.  Raises `msgspec.DecodeError` where it is damaged."""
        turns = cls()
        for (entries,) in connection.execute("SELECT entries FROM turn ORDER BY id"):
            turns.note(_decode(entries))
        return turns

    def __bool__(self) -> bool:
        return bool(self.marks or self.outcomes)

    def note(self, entries: Iterable[Entry]) -> None:
        """These follow what there is."""
        for entry in entries:
            if isinstance(entry, Marked):
                self.marks[entry.id] = entry
            elif isinstance(entry, Accepted):
                self.outcomes[entry.id] = Outcome(self.marks.pop(entry.id), entry)
            else:
                self.marks.pop(entry.id, None)

    def append(self, connection: sqlite3.Connection, entries: list[Entry]) -> None:
        """Writes these, which were noted already, behind what the table holds."""
        connection.execute(APPEND, (encode_entries(entries),))

    def fold(self, connection: sqlite3.Connection, *, attempts: int) -> int:
        """Moves the outcomes into the tables; the marks stay.  `attempts` is the last id there; returns the new one.

        Raises `OutboxError` when a delivery is not as it was when it was marked.
        """
        outcomes = list(self.outcomes.values())
        moves, tries = [], []
        for number, (mark, accepted) in enumerate(outcomes, attempts + 1):
            moves.append((mark.first_at, mark.message_id, mark.digest, mark.relay, number, mark.id))
            said = (accepted.relay, accepted.code, accepted.enhanced, accepted.text)
            tries.append((number, mark.id, accepted.at, accepted.took, *said))
        if outcomes:
            _change(connection, _FOLD_ACCEPTED, moves)
            connection.executemany(_ATTEMPT, tries)
            self.outcomes.clear()
        self._rewrite(connection)
        return attempts + len(outcomes)

    def put_down(self, connection: sqlite3.Connection, mark: Marked) -> None:
        """Moves this mark, which is no longer in `marks`, into the table of deliveries."""
        _change(connection, _FOLD_MARK, [_mark_columns(mark)])

    def put_down_all(self, connection: sqlite3.Connection) -> None:
        """Moves all marks into the table of deliveries, so that nothing is left in the journal."""
        if self.marks:
            _change(connection, _FOLD_MARK, [_mark_columns(mark) for mark in self.marks.values()])
            self.marks.clear()
        self._rewrite(connection)

    def _rewrite(self, connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM turn")
        if self:
            self.append(connection, [*self.marks.values()])


def _mark_columns(mark: Marked) -> tuple[object, ...]:
    return (mark.at, mark.first_at, mark.message_id, mark.digest, mark.relay, mark.id)


def _change(connection: sqlite3.Connection, statement: str, values: Sequence[tuple[object, ...]]) -> None:
    if connection.executemany(statement, values).rowcount != len(values):
        raise OutboxError(
            "the outbox's journal names deliveries that were not as it left them",
            hint="this is a bug of bulkmail: nothing was recorded; please report it with this sentence",
        )
