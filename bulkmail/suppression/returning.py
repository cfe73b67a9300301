"""What came back, as reports, status, metrics and follow-ups ask for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bulkmail.model.feedback_event import MANY, YOUNG, FeedbackKind, IntakeState, ReturnedEvent
from bulkmail.model.suppression import SuppressionReason
from bulkmail.suppression.tables import ListConnection, among

_KIND = "CASE WHEN v.proof = 'address' AND v.counts_as <> '' THEN v.counts_as ELSE v.kind END"
_FROM = "FROM event AS v LEFT JOIN run AS r ON r.number = v.run WHERE v.proof NOT IN ('none', 'smtp')"
_RETURNED = f"SELECT {_KIND}, v.at, v.reason, v.key, v.row, v.delivery {_FROM}"
_OPTED_OUT = "v.run IS NULL AND v.kind = 'unsubscribe' AND v.list_id IN (?, '') AND v.at >= ? AND v.at < ?"
_ENTRIES = "SELECT digest, reason FROM entry WHERE (until IS NULL OR until > ?) AND reason IN"
_EVENTS = """
    SELECT v.digest, v.counts_as FROM event AS v JOIN run AS r ON r.number = v.run
    WHERE r.run_id = ? AND v.digest IS NOT NULL AND NOT v.held AND v.counts_as IN
"""


def of_run(connection: ListConnection, run_id: str) -> list[ReturnedEvent]:
    """What came back about a run, by mail and webhook, oldest first."""
    return _all(connection, f"{_RETURNED} AND r.run_id = ? ORDER BY v.at, v.id", (run_id,))


def opted_out(connection: ListConnection, list_id: str, *, since: float, to: float) -> list[ReturnedEvent]:
    """Who unsubscribed from a list, or from all, in `since <= at < to`, without a run being known; oldest first."""
    return _all(connection, f"{_RETURNED} AND {_OPTED_OUT} ORDER BY v.at, v.id", (list_id, since, to))


def known_since(
    connection: ListConnection,
    run_id: str,
    *,
    kinds: Mapping[FeedbackKind, str],
    reasons: Mapping[SuppressionReason, str],
    now: float,
) -> dict[bytes, str]:
    """The digests of addresses and domains of which something came back from the run that counts as one of these kinds,
    or which are on any list for one of these reasons at `now` (wall clock), each with the word for it.
    """
    by_kind = {kind.value: said for kind, said in kinds.items()}
    by_reason = {reason.value: said for reason, said in reasons.items()}
    entries = connection.execute(f"{_ENTRIES} {among(by_reason)}", (now, *by_reason))
    found = {bytes(digest): by_reason[reason] for digest, reason in entries}
    events = connection.execute(f"{_EVENTS} {among(by_kind)}", (run_id, *by_kind))
    return found | {bytes(digest): by_kind[kind] for digest, kind in events}


def counted(connection: ListConnection) -> dict[tuple[str, FeedbackKind], int]:
    """How much came back, by campaign and kind; an opt-out without a run has no campaign."""
    query = f"SELECT coalesce(r.campaign, ''), {_KIND}, count(*) {_FROM} GROUP BY 1, 2"
    return {(campaign, FeedbackKind(kind)): number for campaign, kind, number in connection.execute(query)}


def note_intake(connection: ListConnection, source: str, *, is_pushed: bool, now: float) -> None:
    """All that was in `source` is durable."""
    connection.execute(
        "INSERT INTO intake VALUES (?, ?, ?) ON CONFLICT (source) DO UPDATE SET at = excluded.at",
        (source, is_pushed, now),
    )


def intake_state(connection: ListConnection, *, now: float) -> IntakeState:
    """When intake last succeeded, and since when a bulk campaign waits for it."""
    last = dict(connection.execute("SELECT is_pushed, max(at) FROM intake GROUP BY is_pushed"))
    (began,) = connection.execute(
        "SELECT min(began_at) FROM run WHERE outbox <> '' AND began_at > ? AND"
        " (is_bulk OR (SELECT sum(count) FROM sent WHERE sent.run = run.number) >= ?)",
        (now - YOUNG, MANY),
    ).fetchone()
    return IntakeState(last.get(0), last.get(1), began)


def count_unmatched(connection: ListConnection) -> int:
    """How much came back and was matched to no message of ours."""
    return int(connection.execute("SELECT count(*) FROM event WHERE proof = 'none'").fetchone()[0])


def _all(connection: ListConnection, query: str, values: Sequence[Any]) -> list[ReturnedEvent]:
    found = []
    for kind, *rest in connection.execute(query, values):
        found.append(ReturnedEvent(FeedbackKind(kind), *rest))
    return found
