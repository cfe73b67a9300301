"""What has become of a campaign in the store, without holding anything up."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from bulkmail.cluster.database import saying
from bulkmail.model.kept_row import KeptAttempt, KeptDelivery, KeptPage, KeptRow
from bulkmail.model.tally import Status, Tally

if TYPE_CHECKING:
    from asyncpg import Connection

PAGE = 2_000  # rows that are read at a time: no transaction is longer, so that vacuum goes on

_TALLY = "SELECT is_copy, status, count(*) AS n FROM delivery_{0} WHERE status <> 'grouped' GROUP BY 1, 2"
_ROWS = """
    SELECT r.number, r.source, r.line, r.address, r.name, r.fields::text, coalesce(p.message, 0)
    FROM row_{0} r LEFT JOIN part p ON p.campaign = r.campaign AND p.row = r.number
    WHERE r.campaign = $1 AND r.number > $2 ORDER BY r.number LIMIT $3
"""
# The paths of rows that follow one another have ids that do so.
_DELIVERIES = """
    SELECT d.id, d.row_number, d.forward_path, d.is_copy, d.queue, d.status, extract(epoch FROM d.due_at)::float8,
        d.attempts, d.tries, d.first_at, CASE WHEN d.marked_by IS NOT NULL AND d.due_at IS NOT NULL
            THEN extract(epoch FROM d.marked_at)::float8 END,
        d.marked_relay, d.in_doubt_before, d.digest, d.message_id, d.reason
    FROM delivery_{0} d WHERE d.campaign = $1 AND d.id > $2 AND d.id <= $2 + $3 ORDER BY d.id
"""
_ATTEMPTS = """
    SELECT a.delivery, a.try, extract(epoch FROM a.at)::float8, a.took, a.relay, a.stage, a.code, a.enhanced, a.text,
        a.breakage, a.outcome, a.scope, a.reason, a.counts
    FROM attempt_{0} a WHERE a.campaign = $1 AND a.delivery > $2 AND a.delivery <= $3 ORDER BY a.delivery, a.try
"""


async def read_tally(connection: Connection, campaign: int) -> Tally:
    """Messages and copies by status, by reading all deliveries."""
    found: tuple[Counter[Status], Counter[Status]] = Counter(), Counter()
    for record in await connection.fetch(_TALLY.format(campaign)):
        found[record["is_copy"]][Status(record["status"])] = record["n"]
    rows = int(await connection.fetchval("SELECT rows FROM campaign WHERE id = $1", campaign))
    sharing = int(await connection.fetchval("SELECT count(*) FROM part WHERE campaign = $1", campaign))
    return Tally(rows, *found, sharing)


async def read_pages(connection: Connection, url: str, campaign: int) -> AsyncIterator[KeptPage]:
    """All rows in the order of the input, then all deliveries with their tries, a page at a time.

    A delivery is read before its tries, so that none that it counts is missing.  Raises `StoreError`.
    """
    after = 0
    while True:
        with saying(url):
            found = await connection.fetch(_ROWS.format(campaign), campaign, after, PAGE)
        rows = [KeptRow(*record) for record in found]
        if not rows:
            break
        after = rows[-1].number
        yield KeptPage(rows, [], [])
    after = 0
    while True:
        with saying(url):
            found = await connection.fetch(_DELIVERIES.format(campaign), campaign, after, PAGE)
            if not found:
                return
            tries = await connection.fetch(_ATTEMPTS.format(campaign), campaign, after, after + PAGE)
        after += PAGE
        yield KeptPage([], [KeptDelivery(*record) for record in found], [KeptAttempt(*record) for record in tries])
