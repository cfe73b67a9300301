"""What an event does to the list, inside the transaction that keeps it."""

# ruff: noqa: S608 - statements are put together of our own words; values are always bound

from __future__ import annotations

from typing import NamedTuple

from bulkmail.model.feedback_event import FeedbackKind, Proof
from bulkmail.model.suppression import (
    ALL_LISTS,
    CONFIRMED_AFTER,
    MISTAKE_LEAST,
    MISTAKE_WINDOW,
    SoftBounce,
    SuppressionEntry,
    SuppressionReason,
    SuppressionRules,
    is_provider_mistake,
    soft_until,
)
from bulkmail.suppression.tables import ListConnection

_PUT = """
    INSERT INTO entry (digest, scope, reason, key, since, until, event, note, seq) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (digest, scope, reason) DO UPDATE SET
        key = CASE entry.key WHEN '' THEN excluded.key ELSE entry.key END,
        since = excluded.since, until = excluded.until, event = excluded.event, note = excluded.note, seq = excluded.seq
"""
_CHANGE = "INSERT INTO change (at, digest, what, reason, scope, why, who) VALUES (?, ?, ?, ?, ?, ?, ?)"


def put(connection: ListConnection, entry: SuppressionEntry, *, why: str, who: str, now: float) -> bool:
    """Puts `entry` on the list, with its change; False for one that is there and lasts as long."""
    found = connection.execute(
        "SELECT until FROM entry WHERE digest = ? AND scope = ? AND reason = ?",
        (entry.digest, entry.scope, entry.reason.value),
    ).fetchone()
    if found is not None:
        lasts = float("inf") if found[0] is None else found[0]
        if lasts >= (float("inf") if entry.until is None else entry.until):
            return False
    change = (now, entry.digest, "added", entry.reason.value, entry.scope, why, who)
    (seq,) = connection.execute(f"{_CHANGE} RETURNING seq", change).fetchone()
    connection.execute(
        _PUT,
        (
            entry.digest,
            entry.scope,
            entry.reason.value,
            entry.key,
            entry.since,
            entry.until,
            entry.event,
            entry.note,
            seq,
        ),
    )
    return found is None or found[0] <= now


class StoredAction(NamedTuple):
    """What is kept of an event that may act; `counts_as` is empty for one that does not."""

    number: int
    counts_as: str
    digest: bytes
    key: str
    at: float
    proof: str
    list_id: str
    run: int | None
    provider: str


def act(connection: ListConnection, event: StoredAction, rules: SuppressionRules, *, now: float) -> None:
    """Does what `event`, just stored, asks for."""
    number, counts_as, digest, key, at, proof, list_id, run, provider = event
    if not counts_as:
        return
    kind = FeedbackKind(counts_as)

    def suppress(reason: SuppressionReason, *, scope: str = ALL_LISTS, until: float | None = None) -> None:
        entry = SuppressionEntry(digest, key, reason, at, scope, until, number)
        put(connection, entry, why="", who=f"event {number}", now=now)

    if kind is FeedbackKind.UNSUBSCRIBE:
        suppress(SuppressionReason.UNSUBSCRIBE, scope=list_id)
        return
    since = _removed_at(connection, digest)
    if at <= since:
        return  # it was known, or on its way, when a person took the address off the list
    if kind is FeedbackKind.SPAM_COMPLAINT:
        suppress(SuppressionReason.SPAM_COMPLAINT)
    elif kind is FeedbackKind.HARD:
        if _is_held(connection, number, provider=provider, run=run, digest=digest, proof=Proof(proof), at=at, now=now):
            return
        if rules.hard and _hard_bounces(connection, digest, since) >= rules.hard:
            suppress(SuppressionReason.HARD)
    elif kind is FeedbackKind.SOFT and rules.soft is not None:
        if not Proof(proof).is_proved and _is_one_of_many(connection, number, digest=digest, run=run):
            return
        is_reached, until = soft_until(
            _soft_bounces(connection, digest, since, counts_unproved=rules.counts_unproved),
            [when for (when,) in connection.execute("SELECT at FROM reached WHERE digest = ?", (digest,))],
            rules.soft,
            now=now,
        )
        if is_reached:
            suppress(SuppressionReason.SOFT, until=until)


def _removed_at(connection: ListConnection, digest: bytes) -> float:
    """When a person last took the address off the list; 0 for never."""
    query = "SELECT coalesce(max(at), 0) FROM change WHERE digest = ? AND what = 'removed'"
    return float(connection.execute(query, (digest,)).fetchone()[0])


def _hard_bounces(connection: ListConnection, digest: bytes, since: float) -> int:
    query = "SELECT count(*) FROM event WHERE digest = ? AND counts_as = 'hard' AND NOT held AND at > ?"
    return int(connection.execute(query, (digest, since)).fetchone()[0])


def _is_one_of_many(connection: ListConnection, number: int, *, digest: bytes, run: int | None) -> bool:
    """Whether its run has an unproved report about the address already: no need to count a flood of them each time."""
    query = "SELECT 1 FROM event WHERE digest = ? AND run = ? AND proof = 'address' AND id < ? LIMIT 1"
    return connection.execute(query, (digest, run, number)).fetchone() is not None


def _soft_bounces(
    connection: ListConnection, digest: bytes, since: float, *, counts_unproved: bool
) -> list[SoftBounce]:
    query = "SELECT at, run, proof FROM event WHERE digest = ? AND counts_as = 'soft' AND at > ?"
    found = (
        SoftBounce(at, run, Proof(proof).is_proved) for at, run, proof in connection.execute(query, (digest, since))
    )
    return [bounce for bounce in found if bounce.is_proved or counts_unproved]


# A provider's mistake ------------------------------------------------------------------------------------------------


def _is_held(
    connection: ListConnection,
    number: int,
    *,
    provider: str,
    run: int | None,
    digest: bytes,
    proof: Proof,
    at: float,
    now: float,
) -> bool:
    """Whether this hard bounce looks like a provider's mistake, so that it is kept as unclear.

    The one that shows it takes those of the last hour with it, and the entries that they made.
    """
    if run is None:
        return False
    known = connection.execute("SELECT 1 FROM mistake WHERE run = ? AND provider = ?", (run, provider)).fetchone()
    if known is None and not _looks_like_mistake(connection, provider=provider, run=run, proof=proof, at=at):
        return False
    if known is None:
        connection.execute("INSERT INTO mistake VALUES (?, ?, ?)", (run, provider, at))
        _hold_back(connection, provider=provider, run=run, after=at - MISTAKE_WINDOW, now=now)
    if _is_confirmed(connection, number, digest=digest, run=run, at=at):
        connection.execute("UPDATE event SET kind = 'hard', held = FALSE WHERE id = ?", (number,))
        return False
    connection.execute("UPDATE event SET kind = 'unclear', held = TRUE WHERE id = ?", (number,))
    return True


def _looks_like_mistake(connection: ListConnection, *, provider: str, run: int, proof: Proof, at: float) -> bool:
    (hard,) = connection.execute(
        "SELECT count(*) FROM event WHERE provider = ? AND run = ? AND kind = 'hard' AND at > ? AND at <= ?",
        (provider, run, at - MISTAKE_WINDOW, at),
    ).fetchone()
    if hard <= MISTAKE_LEAST:
        return False
    # What comes back by mail is spread over the hours after the sending: there the whole run is what it is a share of.
    after = int(at - MISTAKE_WINDOW) if proof is Proof.SMTP else 0
    (sent,) = connection.execute(
        "SELECT coalesce(sum(count), 0) FROM sent WHERE provider = ? AND run = ? AND slot + 600 > ?",
        (provider, run, after),
    ).fetchone()
    (usual_sent,) = connection.execute(
        "SELECT coalesce(sum(count), 0) FROM sent WHERE provider = ? AND run < ?", (provider, run)
    ).fetchone()
    (usual_hard,) = connection.execute(
        "SELECT count(*) FROM event WHERE provider = ? AND run < ? AND kind = 'hard'", (provider, run)
    ).fetchone()
    return is_provider_mistake(hard, int(sent), usual_hard=usual_hard, usual_sent=int(usual_sent))


def _hold_back(connection: ListConnection, *, provider: str, run: int, after: float, now: float) -> None:
    """The hard bounces of the last hour are unclear, too, and what they put on the list comes off."""
    chosen = "SELECT id FROM event WHERE provider = ? AND run = ? AND kind = 'hard' AND at > ?"
    values = (provider, run, after)
    taken = connection.execute(
        f"DELETE FROM entry WHERE event IN ({chosen}) AND reason = 'hard' RETURNING digest, reason, scope",
        values,
    ).fetchall()
    why = f"{provider} refused more addresses than can be true"
    connection.executemany(_CHANGE, [(now, digest, "held", reason, scope, why, "") for digest, reason, scope in taken])
    connection.execute(f"UPDATE event SET kind = 'unclear', held = TRUE WHERE id IN ({chosen})", values)


def _is_confirmed(connection: ListConnection, number: int, *, digest: bytes, run: int, at: float) -> bool:
    """Whether a run of another day had the address refused as well, so that two campaigns say the same."""
    query = """
        SELECT 1 FROM event WHERE digest = ? AND id <> ? AND run <> ? AND (held OR kind = 'hard') AND at < ? LIMIT 1
    """
    return connection.execute(query, (digest, number, run, at - CONFIRMED_AFTER)).fetchone() is not None
