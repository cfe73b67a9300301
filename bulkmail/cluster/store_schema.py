"""The tables of a store: made, brought up to date, and checked."""

from __future__ import annotations

import time
from importlib.resources import files
from typing import TYPE_CHECKING

from anyio import to_thread

from bulkmail.cluster.database import LIST_SCHEMA, SCHEMA, StoreError, saying, shown
from bulkmail.cluster.dispatch import apply_schema
from bulkmail.model.lazy import dataclass

if TYPE_CHECKING:
    from asyncpg import Connection

VERSION = 4
OLDEST_SERVER = 13
CLOCKS_APART = 60.0  # seconds
_READ, _WRITTEN = ("SELECT",), ("SELECT", "INSERT", "UPDATE")
_EMPTIED = (*_WRITTEN, "DELETE")
# The rights that loading and sending need.
TABLE_RIGHTS = {
    "version": _READ,
    **dict.fromkeys(("session", "shard", "row", "delivery", "attempt", "setting", "part", "pace", "relay"), _WRITTEN),
    **dict.fromkeys(("account", "ramp"), _WRITTEN),
    **dict.fromkeys(("campaign", "work", "spent", "reserved", "pause"), _EMPTIED),
    **dict.fromkeys(("procrastinate_jobs", "procrastinate_workers", "procrastinate_events"), _EMPTIED),
    "procrastinate_periodic_defers": _EMPTIED,
}
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
            await apply_schema(connection)


async def upgrade(connection: Connection, url: str) -> tuple[int, int]:
    """Applies what is missing; the version before and after.  Raises `StoreError`, and then nothing was changed."""
    with saying(url):
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            before = await require(connection, url, at_most=VERSION, at_least=0)
            await _apply(connection, after=before)
            await apply_schema(connection)
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
    """Each right that is missing, with the statement that grants it."""
    user = await connection.fetchval("SELECT quote_ident(current_user)")
    found = []
    missing = [
        right
        for right in ("USAGE", "CREATE")  # a campaign has tables of its own
        if not await connection.fetchval("SELECT has_schema_privilege($1, $2)", SCHEMA, right)
    ]
    if missing:
        text = f"{user} lacks {' and '.join(missing)} on the schema {SCHEMA}"
        found.append(SchemaRemark(text, f"GRANT {', '.join(missing)} ON SCHEMA {SCHEMA} TO {user}", is_error=True))
    tables: dict[tuple[str, ...], list[str]] = {}
    for table, rights in TABLE_RIGHTS.items():
        lacking = await connection.fetchval(
            "SELECT array_agg(p) FROM unnest($2::text[]) AS p WHERE NOT has_table_privilege("
            "(SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = $3 AND c.relname = $1), p)",
            table,
            list(rights),
            SCHEMA,
        )
        if lacking:
            tables.setdefault(tuple(lacking), []).append(table)
    for lacking, names in tables.items():
        text = f"{user} lacks {', '.join(lacking)} on {', '.join(names)}"
        on = ", ".join(f"{SCHEMA}.{name}" for name in names)
        found.append(SchemaRemark(text, f"GRANT {', '.join(lacking)} ON {on} TO {user}", is_error=True))
    owner = await connection.fetchval(
        "SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class WHERE oid = to_regclass($1)"
        " AND NOT pg_has_role(relowner, 'USAGE')",
        f"{SCHEMA}.delivery",
    )
    if owner is not None:  # only an owner of a table may make a partition of it
        text = f"{user} may not make and use the tables of a campaign, which belong to {owner}"
        found.append(SchemaRemark(text, f"GRANT {owner} TO {user}", is_error=True))
    return found


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
