"""What a person may decide about rows that sending is through with, or should be."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Mapping, Sequence

from bulkmail.model.delivery import check_move
from bulkmail.model.status import Status
from bulkmail.outbox.encoding import storable
from bulkmail.outbox.entries import Doubtful

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
