"""The campaigns in a store: what is said of each as a whole, and who sends from it."""

# ruff: noqa: S608 - what is put into a statement is the number of a campaign, or another statement
from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING

from msgspec import Struct

from bulkmail.cluster.database import StoreError, saying
from bulkmail.cluster.loading import clean
from bulkmail.model.tally import Status

if TYPE_CHECKING:
    from asyncpg import Connection, Record


REHEARSAL = ".rehearsal"  # behind the name of a campaign that reaches no recipient


class CampaignState(Enum):
    """Where a campaign in the store stands."""

    LOADING = "loading"
    CANARY = "canary"  # its first messages go ahead
    SENDING = "sending"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    DONE = "done"

    @property
    def is_active(self) -> bool:
        """Whether workers send from it."""
        return self in (CampaignState.CANARY, CampaignState.SENDING)


class StoredCampaign(Struct, frozen=True, kw_only=True):
    """A campaign at one moment.  Times are wall-clock seconds of the store; `content` is as it was loaded.

    `why` says who or what stopped it.
    """

    id: int
    name: str
    run_id: str
    state: CampaignState
    why: str
    fingerprint: str
    content: bytes
    rows: int
    eligible: int
    has_copies: bool
    is_rehearsal: bool
    allow_duplicates: bool
    version: str
    created_at: float
    started_at: float | None
    ended_at: float | None
    settings: Mapping[str, str]


class Sender(Struct, frozen=True):
    """A worker process that is alive, by its session; `campaigns` are the names of those it sends from.

    `lease` is how many seconds its lease still has, `since` when it began, by the store's clock.
    """

    session: int
    host: str
    pid: int
    version: str
    lease: float
    since: float
    held: int
    campaigns: tuple[str, ...]

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


_CAMPAIGN = """
    SELECT id, name, run_id, state, why, fingerprint, content, rows, eligible, has_copies, is_rehearsal,
        allow_duplicates, version, extract(epoch FROM created_at)::float8 AS created_at,
        extract(epoch FROM started_at)::float8 AS started_at, extract(epoch FROM ended_at)::float8 AS ended_at
    FROM campaign
"""
_SENDERS = """
    SELECT s.id, s.host, s.pid, s.version, extract(epoch FROM s.lease_until - clock_timestamp())::float8 AS lease,
        extract(epoch FROM s.opened_at)::float8 AS since,
        (SELECT count(*) FROM shard h WHERE h.holder = s.id) AS held,
        coalesce(array_agg(c.name ORDER BY c.name) FILTER (WHERE c.id IS NOT NULL), '{}') AS campaigns
    FROM session s LEFT JOIN work w ON w.session = s.id LEFT JOIN campaign c ON c.id = w.campaign
    WHERE s.ended_at IS NULL AND s.lease_until > clock_timestamp() AND ($1::integer IS NULL OR EXISTS (
        SELECT 1 FROM work o WHERE o.session = s.id AND o.campaign = $1))
    GROUP BY s.id ORDER BY s.id
"""
_NOTHING_LEFT = """
    UPDATE campaign SET state = 'done', ended_at = clock_timestamp()
    WHERE id = $1 AND state IN ('canary', 'sending')
        AND NOT EXISTS (SELECT 1 FROM delivery_{0} WHERE campaign = $1 AND due_at IS NOT NULL)
"""


_DUE_SHARDS = """
    SELECT s.campaign, s.queue, count(*)::integer AS n FROM shard s JOIN campaign c ON c.id = s.campaign
    WHERE c.state IN ('canary', 'sending') AND (s.is_canary OR c.state = 'sending') AND s.holder IS NULL
        AND s.due_at <= clock_timestamp() GROUP BY 1, 2 ORDER BY 1, 2
"""


async def find_campaign(connection: Connection, url: str, name: str) -> StoredCampaign | None:
    """The campaign of that name, if there is one.  Raises `StoreError`."""
    with saying(url):
        found = await connection.fetchrow(f"{_CAMPAIGN} WHERE name = $1", name)
        return None if found is None else await _with_settings(connection, found)


async def campaign_named(connection: Connection, url: str, name: str) -> StoredCampaign:
    """The campaign of that name, or its rehearsal.  Raises `StoreError` that names those that there are."""
    found = await find_campaign(connection, url, name) or await find_campaign(connection, url, name + REHEARSAL)
    if found is None:
        with saying(url):
            names = await connection.fetch("SELECT name FROM campaign ORDER BY created_at DESC LIMIT 5")
        known = ", ".join(record["name"] for record in names)
        hint = f"in the store: {known}" if known else f"bulkmail send {name} --store loads and sends it"
        raise StoreError(f"there is no campaign {name!r} in the store", hint=hint)
    return found


async def active_campaigns(connection: Connection, url: str) -> list[StoredCampaign]:
    """Those that workers send from, in the order in which they were loaded.  Raises `StoreError`."""
    with saying(url):
        found = await connection.fetch(f"{_CAMPAIGN} WHERE state IN ('canary', 'sending') ORDER BY id")
        return [await _with_settings(connection, record) for record in found]


async def _with_settings(connection: Connection, record: Record) -> StoredCampaign:
    pairs = await connection.fetch("SELECT key, value FROM setting WHERE campaign = $1", record["id"])
    values = dict(record)
    state = CampaignState(values.pop("state"))
    return StoredCampaign(**values, state=state, settings={pair["key"]: pair["value"] for pair in pairs})


async def senders(connection: Connection, url: str, campaign: int | None = None) -> list[Sender]:
    """The workers that are alive; of one `campaign` those that send from it.  Raises `StoreError`."""
    with saying(url):
        return [
            Sender(
                record["id"],
                record["host"],
                record["pid"],
                record["version"],
                record["lease"],
                record["since"],
                record["held"],
                tuple(record["campaigns"]),
            )
            for record in await connection.fetch(_SENDERS, campaign)
        ]


async def due_shards(connection: Connection, url: str) -> list[tuple[int, int, int]]:
    """Campaign, queue and how many shards of it are due and held by no worker.  Raises `StoreError`."""
    with saying(url):
        found = await connection.fetch(_DUE_SHARDS)
    return [(record["campaign"], record["queue"], record["n"]) for record in found]


async def begin_work(connection: Connection, url: str, session: int, campaign: int) -> None:
    """The session sends from this campaign from now on.  Raises `StoreError`."""
    with saying(url):
        await connection.execute(
            "INSERT INTO work (session, campaign) VALUES ($1, $2) ON CONFLICT DO NOTHING", session, campaign
        )
        await connection.execute(
            "UPDATE campaign SET started_at = coalesce(started_at, clock_timestamp()) WHERE id = $1", campaign
        )


async def end_work(connection: Connection, url: str, session: int, campaign: int) -> None:
    """The session sends from it no more; the campaign is done if nothing of it is left.  Raises `StoreError`."""
    with saying(url):
        await connection.execute("DELETE FROM work WHERE session = $1 AND campaign = $2", session, campaign)
        await connection.execute(_NOTHING_LEFT.format(campaign), campaign)


async def read_state(connection: Connection, url: str, campaign: int) -> tuple[CampaignState, str]:
    """Where it stands now, and why.  Raises `StoreError`."""
    with saying(url):
        found = await connection.fetchrow("SELECT state, why FROM campaign WHERE id = $1", campaign)
    if found is None:
        raise StoreError("the campaign is not in the store any more")
    return CampaignState(found["state"]), str(found["why"])


async def set_state(
    connection: Connection, url: str, campaign: int, state: CampaignState, *, why: str = "", among: tuple[str, ...] = ()
) -> bool:
    """Moves it on, if it is in one of the states `among` (none: in any); whether it was.  Raises `StoreError`."""
    with saying(url):
        moved = await connection.fetchval(
            "UPDATE campaign SET state = $2, why = $3, ended_at = CASE WHEN $2 IN ('done', 'cancelled')"
            " THEN clock_timestamp() END WHERE id = $1 AND ($4 OR state = ANY ($5)) RETURNING 1",
            campaign,
            state.value,
            clean(why),
            not among,
            list(among),
        )
    return moved is not None


async def cancel(connection: Connection, url: str, campaign: int) -> int:
    """What is open and not marked becomes cancelled; says how many deliveries that were.  Raises `StoreError`."""
    with saying(url):
        async with connection.transaction():
            await connection.execute(
                "UPDATE campaign SET state = 'cancelled', ended_at = clock_timestamp() WHERE id = $1", campaign
            )
            said = await connection.execute(
                f"UPDATE delivery_{campaign} SET status = $2, due_at = NULL, reason = 'cancelled'"
                " WHERE campaign = $1 AND status IN ('pending', 'deferred') AND marked_by IS NULL",
                campaign,
                Status.CANCELLED.value,
            )
            await connection.execute("UPDATE shard SET due_at = NULL WHERE campaign = $1 AND holder IS NULL", campaign)
    return int(said.split()[-1])


async def set_setting(connection: Connection, url: str, campaign: int, key: str, value: str) -> None:
    """Keeps a note of the caller's.  Raises `StoreError`."""
    with saying(url):
        await connection.execute(
            "INSERT INTO setting (campaign, key, value) VALUES ($1, $2, $3)"
            " ON CONFLICT (campaign, key) DO UPDATE SET value = excluded.value",
            campaign,
            clean(key),
            clean(value),
        )


async def drop(connection: Connection, url: str, campaign: int) -> None:
    """Takes a campaign, with its rows and all that became of them, out of the store.  Raises `StoreError`."""
    with saying(url):
        async with connection.transaction():
            for table in ("row", "delivery", "attempt"):
                await connection.execute(f"DROP TABLE {table}_{campaign}")
            await connection.execute("DELETE FROM campaign WHERE id = $1", campaign)
