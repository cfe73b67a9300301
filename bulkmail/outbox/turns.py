"""The journal of turns: what most messages leave behind is one row a commit; readers see it before it is folded."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from bulkmail.model.errors import OutboxError
from bulkmail.model.tally import Status, Tally
from bulkmail.outbox.entries import IS_COPY, AttemptRecord
from bulkmail.outbox.lookup import FoundDelivery

# -- The journal of turns: what most messages leave behind is one row a commit, folded into the tables by the hundred.
#
# A row of `turn` holds, in their order, marks, releases and acceptances of deliveries that were never tried before.  An
# entry says all that the statements of `settling` would have written.  A reader of the outbox sees journal and tables
# as one: `Outbox` folds first, a reader lays the entries over what it reads.


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


class MarkedAcceptance(NamedTuple):
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
        self.outcomes: dict[int, MarkedAcceptance] = {}

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
                self.outcomes[entry.id] = MarkedAcceptance(self.marks.pop(entry.id), entry)
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


# -- What the journal of turns says beyond the tables, for readers that may not fold it.


_OUTCOME_OF = 22  # the column of the reader's query for records that has the delivery whose outcome it gives

_IS_COPY = f"SELECT {IS_COPY.format('d')} FROM delivery AS d WHERE d.id = ?"  # noqa: S608 (our own words only)
_SHARING = f"""
    SELECT count(*) FROM part WHERE message = (
        SELECT d.row FROM delivery AS d WHERE d.id = ? AND NOT {IS_COPY.format("d")}
    )
"""  # noqa: S608 (our own words only)
_ROW = (
    "SELECT row.number, row.address, delivery.forward_path FROM delivery JOIN row ON row.number = delivery.row"
    " WHERE delivery.id = ?"
)


class Overlay:
    """The acceptances, each with its mark, that a run has committed and not folded; `has_marks`: there are others."""

    def __init__(self, turns: Turns) -> None:
        self._outcomes = turns.outcomes
        self._marks = turns.marks
        self.has_marks = bool(turns.marks)

    def __bool__(self) -> bool:
        return bool(self._outcomes)

    @property
    def accepted(self) -> Mapping[int, MarkedAcceptance]:
        """The acceptances that the tables do not know of, by delivery, in their order."""
        return self._outcomes

    def tallied(self, connection: sqlite3.Connection, tally: Tally) -> Tally:
        """The tally of the tables with these acceptances."""
        counts = Counter(tally.by_status), Counter(tally.copies)
        for number in self._outcomes:
            (is_copy,) = connection.execute(_IS_COPY, (number,)).fetchone()
            counts[is_copy][Status.PENDING] -= 1
            counts[is_copy][Status.ACCEPTED] += 1
        by_status, copies = ({status: n for status, n in each.items() if n} for each in counts)
        return replace(tally, by_status=by_status, copies=copies)

    def tallied_by_row(self, connection: sqlite3.Connection, tally: Tally) -> Tally:
        """The tally by row that the tables give, with these acceptances and the rows that share them."""
        counts = Counter(self.tallied(connection, tally).by_status)
        for number in self._outcomes:
            (sharing,) = connection.execute(_SHARING, (number,)).fetchone()
            counts[Status.PENDING] -= sharing
            counts[Status.ACCEPTED] += sharing
        return replace(self.tallied(connection, tally), by_status={status: n for status, n in counts.items() if n})

    def attempts(self, connection: sqlite3.Connection) -> list[AttemptRecord]:
        """The tries that the tables do not know of, in the order in which they ended."""
        return [
            AttemptRecord(
                row, path, a.at, a.took, a.relay, a.code, a.enhanced, Status.ACCEPTED.value, Status.ACCEPTED.value
            )
            for (_, a), (row, _, path) in self._with_rows(connection)
        ]

    def reached(self, connection: sqlite3.Connection) -> list[tuple[int, str, str]]:
        """Delivery, the row's own address and forward path of each acceptance."""
        return [(mark.id, own, path) for (mark, _), (_, own, path) in self._with_rows(connection)]

    def deliveries_with(self, message_ids: Collection[str]) -> list[int]:
        """The deliveries whose message has one of these Message-IDs, which only the journal knows."""
        wanted = frozenset(message_ids)
        marks = (*self._marks.values(), *(mark for mark, _ in self._outcomes.values()))
        return [mark.id for mark in marks if mark.message_id in wanted] if wanted else []

    def found(self, delivery: FoundDelivery) -> FoundDelivery:
        """The same as it will be found once the journal is folded."""
        outcome = self._outcomes.get(delivery.id)
        mark = outcome.mark if outcome is not None else self._marks.get(delivery.id)
        if mark is None:
            return delivery
        return delivery._replace(
            message_id=delivery.message_id or mark.message_id,
            was_sent=delivery.was_sent or outcome is not None,
            first_at=mark.first_at,
        )

    def _with_rows(self, connection: sqlite3.Connection) -> list[tuple[MarkedAcceptance, tuple[int, str, str]]]:
        return [(each, connection.execute(_ROW, (number,)).fetchone()) for number, each in self._outcomes.items()]

    def laid_over(self, columns: tuple[Any, ...]) -> tuple[Any, ...]:
        """A row of the reader's query for records, as it will be once the journal is folded."""
        outcome = self._outcomes.get(columns[_OUTCOME_OF])
        if outcome is None:
            return columns
        mark, accepted = outcome
        ready_id = columns[14]
        return (
            *columns[:8],
            Status.ACCEPTED.value,
            columns[9],
            1,
            mark.first_at,
            columns[12],
            mark.message_id,
            ready_id,
            accepted.at + accepted.took,
            accepted.relay,
            accepted.code,
            accepted.enhanced,
            accepted.text,
            None,
            Status.ACCEPTED.value,
            *columns[_OUTCOME_OF:],
        )
