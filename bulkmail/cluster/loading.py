"""How a campaign gets into the store: by COPY, all of it or nothing, and then it may be sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from anyio import to_thread
from msgspec import Struct

from bulkmail.cluster.database import StoreError, saying
from bulkmail.model.kept_row import KeptDelivery, KeptPage
from bulkmail.model.tally import Status

if TYPE_CHECKING:
    from asyncpg import Connection

SHARD = 500  # deliveries

_ROW = ("campaign", "number", "address", "name", "fields", "source", "line")
_DELIVERY = ("campaign", "id", "row_number", "forward_path", "is_copy", "queue", "status", "due_at", "reason")
_SHARD = ("campaign", "id", "queue", "first_id", "last_id", "due_at", "is_canary")
_PENDING = Status.PENDING.value


class NewCampaign(Struct, frozen=True, kw_only=True):
    """What is known of a campaign before its rows; `version` is that of the bulkmail whose composer makes its messages.

    The first `canary` deliveries are sent before the others.
    """

    name: str
    run_id: str
    content: bytes = b""
    fingerprint: str = ""
    is_rehearsal: bool = False
    allow_duplicates: bool = False
    version: str = ""
    settings: Mapping[str, str] = {}
    canary: int = 0


async def load(connection: Connection, url: str, campaign: NewCampaign, pages: Iterable[KeptPage]) -> int:
    """Loads a campaign and says its number; it is being sent then, by every worker that is there.

    `pages` are read in a thread.  Raises `StoreError`, for a name that is taken, too; then nothing was loaded.
    """
    with saying(url):
        if await connection.fetchval("SELECT 1 FROM campaign WHERE name = $1", campaign.name):
            raise name_taken(campaign.name)
        async with connection.transaction():
            number = await _begin(connection, campaign)
            counts = _Counts(campaign.canary)
            found = iter(pages)
            while (page := await to_thread.run_sync(next, found, None)) is not None:
                await _copy(connection, number, page, counts)
            await connection.execute(
                "UPDATE campaign SET state = $5, rows = $2, eligible = $3, has_copies = $4 WHERE id = $1",
                number,
                counts.rows,
                counts.eligible,
                counts.has_copies,
                "canary" if counts.canary_shards else "sending",
            )
        for table in ("row", "delivery"):
            await connection.execute(f"ANALYZE {table}_{number}")
    return number


def name_taken(name: str) -> StoreError:
    """There is a campaign of that name already."""
    return StoreError(f"there is a campaign {name!r} in the store already", hint="give this one another name")


class _Counts:
    """How far the loading has come."""

    def __init__(self, canary: int) -> None:
        self.rows = self.eligible = self.shards = self.canary_shards = 0
        self.has_copies = False
        self.canary_left = canary


async def _begin(connection: Connection, campaign: NewCampaign) -> int:
    number = await connection.fetchval(
        "INSERT INTO campaign (name, run_id, content, fingerprint, is_rehearsal, allow_duplicates, version)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (name) DO NOTHING RETURNING id",
        campaign.name,
        campaign.run_id,
        campaign.content,
        campaign.fingerprint,
        campaign.is_rehearsal,
        campaign.allow_duplicates,
        campaign.version,
    )
    if number is None:  # another was quicker
        raise name_taken(campaign.name)
    settings = [(number, clean(key), clean(value)) for key, value in campaign.settings.items()]
    await connection.executemany("INSERT INTO setting (campaign, key, value) VALUES ($1, $2, $3)", settings)
    for table, options in (("row", ""), ("delivery", "WITH (fillfactor = 50)"), ("attempt", "")):
        await connection.execute(
            f"CREATE TABLE {table}_{number} PARTITION OF {table} FOR VALUES IN ({number}) {options}"
        )
        owner = await connection.fetchval(
            "SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class WHERE oid = to_regclass($1)", table
        )
        await connection.execute(f"ALTER TABLE {table}_{number} OWNER TO {owner}")  # workers may be of another role
    return int(number)


async def _copy(connection: Connection, number: int, page: KeptPage, counts: _Counts) -> None:
    rows = [
        (number, row.number, clean(row.address), clean(row.name), row.fields, clean(row.source), row.line)
        for row in page.rows
    ]
    deliveries = [
        (
            number,
            each.id,
            each.row,
            clean(each.forward_path),
            bool(each.is_copy),
            each.queue,
            each.status,
            None if each.due_at is None else datetime.fromtimestamp(each.due_at, UTC),
            clean(each.reason),
        )
        for each in page.deliveries
    ]
    parts = [(number, row.shares, row.number) for row in page.rows if row.shares]
    counts.rows += len(rows)
    counts.eligible += sum(each.status == _PENDING and not each.is_copy for each in page.deliveries)
    counts.has_copies = counts.has_copies or any(each.is_copy for each in page.deliveries)
    await connection.copy_records_to_table(f"row_{number}", records=rows, columns=_ROW)
    await connection.copy_records_to_table(f"delivery_{number}", records=deliveries, columns=_DELIVERY)
    await connection.copy_records_to_table(
        "shard", records=[(number, *shard) for shard in _shards(page.deliveries, counts)], columns=_SHARD
    )
    if parts:
        await connection.copy_records_to_table("part", records=parts, columns=("campaign", "message", "row"))


def _shards(deliveries: list[KeptDelivery], counts: _Counts) -> Iterator[tuple[Any, ...]]:
    """The shards of a page: number, queue, ids, due time, whether it goes first; paths of a row together."""
    open_shards: dict[int, list[KeptDelivery]] = {}
    is_canary = counts.canary_left > 0

    def end(queue: int) -> tuple[Any, ...]:
        own = open_shards.pop(queue)
        counts.shards += 1
        counts.canary_shards += is_canary
        due = min((each.due_at for each in own if each.due_at is not None), default=None)
        at = None if due is None else datetime.fromtimestamp(due, UTC)
        return counts.shards, queue, own[0].id, own[-1].id, at, is_canary

    for each in deliveries:
        if not each.is_copy:
            if is_canary and counts.canary_left <= 0:
                yield from [end(queue) for queue in list(open_shards)]
                is_canary = False
            elif len(open_shards.get(each.queue, ())) >= SHARD:
                yield end(each.queue)
        counts.canary_left -= each.due_at is not None
        open_shards.setdefault(each.queue, []).append(each)
    yield from [end(queue) for queue in list(open_shards)]


def clean(text: str) -> str:
    """Without what PostgreSQL cannot hold: NUL and lone surrogates."""
    return text if text.isascii() and "\0" not in text else text.encode("utf-8", "replace").decode().replace("\0", "")
