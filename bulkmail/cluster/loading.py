"""How a campaign gets into the store: by COPY, all of it or nothing, and then it may be sent."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from bulkmail.cluster.database import StoreError, saying
from bulkmail.model.delivery import Status
from bulkmail.model.recipient import Recipient

if TYPE_CHECKING:
    from asyncpg import Connection

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)  # due at once
SHARD = 500  # deliveries
CHUNK = 10_000  # rows that are in memory at a time

_to_json = msgspec.json.Encoder().encode


class LoadedRow(NamedTuple):
    """One row of the list: whom it is for, and why nothing is sent to it if it is not pending.

    `forward_paths` are the addresses it goes to; empty means the recipient's own.  Pending rows go in `lane`.
    """

    recipient: Recipient
    status: Status = Status.PENDING
    reason: str = ""
    forward_paths: tuple[str, ...] = ()
    lane: int = 0


async def load(
    connection: Connection,
    url: str,
    name: str,
    rows: Iterable[LoadedRow],
    *,
    content: bytes = b"",
    fingerprint: str = "",
) -> int:
    """Loads a campaign and says its number; its state is "sending" then.

    Raises `StoreError`, for a name that is taken, too; then nothing was loaded.
    """
    with saying(url):
        if await connection.fetchval("SELECT 1 FROM campaign WHERE name = $1", name):
            raise StoreError(f"there is a campaign {name!r} in the store already", hint="give this one another name")
        async with connection.transaction():
            number = int(
                await connection.fetchval(
                    "INSERT INTO campaign (name, run_id, content, fingerprint) VALUES ($1, $2, $3, $4) RETURNING id",
                    name,
                    secrets.token_hex(10),
                    content,
                    fingerprint,
                )
            )
            await _make_partitions(connection, number)
            counts = await _copy(connection, number, iter(rows))
            await connection.execute(
                "UPDATE campaign SET state = 'sending', rows = $2, eligible = $3, has_copies = $4 WHERE id = $1",
                number,
                counts.rows,
                counts.eligible,
                counts.deliveries != counts.rows,
            )
        for table in ("row", "delivery"):
            await connection.execute(f"ANALYZE {table}_{number}")
    return number


class _Counts:
    """How far the loading has come."""

    def __init__(self) -> None:
        self.rows = self.deliveries = self.eligible = self.shards = 0


async def _make_partitions(connection: Connection, number: int) -> None:
    for table, options in (("row", ""), ("delivery", "WITH (fillfactor = 50)"), ("attempt", "")):
        await connection.execute(
            f"CREATE TABLE {table}_{number} PARTITION OF {table} FOR VALUES IN ({number}) {options}"
        )


async def _copy(connection: Connection, number: int, rows: Iterator[LoadedRow]) -> _Counts:
    counts = _Counts()
    while chunk := list(islice(rows, CHUNK)):
        stored, deliveries, shards = _columns(number, chunk, counts)
        await connection.copy_records_to_table(f"row_{number}", records=stored)
        columns = ("campaign", "id", "row_number", "forward_path", "is_copy", "status", "due_at", "reason")
        await connection.copy_records_to_table(f"delivery_{number}", records=deliveries, columns=columns)
        of_shards = ("campaign", "id", "lane", "first_id", "last_id", "due_at")
        await connection.copy_records_to_table("shard", records=shards, columns=of_shards)
    return counts


def _columns(
    number: int, chunk: list[LoadedRow], counts: _Counts
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """The records of rows, deliveries and shards; ids of one lane and of one row stay together."""
    stored: list[tuple[Any, ...]] = []
    deliveries: list[tuple[Any, ...]] = []
    shards: list[tuple[Any, ...]] = []
    chunk_by_lane: dict[int, list[LoadedRow]] = {}
    for row in chunk:
        chunk_by_lane.setdefault(row.lane, []).append(row)
    for lane, of_lane in chunk_by_lane.items():
        due: datetime | None = None
        first = counts.deliveries + 1
        for row in of_lane:
            counts.rows += 1
            person = row.recipient
            place, fields = person.place, _to_json(person.fields).decode()
            stored.append((number, counts.rows, person.address.wire, person.name, fields, place.file, place.line))
            is_open = row.status is Status.PENDING
            counts.eligible += is_open
            for copy, path in enumerate(row.forward_paths or (person.address.wire,)):
                counts.deliveries += 1
                due_at = EPOCH if is_open else None
                due = due_at or due
                deliveries.append(
                    (number, counts.deliveries, counts.rows, path, copy > 0, row.status.value, due_at, row.reason)
                )
            if counts.deliveries - first + 1 >= SHARD:
                counts.shards += 1
                shards.append((number, counts.shards, lane, first, counts.deliveries, due))
                first, due = counts.deliveries + 1, None
        if counts.deliveries >= first:
            counts.shards += 1
            shards.append((number, counts.shards, lane, first, counts.deliveries, due))
    return stored, deliveries, shards
