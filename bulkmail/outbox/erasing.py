"""An address taken out of a finished outbox: its row's fields, its paths, and wherever else it is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bulkmail.model.lazy import dataclass
from bulkmail.model.recipient import Address
from bulkmail.outbox import store
from bulkmail.outbox.lock import Lock
from bulkmail.outbox.mounts import refuse_network

# Which columns may name an address, beside those that are one.
_TEXTS = (
    ("row", "fields"),
    ("row", "name"),
    ("row", "content"),
    ("row", "reverse_path"),
    ("delivery", "reason"),
    ("attempt", "text"),
    ("setting", "value"),
)
_OWN = (
    "UPDATE row SET address = '', name = '', key = NULL, fields = CAST('{}' AS BLOB),"
    " content = CASE WHEN content IS NULL THEN NULL ELSE CAST('' AS BLOB) END WHERE is_meant(address)"
)
_PATHS = "UPDATE delivery SET forward_path = '' WHERE is_meant(forward_path)"
_UNFINISHED = "SELECT 1 FROM delivery WHERE due_at IS NOT NULL OR status = 'in_doubt' LIMIT 1"


@dataclass(frozen=True, slots=True)
class Erasure:
    """How many records of an outbox name the address.  `is_open`: some of its rows are open or in doubt."""

    records: int
    is_open: bool = False


def needles(key: str) -> tuple[str, ...]:
    """How an address with this `Address.key` may be written, in lower case."""
    local, _, domain = key.rpartition("@")
    return tuple(dict.fromkeys([key, Address(local, domain).readable.casefold()]))


def pattern(key: str) -> re.Pattern[bytes]:
    """The address in the bytes of any file."""
    found = b"|".join(re.escape(needle.encode()) for needle in needles(key))
    return re.compile(found, re.IGNORECASE)


def erase(path: Path, key: str, *, dry_run: bool = False) -> Erasure:
    """Blanks the address with this `Address.key` in the outbox at `path`; where rows are open or in doubt, nothing.

    With `dry_run` it is only looked for.  Raises `OutboxBusy` while a process sends from it, `OutboxError`.
    """
    path = path.resolve()
    store.check_exists(path)
    refuse_network(path)
    lock = Lock(path)
    try:
        opened = store.connect(path)
        try:
            store.check_identity(opened)
            return _erase(opened, key, dry_run=dry_run)
        finally:
            opened.close()
    finally:
        lock.release()


def _erase(opened: store.Store, key: str, *, dry_run: bool) -> Erasure:
    with opened.reading() as connection:
        connection.execute("PRAGMA secure_delete = ON")
        connection.create_function("is_meant", 1, _is_meant(key), deterministic=True)
        connection.create_function("without", 1, _without(key), deterministic=True)
        found = [
            connection.execute(f"SELECT count(*) FROM {table} WHERE {column} IS NOT without({column})").fetchone()[0]  # noqa: S608
            for table, column in _TEXTS
        ]
        for table, column in (("row", "address"), ("delivery", "forward_path")):
            query = f"SELECT count(*) FROM {table} WHERE is_meant({column})"  # noqa: S608 (our own words only)
            found.append(connection.execute(query).fetchone()[0])
        erasure = Erasure(sum(found), is_open=connection.execute(_UNFINISHED).fetchone() is not None)
        if dry_run or not erasure.records or erasure.is_open:
            return erasure
    with opened.writing() as connection:
        connection.execute(_OWN)
        connection.execute(_PATHS)
        for table, column in _TEXTS:
            connection.execute(
                f"UPDATE {table} SET {column} = without({column}) WHERE {column} IS NOT without({column})"  # noqa: S608
            )
    with opened.reading() as connection:
        connection.execute("VACUUM")
    return erasure


def _is_meant(key: str) -> Callable[[object], bool]:
    def is_meant(path: object) -> bool:
        local, at, domain = str(path).rpartition("@")
        return bool(at) and Address(local, domain).key == key

    return is_meant


def _without(key: str) -> Callable[..., Any]:
    in_bytes = pattern(key)
    in_text = re.compile("|".join(re.escape(needle) for needle in needles(key)), re.IGNORECASE)

    def without(value: Any) -> Any:
        if isinstance(value, bytes):
            return in_bytes.sub(b"", value)
        return in_text.sub("", value) if isinstance(value, str) else value

    return without
