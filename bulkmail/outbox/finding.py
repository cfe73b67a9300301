"""Finding rows, tries and deliveries again: by what a report quotes, or page by page by key."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import msgspec

from bulkmail.model.delivery import Status
from bulkmail.outbox.sqlite_file import Moment

# -- Finding deliveries again by what a report quotes: numbers, Message-IDs, addresses.


# ruff: noqa: S608 - statements are put together of our own words; values are always bound


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


# -- Pages of rows and of tries, found by key: the last page costs as much as the first.


_FOUND = "SELECT d.id, d.row FROM delivery AS d WHERE d.id > ? AND d.status <> 'grouped' {} ORDER BY d.id LIMIT ?"
_BY_STATUS = "AND d.status = ?"
_BY_ADDRESS = "AND d.forward_path LIKE ? ESCAPE '!'"
_TRIES = """
    SELECT a.id, d.row, d.forward_path, a.at, a.took, a.relay, a.stage, a.code, a.enhanced, a.text, a.breakage,
           a.outcome, a.reason
    FROM attempt AS a JOIN delivery AS d ON d.id = a.delivery
"""
_TRIES_AFTER = f"{_TRIES} WHERE a.id > ? ORDER BY a.id LIMIT ?"
_TRIES_OF = f"{_TRIES} WHERE d.row = ? ORDER BY a.id LIMIT ?"
MOST_TRIES = 500  # of a row


class Try(NamedTuple):
    """One try, with all that was said.  `text` is the server's words, or, with a `breakage`, what broke."""

    id: int
    row: int
    address: str
    at: float
    took: float
    relay: str
    stage: str
    code: int | None
    enhanced: str
    text: str
    breakage: str | None
    outcome: str
    reason: str


def find_page(
    connection: sqlite3.Connection, *, after: int, status: Status | None, address: str, limit: int
) -> list[tuple[int, int]]:
    """Deliveries behind the id `after` with this status and with `address` somewhere in theirs: id and row of each."""
    wanted: list[Any] = [after]
    filters = ""
    if status is not None:
        filters += _BY_STATUS
        wanted.append(status.value)
    if address:
        filters += _BY_ADDRESS
        wanted.append(f"%{_escaped(address)}%")
    return connection.execute(_FOUND.format(filters), (*wanted, limit)).fetchall()


def _escaped(text: str) -> str:
    for character in "!%_":
        text = text.replace(character, f"!{character}")
    return text


def tries_after(connection: sqlite3.Connection, after: int, limit: int) -> list[Try]:
    """The tries behind the id `after`, in the order in which they ended, without those that are not folded yet."""
    return [Try(*columns) for columns in connection.execute(_TRIES_AFTER, (after, limit))]


def tries_of(connection: sqlite3.Connection, row: int) -> list[Try]:
    """The tries of a row and of its copies, in the order in which they ended."""
    return [Try(*columns) for columns in connection.execute(_TRIES_OF, (row, MOST_TRIES))]
