"""What stops a campaign on all machines: a breaker, and the canary, judged by what all workers have recorded."""

# ruff: noqa: S608 - what is put into a statement is the number of a campaign, or another statement
from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from bulkmail.cluster.database import saying
from bulkmail.cluster.loading import clean
from bulkmail.model.breaker import POLICY_REASONS, BreakerLimits, Trip, judge_canary
from bulkmail.model.outcome import Outcome, Scope

if TYPE_CHECKING:
    from asyncpg import Connection

# What equal policy rejections share, as `policy_key()` has it; null for anything else.
_KEY = """
    CASE WHEN a.outcome = 'rejected' AND a.reason = ANY ($3) AND a.breakage IS NULL
        AND (a.enhanced = '' OR a.enhanced LIKE '5.7.%')
        THEN a.reason || ' ' || CASE a.enhanced WHEN '' THEN a.code::text ELSE a.enhanced END END
"""
# Stops it and puts back every rejection with the key, by any worker, in one statement.
_TRIP = f"""
    WITH stopped AS (
        UPDATE campaign SET state = 'stopped', why = $2 WHERE id = $1 AND state IN ('canary', 'sending', 'stopped')
        RETURNING id),
    found AS (
        SELECT d.id FROM delivery_{{0}} d JOIN attempt_{{0}} a
            ON a.campaign = d.campaign AND a.delivery = d.id AND a.try = d.tries
        WHERE d.campaign = $1 AND d.status = 'rejected' AND {_KEY} = $4)
    UPDATE delivery_{{0}} d SET status = 'pending', due_at = 'epoch', attempts = 0, reason = '' FROM found, stopped
    WHERE d.campaign = $1 AND d.id = found.id RETURNING d.id
"""
_COMMONEST = f"""
    SELECT {_KEY} AS key, count(*) AS n FROM delivery_{{0}} d JOIN attempt_{{0}} a
        ON a.campaign = d.campaign AND a.delivery = d.id AND a.try = d.tries
    WHERE d.campaign = $1 AND d.status = 'rejected' AND (NOT $2 OR EXISTS (SELECT 1 FROM shard s
        WHERE s.campaign = $1 AND s.is_canary AND s.queue = d.queue AND d.id BETWEEN s.first_id AND s.last_id))
        AND {_KEY} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC LIMIT 1
"""
_SHARDS = """
    UPDATE shard s SET due_at = (SELECT min(d.due_at) FROM delivery_{0} d WHERE d.campaign = s.campaign
        AND d.id BETWEEN s.first_id AND s.last_id AND d.queue = s.queue)
    WHERE s.campaign = $1 AND s.holder IS NULL
"""
_CANARY = """
    SELECT d.tries = 0 AND d.due_at IS NOT NULL OR d.marked_by IS NOT NULL AND d.due_at IS NOT NULL AS is_open,
        a.outcome, a.scope, count(*) AS n
    FROM shard s JOIN delivery_{0} d ON d.campaign = s.campaign AND d.queue = s.queue
        AND d.id BETWEEN s.first_id AND s.last_id
    LEFT JOIN attempt_{0} a ON a.campaign = d.campaign AND a.delivery = d.id AND a.try = d.tries
    WHERE s.campaign = $1 AND s.is_canary AND d.status NOT IN ('grouped', 'suppressed', 'cancelled', 'invalid',
        'duplicate', 'filtered')
    GROUP BY 1, 2, 3
"""
_REASONS = [reason.value for reason in POLICY_REASONS]


async def stop_for(connection: Connection, url: str, campaign: int, sentence: str, *, canary: bool = False) -> int:
    """Stops the campaign on all machines; says how many rejections were put back.  Raises `StoreError`.

    Those are what the commonest policy rejection hit, of the `canary` alone or of all, whichever worker recorded them.
    """
    with saying(url):
        async with connection.transaction():
            found = await connection.fetchrow(_COMMONEST.format(campaign), campaign, canary, _REASONS)
            key = None if found is None else found["key"]
            back = await connection.fetch(_TRIP.format(campaign), campaign, clean(sentence), _REASONS, key)
            await connection.execute(_SHARDS.format(campaign), campaign)
    return len(back)


async def judge(connection: Connection, url: str, campaign: int, limits: BreakerLimits) -> Trip | None:
    """Looks at a campaign whose first messages go ahead: all others may go, or all is stopped; or it is too early.

    Any worker may do that at any time: the state moves on once.  Raises `StoreError`.
    """
    outcomes: Counter[Outcome] = Counter()
    scopes: Counter[Scope] = Counter()
    with saying(url):
        for record in await connection.fetch(_CANARY.format(campaign), campaign):
            if record["is_open"]:
                return None
            if record["outcome"] is not None:
                outcome = Outcome(record["outcome"])
                outcomes[outcome] += record["n"]
                if outcome is Outcome.REJECTED:
                    scopes[Scope(record["scope"])] += record["n"]
    if not outcomes[Outcome.ACCEPTED] and outcomes[Outcome.DEFERRED]:
        return None  # greylisting looks like a refusal of all: these are tried again first
    trip = judge_canary(outcomes, scopes, limits)
    if trip is None:
        with saying(url):
            await connection.execute(
                "UPDATE campaign SET state = 'sending' WHERE id = $1 AND state = 'canary'", campaign
            )
        return None
    await stop_for(connection, url, campaign, trip.sentence, canary=True)
    return trip
