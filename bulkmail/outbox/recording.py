"""How input rows come into a new outbox: a thousand at a time, then once over all of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from bulkmail.model.delivery import Status
from bulkmail.model.errors import OutboxError
from bulkmail.model.recipient import BadRow, PlainRows, Recipient
from bulkmail.outbox.entries import Entry, ReadyMade, encode_fields, encode_texts, storable
from bulkmail.outbox.sqlite_file import statements

_RECORDABLE = frozenset({Status.PENDING, Status.INVALID, Status.FILTERED, Status.SUPPRESSED, Status.DUPLICATE})
_PENDING = Status.PENDING  # by a name of ours: looking it up in the enum costs more than what is done with it
_SLICE = 1_000

_ROW = """
    INSERT INTO row (number, source, line, address, name, key, fields, content, reverse_path, message_id)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_PLAIN_ROW = "INSERT INTO row (number, source, line, address, name, key, fields) VALUES (?, ?, ?, ?, ?, ?, ?)"
# Nearly every row has one path, its own address, and is pending.  Copying those inside SQLite costs a quarter of
# handing them over once more (0.9 µs a row, not 3.9).
_OWN_PATHS = """
    INSERT INTO delivery (id, row, forward_path, status, due_at)
    SELECT number + ?, number, address, 'pending', 0.0 FROM row WHERE number > ? AND number <= ?
"""
_SCREENED = "UPDATE delivery SET status = ?, due_at = NULL, reason = ? WHERE id = ?"
_PLANNED = "UPDATE delivery SET due_at = ? WHERE id = ?"
_ALL_PLANNED = "UPDATE delivery SET due_at = ? WHERE id > ? AND id <= ?"
_DELIVERY = "INSERT INTO delivery (id, row, forward_path, status, due_at, reason) VALUES (?, ?, ?, ?, ?, ?)"

_GROUPING = "INSERT INTO grouping (row, key, address, is_bad) VALUES (?, ?, ?, ?)"

KEEP_SAMPLE = """
    UPDATE delivery SET status = 'filtered', due_at = NULL, reason = ?
    WHERE status = 'pending'
    AND row NOT IN (SELECT DISTINCT row FROM delivery WHERE status = 'pending' ORDER BY random() LIMIT ?)
"""
"""Leaves a number of pending rows, drawn by lot; its values are the reason of the others and the number."""

_RowColumns = tuple[int, str, int, str, str, str | None, bytes, bytes | None, str, str]


def record(
    connection: sqlite3.Connection,
    entries: Iterable[Entry | PlainRows],
    *,
    rows: int,
    deliveries: int,
    allow_duplicates: bool,
) -> tuple[int, int]:
    """Adds `entries` behind the `rows` and `deliveries` that are there; returns how many there are now.

    Memory stays flat however many come.  Runs inside the caller's transaction.
    """
    with_key = not allow_duplicates
    some: list[Entry] = []
    for entry in entries:
        if isinstance(entry, PlainRows) or len(some) == _SLICE:
            deliveries = _insert(connection, some, rows=rows, deliveries=deliveries, with_key=with_key)
            rows += len(some)
            some = []
        if isinstance(entry, PlainRows):
            _insert_plain(connection, entry, rows=rows, deliveries=deliveries, with_key=with_key)
            rows, deliveries = rows + len(entry.rows), deliveries + len(entry.rows)
        else:
            some.append(entry)
    deliveries = _insert(connection, some, rows=rows, deliveries=deliveries, with_key=with_key)
    return rows + len(some), deliveries


def _insert_plain(
    connection: sqlite3.Connection, block: PlainRows, *, rows: int, deliveries: int, with_key: bool
) -> None:
    file = storable(block.file)
    columns = [
        (number, file, line, address, name, key if with_key else None, encode_texts(fields))
        for number, (line, address, name, key, fields) in enumerate(block.rows, rows + 1)
    ]
    connection.executemany(_PLAIN_ROW, columns)
    connection.execute(_OWN_PATHS, (deliveries - rows, rows, rows + len(columns)))
    if len(set(block.due_at)) == 1:
        connection.execute(_ALL_PLANNED, (block.due_at[0], deliveries, deliveries + len(columns)))
    elif block.due_at:
        planned = ((due_at, deliveries + i) for i, due_at in enumerate(block.due_at, 1) if due_at)
        connection.executemany(_PLANNED, planned)


def _insert(connection: sqlite3.Connection, entries: list[Entry], *, rows: int, deliveries: int, with_key: bool) -> int:
    """Adds some rows; returns how many deliveries there are now."""
    if not entries:
        return deliveries
    columns = [_columns(entry, rows + i, with_key=with_key) for i, entry in enumerate(entries, 1)]
    connection.executemany(_ROW, columns)
    connection.executemany(_GROUPING, [_grouping(entry, rows + i) for i, entry in enumerate(entries, 1) if entry.group])
    if not all(
        not entry.forward_paths or entry.forward_paths == (row[3],) for entry, row in zip(entries, columns, strict=True)
    ):
        return _insert_paths(connection, entries, rows=rows, deliveries=deliveries)
    connection.execute(_OWN_PATHS, (deliveries - rows, rows, rows + len(entries)))
    connection.executemany(
        _SCREENED,
        [
            (entry.status.value, _reason(entry), deliveries + i)
            for i, entry in enumerate(entries, 1)
            if entry.status is not _PENDING
        ],
    )
    connection.executemany(
        _PLANNED,
        [
            (entry.due_at, deliveries + i)
            for i, entry in enumerate(entries, 1)
            if entry.due_at and entry.status is _PENDING
        ],
    )
    return deliveries + len(entries)


def finish(connection: sqlite3.Connection, now: float, *, is_grouped: bool) -> None:
    """Finds the duplicates, or the rows that share a message, and builds the indices, in the caller's transaction."""
    parts = ("grouped.sql", "loaded.sql") if is_grouped else ("loaded.sql", "duplicates.sql")
    for statement in (statement for part in parts for statement in statements(part)):
        connection.execute(statement)
    connection.execute("UPDATE run SET loaded_at = ?, row_count = (SELECT count(*) FROM row)", (now,))


def _insert_paths(connection: sqlite3.Connection, entries: list[Entry], *, rows: int, deliveries: int) -> int:
    found = []
    for number, entry in enumerate(entries, rows + 1):
        for path in _paths(entry):
            deliveries += 1
            status, reason = entry.status, _reason(entry)
            if status is _PENDING and path in entry.suppressed:
                status, reason = Status.SUPPRESSED, storable(entry.suppressed[path])
            due_at = entry.due_at if status is _PENDING else None
            found.append((deliveries, number, path, status.value, due_at, reason))
    connection.executemany(_DELIVERY, found)
    return deliveries


def _grouping(entry: Entry, number: int) -> tuple[int, bytes, str, bool]:
    row = entry.row
    address = row.address.key if isinstance(row, Recipient) else ""
    return number, entry.group, address, entry.status is not _PENDING


def _paths(entry: Entry) -> tuple[str, ...]:
    return tuple(dict.fromkeys(entry.forward_paths)) or (_address(entry),)


def _address(entry: Entry) -> str:
    row = entry.row
    if isinstance(row, Recipient):
        return row.address.wire
    return entry.forward_paths[0] if isinstance(row, ReadyMade) else ""


def _reason(entry: Entry) -> str:
    return storable(entry.reason or (entry.row.reason if isinstance(entry.row, BadRow) else ""))


def _columns(entry: Entry, number: int, *, with_key: bool) -> _RowColumns:
    """The row as it is stored.  Only who would be written to takes part in the search for duplicates."""
    row = entry.row
    if not (entry.status is _PENDING and isinstance(row, Recipient)):  # what nearly all are, and nothing to object to
        _check(entry, number)
    if isinstance(row, ReadyMade):
        path, label = entry.forward_paths[0], storable(row.label)
        return number, "<messages>", number, path, label, None, b"{}", row.content, row.reverse_path, row.message_id
    key, address, name = None, "", ""
    if isinstance(row, Recipient):
        address, name = row.address.wire, storable(row.name)
        if with_key and entry.status is _PENDING:
            key = row.address.key
    file, fields = storable(row.place.file), encode_fields(row.fields, place=row.place)
    return number, file, row.place.line, address, name, key, fields, None, "", ""


def _check(entry: Entry, number: int) -> None:
    """Raises `OutboxError` for an entry without a recipient, or one with a result already: a bug of the caller."""
    if entry.status not in _RECORDABLE:
        raise OutboxError(f"row {number} comes with the status {entry.status.value}, which only sending can give")
    if entry.status is Status.PENDING and isinstance(entry.row, BadRow):
        raise OutboxError(f"row {number} is a bad row and cannot be pending")
    if isinstance(entry.row, ReadyMade) and not entry.forward_paths:
        raise OutboxError(f"row {number} is a ready-made message without a recipient: it has no forward path")
