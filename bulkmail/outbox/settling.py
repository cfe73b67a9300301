"""How marks, outcomes and decisions of a person are written, each only where it may follow what is there."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from itertools import product
from typing import NamedTuple, NoReturn

from bulkmail.model.delivery import (
    AttemptResult,
    Delivery,
    Invalidation,
    Job,
    Mark,
    PutBack,
    Settlement,
    Written,
    check_move,
    settle,
)
from bulkmail.model.errors import IllegalMove, OutboxError
from bulkmail.model.outcome import Breakage, Fault, Reply, Stage
from bulkmail.model.retry import RetryPolicy
from bulkmail.model.tally import Status
from bulkmail.model.verdict import judge
from bulkmail.outbox.entries import STATUS_OF, Doubtful, Fold, attempt_columns, storable
from bulkmail.outbox.sqlite_file import OutboxFile, explained
from bulkmail.outbox.turns import APPEND, FOLD, Accepted, Marked, MarkedAcceptance, Released, Turns, encode_entries

# -- What a person may decide about rows that sending is through with, or should be.


_LAST_AT = "(SELECT at + took FROM attempt WHERE attempt.id = last_attempt)"
# Patience begins again.  A row that certainly was not delivered also gets a new Date; one that was in doubt keeps Date,
# Message-ID and digest, so that what is sent again is the same to the byte.
_TO_PENDING = f"""
    due_at = CASE WHEN :wait > 0 THEN coalesce({_LAST_AT}, 0.0) + :wait ELSE 0.0 END, attempts = 0, reason = '',
    first_at = CASE WHEN in_doubt_before THEN first_at END, digest = CASE WHEN in_doubt_before THEN digest END
"""
_TO_SETTLED = "due_at = NULL, reason = :reason"

# Copies of a message, whose ids follow one another, share its Message-ID, and so may ready-made messages that a program
# hands over twice.
# A row that is to be tried again is as doubtful as before until the end of its new message is about to go out.
_IS_DOUBTFUL = "(status = 'in_doubt' OR in_doubt_before AND due_at IS NOT NULL) AND ending_at IS NULL"
_DOUBTS = f"""
    WITH named AS (
        SELECT d.*, coalesce(nullif(r.message_id, ''), d.message_id) AS known_id
        FROM delivery AS d JOIN row AS r ON r.number = d.row
    )
    SELECT id, row, forward_path, known_id, due_at IS NOT NULL,
           NOT EXISTS (SELECT 1 FROM delivery AS other WHERE other.id IN (named.id - 1, named.id + 1)
                       AND other.row = named.row)
           AND (known_id NOT IN (SELECT message_id FROM row WHERE message_id <> '' GROUP BY message_id
                                   HAVING count(*) > 1))
    FROM named WHERE {_IS_DOUBTFUL} ORDER BY id
"""  # noqa: S608 (our own words only)
_FOUND = f"UPDATE delivery SET status = 'accepted', due_at = NULL, reason = ? WHERE id = ? AND {_IS_DOUBTFUL}"  # noqa: S608


def dated(said: str) -> str:
    """What was said of a row, with the time of now in UTC."""
    return f"{said} on {time.strftime('%Y-%m-%d at %H:%M', time.gmtime())} UTC"


def doubts(connection: sqlite3.Connection) -> list[Doubtful]:
    """What is in doubt, or was and is to be sent again, in the order of the input."""
    return [
        Doubtful(number, row, path, message_id, is_alone=bool(is_alone), is_retried=bool(is_retried))
        for number, row, path, message_id, is_retried, is_alone in connection.execute(_DOUBTS)
    ]


def settle_found(connection: sqlite3.Connection, found: Mapping[int, str]) -> int:
    """Those that `doubts()` names (id → where it was found) become ACCEPTED; says how many there were."""
    check_move(Status.IN_DOUBT, Status.ACCEPTED, by_operator=True)
    return sum(connection.execute(_FOUND, (dated(storable(place)), each)).rowcount for each, place in found.items())


def move_all(
    connection: sqlite3.Connection,
    before: Status,
    after: Status,
    *,
    reason: str = "",
    wait: float = 0.0,
    rows: Sequence[range] | None = None,
) -> int:
    """Moves every delivery from `before` to `after` and says how many there were.  Raises `IllegalMove`.

    `reason` is recorded with a settled one; a pending one is due `wait` seconds after its last sign of life.  What is
    marked stays.  With `rows` only the deliveries of those rows move.
    """
    check_move(before, after, by_operator=True)
    changes = _TO_PENDING if after is Status.PENDING else _TO_SETTLED
    statement = f"UPDATE delivery SET status = :after, {changes} WHERE status = :before AND ending_at IS NULL"  # noqa: S608
    values = {"before": before.value, "after": after.value, "reason": reason, "wait": wait}
    if rows is None:
        changed = connection.execute(statement, values).rowcount
    else:
        changed = sum(
            connection.execute(
                f"{statement} AND row BETWEEN :first AND :last", {**values, "first": each.start, "last": each.stop - 1}
            ).rowcount
            for each in rows
        )
    if after is Status.PENDING and changed:
        connection.execute("UPDATE run SET ended_at = NULL")
    return changed


def put_back(connection: sqlite3.Connection, deliveries: Collection[int]) -> list[tuple[int, int]]:
    """Makes those of these deliveries pending that are rejected, and says which: the id and the row of each."""
    check_move(Status.REJECTED, Status.PENDING, by_operator=True)
    moved = f"UPDATE delivery SET status = 'pending', {_TO_PENDING}"  # noqa: S608
    statement = f"{moved} WHERE id = :id AND status = 'rejected' RETURNING id, row"
    found = (connection.execute(statement, {"id": each, "wait": 0.0}).fetchall() for each in deliveries)
    return [(number, row) for rows in found for number, row in rows]


# -- How marks and outcomes are written, each only where it may follow what is there.


_MARK = """
    UPDATE delivery SET ending_at = ?, message_id = ?, first_at = ?, digest = ?, ending_relay = ?
    WHERE id = ? AND due_at IS NOT NULL AND ending_at IS NULL AND (NOT in_doubt_before OR digest IS NULL OR digest = ?)
"""
_RELEASE = "UPDATE delivery SET ending_at = NULL WHERE id = ?"
_SETTLE = """
    UPDATE delivery
    SET status = ?, due_at = ?, ending_at = NULL, in_doubt_before = in_doubt_before OR ?, attempts = ?, tries = ?,
        first_at = coalesce(first_at, ?), last_attempt = ?
    WHERE id = ? AND status = ?
"""
_ATTEMPT = "INSERT INTO attempt VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PENDING = "SELECT id FROM delivery WHERE row = ? AND status = 'pending' AND ending_at IS NULL"
_INVALIDATE = "UPDATE delivery SET status = 'invalid', due_at = NULL, reason = ? WHERE id = ?"
_REPORT_IT = "this is a bug of bulkmail: nothing was recorded; please report it with this sentence"


class Change(NamedTuple):
    """What became of one delivery.  A tuple because one is made for every message."""

    delivery: int
    row: int
    before: Status
    after: Status


class Settler:
    """Writes marks, releases and outcomes inside the caller's transaction, and remembers what saves it looking up.

    Nothing hangs on that memory: every statement also says in its WHERE what it takes for granted.  After a transaction
    that failed, or a change that it did not make, it must `forget()`.
    """

    def __init__(self) -> None:
        self._statuses: dict[int, Status] = {}
        self._fresh: set[int] = set()  # of the known deliveries, those that were never tried
        self._attempts: int | None = None
        self._turns: Turns | None = None

    def forget(self) -> None:
        """The stored statuses and attempts, and the journal, are not what they were."""
        self._statuses.clear()
        self._fresh.clear()
        self._attempts = None
        self._turns = None

    def know(self, jobs: Iterable[Job]) -> None:
        """These were read just now and are likely to be settled next."""
        for job in jobs:
            delivery = job.delivery
            self._statuses[delivery.id] = delivery.status
            if delivery.status is Status.PENDING and not delivery.tries and not job.in_doubt_before:
                self._fresh.add(delivery.id)
            else:
                self._fresh.discard(delivery.id)

    @property
    def has_outcomes(self) -> bool:
        """Whether some acceptance waits in the journal to be folded."""
        return self._turns is not None and bool(self._turns.outcomes)

    def claimed(self, connection: sqlite3.Connection) -> Set[int]:
        """The deliveries that only the journal knows to be marked, or to have an outcome."""
        turns = self.journal(connection)
        return turns.marks.keys() | turns.outcomes.keys()

    def has_turns(self, connection: sqlite3.Connection) -> bool:
        """Whether the journal says something that the tables do not."""
        return bool(self.journal(connection))

    def settle_turns(self, connection: sqlite3.Connection) -> None:
        """Moves all that the journal says into the tables, marks too."""
        turns = self.journal(connection)
        if turns:
            self._fold(connection, turns)
            turns.put_down_all(connection)

    def fold(self, connection: sqlite3.Connection) -> None:
        """Moves the acceptances of the journal into the tables."""
        turns = self.journal(connection)
        if turns.outcomes:
            self._fold(connection, turns)

    def _fold(self, connection: sqlite3.Connection, turns: Turns) -> None:
        if self._attempts is None:
            self._attempts = _last_attempt(connection)
        self._attempts = turns.fold(connection, attempts=self._attempts)

    def journal(self, connection: sqlite3.Connection) -> Turns:
        """What the tables do not say yet."""
        if self._turns is None:
            self._turns = Turns.read(connection)
        return self._turns

    def append(self, store: OutboxFile, entries: Sequence[Written | Fold], *, now: float) -> Collection[int] | None:
        """What `write()` does of plain entries that need no fold, in a single statement, which is a transaction.

        Plain are marks of deliveries never tried, and acceptances of those that the journal has marked.  Returns the
        deliveries accepted; None, and nothing is done, where another entry is among them.  No delivery is named twice.
        """
        turns, fresh = self._turns, self._fresh
        if turns is None or len(turns.outcomes) + len(entries) >= FOLD:
            return None
        marks = turns.marks
        new: list[Marked | Released | Accepted] = []
        marked: list[Marked] = []
        outcomes: dict[int, MarkedAcceptance] = {}
        for entry in entries:
            if entry.__class__ is Mark:
                number, message_id = entry.delivery_id, entry.message_id
                if number not in fresh:
                    return None
                if not message_id.isascii():
                    message_id = storable(message_id)
                mark = Marked(number, now, entry.first_at, message_id, entry.digest, entry.relay)
                marked.append(mark)
                new.append(mark)
            elif entry.__class__ is Settlement:
                number = entry.delivery.id
                if number not in marks or entry.delivery.status is not Status.ACCEPTED:
                    return None
                accepted = _accepted(entry.attempt, number)
                outcomes[number] = MarkedAcceptance(marks[number], accepted)
                new.append(accepted)
            else:
                return None
        try:
            store.connection.execute(APPEND, (encode_entries(new),))
        except sqlite3.Error as error:
            raise explained(error, store.name) from error
        for mark in marked:
            fresh.discard(mark.id)
            marks[mark.id] = mark
        for number in outcomes:
            del marks[number]
            self._statuses.pop(number, None)
        turns.outcomes.update(outcomes)
        return outcomes.keys()

    def write(self, connection: sqlite3.Connection, entries: Iterable[Written | Fold], *, now: float) -> list[Change]:
        """All entries, in order.  Raises `OutboxError` for one that may not follow what is stored."""
        changes: list[Change] = []
        turns = self.journal(connection)
        new: list[Marked | Released | Accepted] = []  # for the journal, unless it is folded
        is_folding = False
        for entry in entries:
            if isinstance(entry, Settlement):
                number = entry.delivery.id
                mark = turns.marks.pop(number, None)
                if mark is not None and entry.delivery.status is Status.ACCEPTED:
                    accepted = _accepted(entry.attempt, number)
                    turns.outcomes[number] = MarkedAcceptance(mark, accepted)
                    new.append(accepted)
                    self._statuses.pop(number, None)
                    changes.append(Change(number, entry.delivery.row, Status.PENDING, Status.ACCEPTED))
                    continue
                is_folding = True
                self._fold(connection, turns)  # first, so that tries stand in the order in which they ended
                if mark is not None:
                    turns.put_down(connection, mark)
                changes.append(self._settle(connection, entry))
            elif isinstance(entry, Mark):
                if entry.delivery_id not in self._fresh:
                    if entry.delivery_id in turns.marks or entry.delivery_id in turns.outcomes:
                        self.settle_turns(connection)  # the table says why it may not be marked
                    self._mark(connection, entry, at=now)
                    continue
                self._fresh.discard(entry.delivery_id)
                message_id = entry.message_id if entry.message_id.isascii() else storable(entry.message_id)
                mark = Marked(entry.delivery_id, now, entry.first_at, message_id, entry.digest, entry.relay)
                turns.marks[mark.id] = mark
                new.append(mark)
            elif isinstance(entry, Fold):
                is_folding = True
            elif isinstance(entry, PutBack):
                is_folding = True
                self._fold(connection, turns)
                for number, row in put_back(connection, entry.deliveries):
                    self._statuses.pop(number, None)
                    self._fresh.discard(number)
                    changes.append(Change(number, row, Status.REJECTED, Status.PENDING))
            elif isinstance(entry, Invalidation):
                is_folding = True
                self.settle_turns(connection)  # a copy whose mark only the journal knows is not pending any more
                changes += self._invalidate(connection, entry)
            elif turns.marks.pop(entry.delivery_id, None) is not None:
                new.append(Released(entry.delivery_id))
            else:
                connection.execute(_RELEASE, (entry.delivery_id,))
        if is_folding or len(turns.outcomes) >= FOLD:
            self._fold(connection, turns)
        elif new:
            turns.append(connection, new)
        return changes

    def _mark(self, connection: sqlite3.Connection, mark: Mark, *, at: float) -> None:
        """Notes that the end of this message is about to go out.

        Raises `OutboxError` when it may not: the delivery is settled, or marked, or was in doubt with other bytes.
        """
        changed = connection.execute(
            _MARK,
            (at, storable(mark.message_id), mark.first_at, mark.digest, mark.relay, mark.delivery_id, mark.digest),
        )
        if changed.rowcount != 1:
            _explain_refused_mark(connection, mark)

    def _settle(self, connection: sqlite3.Connection, settlement: Settlement) -> Change:
        """Stores the outcome and the try.  Raises `OutboxError` for an illegal move."""
        delivery, after = settlement.delivery, settlement.delivery.status
        self._fresh.discard(delivery.id)
        before = self._statuses.pop(delivery.id, None) or _stored_status(connection, delivery.id)
        if (before._value_, after._value_) not in _LEGAL:
            _explain_refused_move(before, after, delivery)
        is_open = after.is_open
        number = self._next_attempt(connection)
        due_at = delivery.due_at if is_open else None
        moved = (after._value_, due_at, after is Status.IN_DOUBT, delivery.attempts, delivery.tries, delivery.first_at)
        changed = connection.execute(_SETTLE, (*moved, number, delivery.id, before._value_))
        if changed.rowcount != 1:
            raise OutboxError(
                f"row {delivery.row} ({delivery.forward_path}) is no longer {before.value}", hint=_REPORT_IT
            )
        connection.execute(_ATTEMPT, (number, delivery.id, *attempt_columns(settlement.attempt)))
        return Change(delivery.id, delivery.row, before, after)

    def _invalidate(self, connection: sqlite3.Connection, entry: Invalidation) -> list[Change]:
        """What is pending of the row becomes invalid.  Raises `OutboxError` when this delivery is neither."""
        check_move(Status.PENDING, Status.INVALID)
        found = [number for (number,) in connection.execute(_PENDING, (entry.row,))]
        reason = storable(entry.reason)
        connection.executemany(_INVALIDATE, [(reason, number) for number in found])
        for number in found:
            self._statuses.pop(number, None)
            self._fresh.discard(number)
        if entry.delivery_id not in found:  # another path of the row may have said so already
            before = _stored_status(connection, entry.delivery_id)
            if before is not Status.INVALID:
                raise OutboxError(f"row {entry.row} is {before.value} and cannot become invalid", hint=_REPORT_IT)
        return [Change(number, entry.row, Status.PENDING, Status.INVALID) for number in found]

    def _next_attempt(self, connection: sqlite3.Connection) -> int:
        if self._attempts is None:
            self._attempts = _last_attempt(connection)
        self._attempts += 1
        return self._attempts

    def recover(self, connection: sqlite3.Connection, *, relay: str, now: float) -> int:
        """Puts every delivery that a crash left marked in doubt, and says how many these were.

        The try is recorded like any other that ended without an answer: it counts, and has its line among the attempts.
        """
        self.settle_turns(connection)
        marked = connection.execute(
            "SELECT id, row, forward_path, status, attempts, tries, due_at, first_at, ending_at, ending_relay"
            " FROM delivery"
            " WHERE ending_at IS NOT NULL ORDER BY id"
        ).fetchall()
        settlements = []
        for number, row, path, status, attempts, tries, due_at, first_at, ending_at, ending_relay in marked:
            fault = Fault(Stage.END, Breakage.STOPPED, "bulkmail was ended before the server’s answer came")
            attempt = AttemptResult(
                at=ending_at, took=0.0, relay=ending_relay or relay, event=fault, verdict=judge(fault)
            )
            delivery = Delivery(number, row, path, STATUS_OF[status], attempts, tries, due_at, first_at)
            settlements.append(Settlement(settle(delivery, attempt, RetryPolicy(), jitter=0.0), attempt))
        self.write(connection, settlements, now=now)
        if marked:
            connection.execute("UPDATE run SET recovered_at = ?, recovered = recovered + ?", (now, len(marked)))
        return len(marked)


def _last_attempt(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(id), 0) FROM attempt").fetchone()[0])


def _accepted(attempt: AttemptResult, number: int) -> Accepted:
    reply = attempt.event
    assert isinstance(reply, Reply)  # noqa: S101 - nothing else accepts a message
    relay, enhanced, text = attempt.relay, reply.enhanced, reply.text
    if not (relay.isascii() and text.isascii()):
        relay, text = storable(relay), storable(text)
    return Accepted(number, attempt.at, attempt.took, relay, reply.code, enhanced, text)


def _is_legal(before: Status, after: Status) -> bool:
    if before is after and after.is_open:
        return True  # a verdict that stops the campaign leaves an open row as it is: a try without a move
    try:
        check_move(before, after)
    except IllegalMove:
        return False
    return True


# Asked for every message, so answered once.  Enum._value_, because in CPython 3.11 hashing an Enum is a call, and
# .value another that costs as much as binding four columns.
_LEGAL = {(before._value_, after._value_) for before, after in product(Status, repeat=2) if _is_legal(before, after)}


def _explain_refused_move(before: Status, after: Status, delivery: Delivery) -> NoReturn:
    what = f"row {delivery.row} ({delivery.forward_path})"
    try:
        check_move(before, after)
    except IllegalMove as error:
        raise OutboxError(f"{what}: {error}", hint=_REPORT_IT) from error
    raise AssertionError(what)


def _stored_status(connection: sqlite3.Connection, number: int) -> Status:
    found = connection.execute("SELECT status FROM delivery WHERE id = ?", (number,)).fetchone()
    if found is None:
        raise OutboxError(f"there is no delivery {number}", hint=_REPORT_IT)
    return STATUS_OF[found[0]]


def _explain_refused_mark(connection: sqlite3.Connection, mark: Mark) -> NoReturn:
    found = connection.execute(
        "SELECT row, forward_path, status, ending_at FROM delivery WHERE id = ?", (mark.delivery_id,)
    ).fetchone()
    if found is None:
        raise OutboxError(f"there is no delivery {mark.delivery_id}", hint=_REPORT_IT)
    row, path, status, ending_at = found
    if not STATUS_OF[status].is_open:
        raise OutboxError(f"row {row} ({path}) is {status} and cannot be sent to", hint=_REPORT_IT)
    if ending_at is not None:
        raise OutboxError(f"row {row} ({path}) is being sent to already", hint=_REPORT_IT)
    raise OutboxError(
        f"row {row} ({path}) was in doubt, and what would be sent now is not the same message: a second copy could not"
        " be recognised as one",
        hint="settle it by hand: bulkmail resume RUN --in-doubt accepted (or rejected)",
    )
