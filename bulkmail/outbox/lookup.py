"""Rows and deliveries by what names them: found by address, number or Message-ID, suppressed, erased."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bulkmail.model.delivery import check_move
from bulkmail.model.lazy import dataclass
from bulkmail.model.recipient import Address
from bulkmail.model.tally import Status
from bulkmail.outbox import sqlite_file
from bulkmail.outbox.entries import IS_COPY, Suppressed, storable
from bulkmail.outbox.lock import Lock, refuse_network
from bulkmail.outbox.sqlite_file import Moment

# -- Finding rows, tries and deliveries again: by what a report quotes, or page by page by key.


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


# -- What an outbox does with an address: suppressed while its deliveries are open, erased when all is done.


# -- Open deliveries that a suppression list names by now.


# The only delivery of a row whose message is redirected is no copy, although it goes elsewhere.
_OPEN = f"""
    SELECT d.id, r.number, r.address, r.content IS NOT NULL, d.forward_path,
           d.forward_path <> r.address AND {IS_COPY.format("d")}
    FROM delivery AS d JOIN row AS r ON r.number = d.row
    WHERE d.due_at IS NOT NULL AND d.status IN ('pending', 'deferred') AND d.ending_at IS NULL
"""
_OF_ROWS = _OPEN.replace("FROM delivery AS d", "FROM json_each(?) AS one CROSS JOIN delivery AS d ON d.row = one.value")
# A row's own address counts for its copies, too, also when the message has gone there already.
_TO = """
    SELECT DISTINCT d.row FROM delivery AS d
    WHERE (lower(d.forward_path) IN (SELECT value FROM json_each(?1))
           OR lower(substr(d.forward_path, instr(d.forward_path, '@'))) IN (SELECT value FROM json_each(?1)))
      AND EXISTS (SELECT 1 FROM delivery AS open WHERE open.row = d.row AND open.due_at IS NOT NULL)
"""
_SUPPRESS = "UPDATE delivery SET status = 'suppressed', due_at = NULL, reason = ? WHERE id = ?"


def rows_to(connection: sqlite3.Connection, keys: Collection[str]) -> list[int]:
    """Rows that have open deliveries and go to one of these `Address.key`s in ASCII, or `@domain`s; reads them all."""
    return [row for (row,) in connection.execute(_TO, (json.dumps(list(keys)),))]


def rows_with(connection: sqlite3.Connection, reason_of: Callable[[Address], str]) -> list[int]:
    """Rows that have open deliveries to an address with a reason on a suppression list; reads and asks them all."""
    query = "SELECT row, forward_path FROM delivery WHERE due_at IS NOT NULL"
    return list({row for row, path in connection.execute(query) if reason_of(_address(path))})


def suppress(
    connection: sqlite3.Connection, reason_of: Callable[[Address], str], *, rows: Collection[int] | None = None
) -> Suppressed:
    """Open deliveries whose address has a reason on a suppression list become SUPPRESSED; says how many there were.

    A row whose own address has one is left out with its copies.  Each address of a ready-made message counts for
    itself.  With `rows` only those are looked at.
    """
    for before in (Status.PENDING, Status.DEFERRED):
        check_move(before, Status.SUPPRESSED)
    found: dict[int, str] = {}
    left_out, copies = set[int](), 0
    last, why_row = 0, ""
    query, values = (_OPEN, ()) if rows is None else (_OF_ROWS, (json.dumps(list(rows)),))
    chosen = connection.execute(f"{query} ORDER BY d.id", values)
    for delivery, row, address, is_ready_made, path, is_copy in chosen:
        if row != last:
            last, why_row = row, "" if is_ready_made else reason_of(_address(address))
        reason = why_row or (reason_of(_address(path)) if is_copy or is_ready_made else "")
        if not reason:
            continue
        found[delivery] = storable(reason)
        if why_row or not is_copy:
            left_out.add(row)
        else:
            copies += 1
    connection.executemany(_SUPPRESS, [(reason, delivery) for delivery, reason in found.items()])
    return Suppressed(len(left_out), copies)


def _address(path: str) -> Address:
    local, _, domain = path.rpartition("@")
    return Address(local, domain)


# -- An address taken out of a finished outbox: its row's fields, its paths, and wherever else it is named.


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
    sqlite_file.check_exists(path)
    refuse_network(path)
    lock = Lock(path)
    try:
        opened = sqlite_file.connect(path)
        try:
            sqlite_file.check_identity(opened)
            return _erase(opened, key, dry_run=dry_run)
        finally:
            opened.close()
    finally:
        lock.release()


def _erase(opened: sqlite_file.OutboxFile, key: str, *, dry_run: bool) -> Erasure:
    with opened.reading() as connection:
        connection.execute("PRAGMA secure_delete = ON")
        connection.create_function("is_meant", 1, _is_meant(key), deterministic=True)
        connection.create_function("without", 1, _without(key), deterministic=True)
        found = [
            connection.execute(f"SELECT count(*) FROM {table} WHERE {column} IS NOT without({column})").fetchone()[0]
            for table, column in _TEXTS
        ]
        for table, column in (("row", "address"), ("delivery", "forward_path")):
            query = f"SELECT count(*) FROM {table} WHERE is_meant({column})"
            found.append(connection.execute(query).fetchone()[0])
        erasure = Erasure(sum(found), is_open=connection.execute(_UNFINISHED).fetchone() is not None)
        if dry_run or not erasure.records or erasure.is_open:
            return erasure
    with opened.writing() as connection:
        connection.execute(_OWN)
        connection.execute(_PATHS)
        for table, column in _TEXTS:
            connection.execute(
                f"UPDATE {table} SET {column} = without({column}) WHERE {column} IS NOT without({column})"
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
