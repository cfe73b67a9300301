"""What has become of a campaign in the store, without holding anything up."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from msgspec import Struct

from bulkmail.model.delivery import Status
from bulkmail.model.tally import Tally

if TYPE_CHECKING:
    from asyncpg import Connection

PAGE = 1_000  # deliveries that are read at a time: no transaction is longer, so that vacuum goes on

_TALLY = "SELECT is_copy, status, count(*) AS n FROM delivery_{0} GROUP BY 1, 2"
_RECORDS = """
    SELECT d.id, d.row_number, d.forward_path, d.is_copy, d.status, d.reason, d.tries, d.first_at, d.message_id,
        a.code, a.enhanced, a.text, a.breakage, a.relay
    FROM delivery_{0} d LEFT JOIN attempt_{0} a ON a.campaign = d.campaign AND a.delivery = d.id AND a.try = d.tries
    WHERE d.id > $1 ORDER BY d.id LIMIT $2
"""


class DeliveryRecord(Struct, frozen=True, kw_only=True):
    """One address and what has become of it; `code`, `enhanced` and `reply` are the server's last words."""

    delivery: int
    row: int
    address: str
    is_copy: bool
    status: Status
    reason: str
    tries: int
    first_at: float | None
    message_id: str
    code: int | None
    enhanced: str
    reply: str
    error: str
    relay: str


async def read_tally(connection: Connection, campaign: int) -> Tally:
    """Rows and copies by status, by reading all deliveries."""
    found: tuple[Counter[Status], Counter[Status]] = Counter(), Counter()
    for record in await connection.fetch(_TALLY.format(campaign)):
        found[record["is_copy"]][Status(record["status"])] = record["n"]
    rows = int(await connection.fetchval("SELECT rows FROM campaign WHERE id = $1", campaign))
    return Tally(rows, *found)


async def read_records(connection: Connection, campaign: int) -> AsyncIterator[DeliveryRecord]:
    """Every delivery in the order of the input, a page at a time."""
    after = 0
    while page := await connection.fetch(_RECORDS.format(campaign), after, PAGE):
        for record in page:
            after = record["id"]
            has_reply = record["code"] is not None
            yield DeliveryRecord(
                delivery=after,
                row=record["row_number"],
                address=record["forward_path"],
                is_copy=record["is_copy"],
                status=Status(record["status"]),
                reason=record["reason"],
                tries=record["tries"],
                first_at=record["first_at"],
                message_id=record["message_id"],
                code=record["code"],
                enhanced=record["enhanced"] or "",
                reply=(record["text"] or "") if has_reply else "",
                error="" if has_reply else record["text"] or "",
                relay=record["relay"] or "",
            )
