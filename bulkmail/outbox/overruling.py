"""What a person may decide about rows that sending is through with, or should be."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from bulkmail.model.delivery import Status, check_move

_LAST_AT = "(SELECT at + took FROM attempt WHERE attempt.id = last_attempt)"
# Patience begins anew.  A row that certainly was not delivered also gets a new Date; one that was in doubt keeps Date,
# Message-ID and digest, so that what is sent again is the same to the octet.
_TO_PENDING = f"""
    due_at = CASE WHEN :wait > 0 THEN coalesce({_LAST_AT}, 0.0) + :wait ELSE 0.0 END, attempts = 0, reason = '',
    first_at = CASE WHEN in_doubt_before THEN first_at END, digest = CASE WHEN in_doubt_before THEN digest END
"""
_TO_SETTLED = "due_at = NULL, reason = :reason"


def move_all(
    connection: sqlite3.Connection, before: Status, after: Status, *, reason: str = "", wait: float = 0.0
) -> int:
    """Moves every delivery from `before` to `after` and says how many there were.  Raises `IllegalMove`.

    `reason` is recorded with a settled one; a pending one is due `wait` seconds after its last sign of life.  What is
    marked stays.
    """
    check_move(before, after, by_operator=True)
    changes = _TO_PENDING if after is Status.PENDING else _TO_SETTLED
    changed = connection.execute(
        f"UPDATE delivery SET status = :after, {changes} WHERE status = :before AND ending_at IS NULL",  # noqa: S608
        {"before": before.value, "after": after.value, "reason": reason, "wait": wait},
    )
    if after is Status.PENDING and changed.rowcount:
        connection.execute("UPDATE run SET ended_at = NULL")
    return changed.rowcount


def put_back(connection: sqlite3.Connection, deliveries: Collection[int]) -> int:
    """Makes those of these deliveries pending that are rejected, and says how many they were."""
    check_move(Status.REJECTED, Status.PENDING, by_operator=True)
    statement = f"UPDATE delivery SET status = 'pending', {_TO_PENDING} WHERE id = :id AND status = 'rejected'"  # noqa: S608
    return sum(connection.execute(statement, {"id": each, "wait": 0.0}).rowcount for each in deliveries)
