"""The tables of a store: made, brought up to date, and checked."""

from __future__ import annotations

import time
from importlib.resources import files
from typing import TYPE_CHECKING

from anyio import to_thread

from bulkmail.cluster.database import LIST_SCHEMA, SCHEMA, StoreError, saying, shown
from bulkmail.model.lazy import dataclass

if TYPE_CHECKING:
    from asyncpg import Connection

VERSION = 3
OLDEST_SERVER = 13
CLOCKS_APART = 60.0  # seconds
_LOCK = 0x62756C6B  # of the advisory lock: two administrators at once
_VERSION_TABLE = "CREATE TABLE version (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"


@dataclass(frozen=True, slots=True)
class SchemaRemark:
    """What a check found: `is_error` keeps a worker from sending; `fix` says what to do."""

    text: str
    fix: str = ""
    is_error: bool = False


async def create(connection: Connection, url: str) -> None:
    """Makes the tables.  Raises `StoreError`, and then nothing was made."""
    with saying(url):
        _refuse_old(connection, url)
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            if await _version(connection) is not None:
                raise StoreError(f"{shown(url)} is a store already", hint="bulkmail store upgrade")
            await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
            await connection.execute(_VERSION_TABLE)
            await _apply(connection, after=0)


async def upgrade(connection: Connection, url: str) -> tuple[int, int]:
    """Applies what is missing; the version before and after.  Raises `StoreError`, and then nothing was changed."""
    with saying(url):
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            before = await require(connection, url, at_most=VERSION, at_least=0)
            await _apply(connection, after=before)
    return before, VERSION


async def require(connection: Connection, url: str, *, at_least: int = VERSION, at_most: int = VERSION) -> int:
    """The version of the store, if this bulkmail can work with it.  Raises `StoreError`."""
    found = await _version(connection)
    if found is None:
        raise StoreError(f"{shown(url)} is not a store yet", hint="bulkmail store create")
    if found > at_most:
        raise StoreError(
            f"{shown(url)} has version {found}, and this bulkmail knows only {at_most}", hint="upgrade bulkmail here"
        )
    if found < at_least:
        raise StoreError(f"{shown(url)} has version {found}, and {at_least} is needed", hint="bulkmail store upgrade")
    return found


async def check(connection: Connection, url: str) -> list[SchemaRemark]:
    """What is wrong with the store, the gravest first.  Raises `StoreError` when it cannot even be asked."""
    with saying(url):
        _refuse_old(connection, url)
        await require(connection, url)
        found = [*await _rights(connection), *await _list_rights(connection), *await _durability(connection)]
        apart = time.time() - float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8"))
    if abs(apart) > CLOCKS_APART:
        text = f"the clocks of this machine and of the store are {abs(apart):.0f} s apart"
        found.append(SchemaRemark(text, "set both by NTP", is_error=True))
    return sorted(found, key=lambda remark: not remark.is_error)


async def _rights(connection: Connection) -> list[SchemaRemark]:
    tables = ("campaign", "session", "shard", "row", "delivery", "attempt", "setting", "part", "work")
    missing = [
        table
        for table in tables
        if not await connection.fetchval(
            "SELECT bool_and(has_table_privilege($1, p)) FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) AS p",
            f"{SCHEMA}.{table}",
        )
    ]
    if not missing:
        return []
    user = await connection.fetchval("SELECT current_user")
    fix = f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA {SCHEMA} TO {user}"
    return [SchemaRemark(f"{user} may not read and write {', '.join(missing)}", fix, is_error=True)]


async def _list_rights(connection: Connection) -> list[SchemaRemark]:
    """The suppression list is a schema of its own, because some machines need nothing else."""
    granted = await connection.fetchval(
        """
        SELECT has_schema_privilege(n.oid, 'USAGE') AND bool_and(has_table_privilege(c.oid, p))
        FROM pg_namespace AS n JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relkind = 'r',
             unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p
        WHERE n.nspname = $1 GROUP BY n.oid
        """,
        LIST_SCHEMA,
    )
    if granted:
        return []
    user = await connection.fetchval("SELECT current_user")
    fix = (
        f"GRANT USAGE ON SCHEMA {LIST_SCHEMA} TO {user};"
        f" GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {LIST_SCHEMA} TO {user}"
    )
    return [SchemaRemark(f"{user} may not read and write the suppression list", fix, is_error=True)]


async def _durability(connection: Connection) -> list[SchemaRemark]:
    async def setting(name: str) -> str:
        return str(await connection.fetchval("SELECT current_setting($1)", name))

    found = []
    if await setting("fsync") == "off":
        found.append(
            SchemaRemark("fsync is off: a power cut can lose marks, and then messages go twice", "fsync = on", True)
        )
    if await setting("synchronous_commit") == "off":
        text = "synchronous_commit is off: a crash can lose marks, and then messages go twice"
        found.append(SchemaRemark(text, "synchronous_commit = on", is_error=True))
    if not await setting("synchronous_standby_names"):
        text = "there is no synchronous standby: what a failover loses may be sent twice"
        found.append(SchemaRemark(text, "set synchronous_standby_names if you fail over"))
    return found


def _refuse_old(connection: Connection, url: str) -> None:
    version = connection.get_server_version()
    if version.major < OLDEST_SERVER:
        raise StoreError(
            f"{shown(url)} is PostgreSQL {version.major}", hint=f"a store needs PostgreSQL {OLDEST_SERVER} or later"
        )


async def _version(connection: Connection) -> int | None:
    if await connection.fetchval("SELECT to_regclass($1)", f"{SCHEMA}.version") is None:
        return None
    found = await connection.fetchval(f"SELECT max(version) FROM {SCHEMA}.version")  # noqa: S608
    return None if found is None else int(found)


async def _apply(connection: Connection, *, after: int) -> None:
    for number in range(after + 1, VERSION + 1):
        script = files("bulkmail.cluster").joinpath(f"{number:04}.sql")
        await connection.execute(await to_thread.run_sync(script.read_text, "utf-8"))
        await connection.execute("INSERT INTO version (version) VALUES ($1)", number)
