"""How marks and outcomes are written, each only where it may follow what is there."""

from __future__ import annotations

import sqlite3
from typing import NoReturn

from bulkmail.model.delivery import Attempt, Delivery, Status, check_move, settle
from bulkmail.model.errors import IllegalMove, OutboxError
from bulkmail.model.reply import Breakage, Fault, Stage
from bulkmail.model.retry import RetryPolicy
from bulkmail.model.verdict import judge
from bulkmail.outbox.encoding import STATUS_OF, attempt_columns, storable
from bulkmail.outbox.entries import Mark, Release, Settlement

_MARK = """
    UPDATE delivery SET ending_at = ?, message_id = ?, first_at = ?, digest = ?
    WHERE id = ? AND due_at IS NOT NULL AND ending_at IS NULL AND (NOT in_doubt_before OR digest IS NULL OR digest = ?)
"""
_RELEASE = "UPDATE delivery SET ending_at = NULL WHERE id = ?"
_SETTLE = """
    UPDATE delivery
    SET status = ?, due_at = ?, ending_at = NULL, in_doubt_before = in_doubt_before OR ?, attempts = ?, tries = ?,
        first_at = coalesce(first_at, ?), stage = ?, code = ?, enhanced = ?, reply = ?, reason = ?, error = ?,
        relay = ?, last_at = ?
    WHERE id = ? AND status = ?
"""
_ATTEMPT = """
    INSERT INTO attempt
        (delivery, at, took, relay, stage, code, enhanced, text, breakage, outcome, scope, reason, counts)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_REPORT_IT = "this is a bug of bulkmail: nothing was recorded; please report it with this sentence"

Change = tuple[int, int, Status, Status]
"""Delivery, row, status before, status after."""


def write_mark(connection: sqlite3.Connection, mark: Mark, *, at: float) -> None:
    """Notes that the end of this message is about to go out.

    Raises `OutboxError` when it may not: the delivery is settled, or marked already, or was in doubt with other bytes.
    """
    changed = connection.execute(
        _MARK, (at, storable(mark.message_id), mark.first_at, mark.digest, mark.delivery_id, mark.digest)
    )
    if changed.rowcount != 1:
        _explain_refused_mark(connection, mark)


def write_release(connection: sqlite3.Connection, release: Release) -> None:
    """Takes the mark away."""
    connection.execute(_RELEASE, (release.delivery_id,))


def write_settlement(connection: sqlite3.Connection, settlement: Settlement) -> Change:
    """Stores the outcome and the try.  Raises `OutboxError` when the stored status does not allow it."""
    delivery, attempt = settlement.delivery, settlement.attempt
    found = connection.execute("SELECT status FROM delivery WHERE id = ?", (delivery.id,)).fetchone()
    if found is None:
        raise OutboxError(f"there is no delivery {delivery.id}", hint=_REPORT_IT)
    before, after = STATUS_OF[found[0]], delivery.status
    # A verdict that stops the campaign leaves an open row as it is: a try without a move.
    if not (before is after and after.is_open):
        try:
            check_move(before, after)
        except IllegalMove as error:
            raise OutboxError(f"row {delivery.row} ({delivery.forward_path}): {error}", hint=_REPORT_IT) from error
    stage, code, enhanced, text, breakage = attempt_columns(attempt)
    reply, error_text = (text, "") if breakage is None else ("", text)
    reason, relay = storable(attempt.verdict.reason), storable(attempt.relay)
    due_at = delivery.due_at if after.is_open else None
    moved = (after.value, due_at, after is Status.IN_DOUBT, delivery.attempts, delivery.tries, delivery.first_at)
    last = (stage, code, enhanced, reply, reason, error_text, relay, attempt.at + attempt.took)
    connection.execute(_SETTLE, (*moved, *last, delivery.id, before.value))
    verdict = attempt.verdict
    tried = (delivery.id, attempt.at, attempt.took, relay, stage, code, enhanced, text, breakage)
    judged = (verdict.outcome.value, verdict.scope.value, reason, verdict.counts)
    connection.execute(_ATTEMPT, (*tried, *judged))
    return delivery.id, delivery.row, before, after


def recover(connection: sqlite3.Connection, *, relay: str, now: float) -> int:
    """Puts every delivery that a crash left marked in doubt, and says how many these were.

    The try is recorded like any other that ended without an answer: it counts, and it has its line among the attempts.
    """
    marked = connection.execute(
        "SELECT id, row, forward_path, status, attempts, tries, due_at, first_at, ending_at FROM delivery"
        " WHERE ending_at IS NOT NULL ORDER BY id"
    ).fetchall()
    for number, row, path, status, attempts, tries, due_at, first_at, ending_at in marked:
        fault = Fault(Stage.END, Breakage.STOPPED, "bulkmail was ended before the server’s answer came")
        attempt = Attempt(at=ending_at, took=0.0, relay=relay, event=fault, verdict=judge(fault))
        delivery = Delivery(number, row, path, STATUS_OF[status], attempts, tries, due_at, first_at)
        settled = settle(delivery, attempt, RetryPolicy(), dice=0.0)
        write_settlement(connection, Settlement(settled, attempt))
    if marked:
        connection.execute("UPDATE run SET recovered_at = ?, recovered = recovered + ?", (now, len(marked)))
    return len(marked)


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
