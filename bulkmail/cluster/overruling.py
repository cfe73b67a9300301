"""What a person may decide about deliveries in the store that sending is through with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from bulkmail.cluster.database import saying
from bulkmail.cluster.loading import clean
from bulkmail.model.delivery import check_move
from bulkmail.model.recipient import Address
from bulkmail.model.tally import Status

if TYPE_CHECKING:
    from asyncpg import Connection

PAGE = 2_000  # deliveries that are looked at in one transaction

# Patience begins again.  What was in doubt keeps Date, Message-ID and digest, so that the same bytes go again, and
# waits until neither the server nor a worker that was stopped can still be at the first copy.
_TO_PENDING = """
    UPDATE delivery_{0} d SET status = 'pending', attempts = 0, reason = '', marked_by = NULL,
        due_at = CASE WHEN $3::float8 > 0 THEN make_interval(secs => $3)
            + greatest(d.marked_at, (SELECT s.ended_at FROM session s WHERE s.id = d.marked_by)) ELSE 'epoch' END,
        first_at = CASE WHEN d.in_doubt_before THEN d.first_at END,
        digest = CASE WHEN d.in_doubt_before THEN d.digest END
    WHERE d.campaign = $1 AND d.status = $2
"""
_TO_SETTLED = """
    UPDATE delivery_{0} SET status = $3, due_at = NULL, reason = $4, marked_by = NULL
    WHERE campaign = $1 AND status = $2
"""
_FOUND = """
    UPDATE delivery_{0} d SET status = 'accepted', due_at = NULL, reason = f.place, marked_by = NULL
    FROM unnest($2::bigint[], $3::text[]) AS f (id, place)
    WHERE d.campaign = $1 AND d.id = f.id AND (d.status = 'in_doubt' OR d.in_doubt_before AND d.due_at IS NOT NULL
        AND d.marked_by IS NULL)
"""
_SHARDS = """
    UPDATE shard s SET due_at = (SELECT min(d.due_at) FROM delivery_{0} d WHERE d.campaign = s.campaign
        AND d.id BETWEEN s.first_id AND s.last_id AND d.queue = s.queue)
    WHERE s.campaign = $1 AND s.holder IS NULL
"""
_OPEN = """
    SELECT d.id, d.row_number, d.forward_path, d.is_copy, r.address FROM delivery_{0} d
    JOIN row_{0} r ON r.campaign = d.campaign AND r.number = d.row_number
    WHERE d.campaign = $1 AND d.id > $2 AND d.status IN ('pending', 'deferred') AND d.marked_by IS NULL
    AND ($4::text[] IS NULL OR $4 && ARRAY[lower(r.address), '@' || split_part(lower(r.address), '@', 2),
        lower(d.forward_path), '@' || split_part(lower(d.forward_path), '@', 2)])
    ORDER BY d.id LIMIT $3
"""
_SUPPRESS = """
    UPDATE delivery_{0} d SET status = 'suppressed', due_at = NULL, reason = f.reason
    FROM unnest($2::bigint[], $3::text[]) AS f (id, reason)
    WHERE d.campaign = $1 AND d.id = f.id AND d.status IN ('pending', 'deferred') AND d.marked_by IS NULL
    RETURNING d.is_copy
"""


async def move_all(
    connection: Connection,
    url: str,
    campaign: int,
    before: Status,
    after: Status,
    *,
    reason: str = "",
    wait: float = 0.0,
) -> int:
    """Moves every delivery from `before` to `after` and says how many there were.  Raises `IllegalMove`, `StoreError`.

    `reason` is recorded with a settled one; a pending one is due `wait` seconds after its mark and the end of the
    session that marked it.
    """
    check_move(before, after, by_operator=True)
    with saying(url):
        async with connection.transaction():
            if after is Status.PENDING:
                said = await connection.execute(_TO_PENDING.format(campaign), campaign, before.value, wait)
            else:
                said = await connection.execute(
                    _TO_SETTLED.format(campaign), campaign, before.value, after.value, clean(reason)
                )
            await connection.execute(_SHARDS.format(campaign), campaign)
    return int(said.split()[-1])


async def settle_found(connection: Connection, url: str, campaign: int, found: Mapping[int, str]) -> int:
    """Deliveries in doubt (id → where the message was found) become ACCEPTED; says how many.  Raises `StoreError`."""
    check_move(Status.IN_DOUBT, Status.ACCEPTED, by_operator=True)
    with saying(url):
        async with connection.transaction():
            places = [clean(place) for place in found.values()]
            said = await connection.execute(_FOUND.format(campaign), campaign, list(found), places)
            await connection.execute(_SHARDS.format(campaign), campaign)
    return int(said.split()[-1])


class SuppressedCounts(Struct, frozen=True):
    """How many rows became SUPPRESSED, and how many copies of rows that go on."""

    rows: int
    copies: int


async def suppress(
    connection: Connection,
    url: str,
    campaign: int,
    reason_of: Callable[[Address], str],
    *,
    keys: Sequence[str] | None = None,
) -> SuppressedCounts:
    """Open rows and copies whose address has a reason on a suppression list become SUPPRESSED.  Raises `StoreError`.

    With `keys` only these addresses and domains are asked for.  A row whose own address has one is left out with its
    copies.
    """
    after, rows, copies = 0, 0, 0
    with saying(url):
        while found := await connection.fetch(_OPEN.format(campaign), campaign, after, PAGE, keys):
            after = found[-1]["id"]
            reasons: dict[int, str] = {}
            for record in found:
                reason = reason_of(_address(record["address"]))
                if not reason and record["is_copy"]:
                    reason = reason_of(_address(record["forward_path"]))
                if reason:
                    reasons[record["id"]] = clean(reason)
            if reasons:
                done = await connection.fetch(
                    _SUPPRESS.format(campaign), campaign, list(reasons), list(reasons.values())
                )
                copies += sum(record["is_copy"] for record in done)
                rows += sum(not record["is_copy"] for record in done)
    return SuppressedCounts(rows, copies)


def _address(path: str) -> Address:
    local, _, domain = path.rpartition("@")
    return Address(local, domain)
