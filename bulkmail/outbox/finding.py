"""Finding deliveries again by what a report quotes: numbers, Message-IDs, addresses."""

# ruff: noqa: S608 - statements are put together of our own words; values are always bound

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator
from typing import NamedTuple

import msgspec

from bulkmail.outbox.shape import Moment

_COLUMNS = """
    SELECT d.id, d.row, d.forward_path, CASE WHEN r.message_id <> '' THEN r.message_id ELSE d.message_id END,
           d.status IN ('accepted', 'in_doubt'), d.first_at
    FROM delivery AS d JOIN row AS r ON r.number = d.row
"""
_BY_ID = f"{_COLUMNS} WHERE d.id IN (SELECT value FROM json_each(?))"
_BY_ROW = f"{_COLUMNS} WHERE d.row IN (SELECT value FROM json_each(?)) ORDER BY d.id"
# One look at all deliveries, for any number of wanted texts: no index is kept for them.
_BY_MESSAGE_ID = f"""
    {_COLUMNS} WHERE d.message_id IN (SELECT value FROM json_each(?1))
    OR r.message_id IN (SELECT value FROM json_each(?1)) ORDER BY d.id
"""
_BY_PATH = f"{_COLUMNS} WHERE lower(d.forward_path) IN (SELECT value FROM json_each(?)) ORDER BY d.id"


class FoundDelivery(NamedTuple):
    """One forward path of one row.  `was_sent`: it was accepted, or may have been; `first_at` is wall-clock seconds."""

    id: int
    row: int
    forward_path: str
    message_id: str
    was_sent: bool
    first_at: float | None


_ROW = tuple[int, int, str, str, int, Moment | None]


def by_numbers(connection: sqlite3.Connection, ids: Collection[int]) -> Iterator[FoundDelivery]:
    """The deliveries with these numbers."""
    return _found(connection, _BY_ID, ids)


def by_rows(connection: sqlite3.Connection, rows: Collection[int]) -> Iterator[FoundDelivery]:
    """All deliveries of these rows."""
    return _found(connection, _BY_ROW, rows)


def by_message_ids(connection: sqlite3.Connection, message_ids: Collection[str]) -> Iterator[FoundDelivery]:
    """All deliveries of the messages with these Message-IDs."""
    return _found(connection, _BY_MESSAGE_ID, message_ids)


def by_paths(connection: sqlite3.Connection, paths: Collection[str]) -> Iterator[FoundDelivery]:
    """The deliveries to these addresses, which are in lower case."""
    return _found(connection, _BY_PATH, paths)


def _found(
    connection: sqlite3.Connection, query: str, wanted: Collection[int] | Collection[str]
) -> Iterator[FoundDelivery]:
    for columns in connection.execute(query, (json.dumps(list(wanted)),)):
        number, row, path, message_id, was_sent, first_at = msgspec.convert(columns, _ROW)
        yield FoundDelivery(number, row, path, message_id, bool(was_sent), first_at)
