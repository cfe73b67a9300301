"""What goes into an outbox and comes out of it: how values are written into columns, and rows a thousand at a time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field, fields, is_dataclass
from types import MappingProxyType
from typing import NamedTuple

import msgspec
from msgspec import Struct

from bulkmail.model.campaign import Campaign
from bulkmail.model.delivery import AttemptResult
from bulkmail.model.errors import OutboxError
from bulkmail.model.feedback_event import CameBack
from bulkmail.model.lazy import dataclass
from bulkmail.model.outcome import Reply
from bulkmail.model.quantities import Literal, read_number
from bulkmail.model.recipient import Address, BadRow, Place, PlainRows, Recipient
from bulkmail.model.tally import Status
from bulkmail.outbox.sqlite_file import statements

# -- What goes into an outbox and what comes out of it, and how values are written into columns and read back.


# -- What goes into an outbox and what comes out of it.


@dataclass(frozen=True, slots=True)
class ReadyMade:
    """A finished message in place of a row that templates make one from.

    `content` is wire bytes as `Message` has them.  `reverse_path` is an address or empty for the null path.  `label` is
    what people know the message by: a subject, a file name.
    """

    content: bytes = field(repr=False)
    reverse_path: str
    message_id: str
    label: str


_NONE: Mapping[str, str] = MappingProxyType({})


class Entry(NamedTuple):
    """One input row on its way into the outbox.

    `status` is PENDING, or why nothing is sent: INVALID, FILTERED, SUPPRESSED, DUPLICATE, with the `reason` in
    words (a `BadRow` may leave it to its own).  `forward_paths` are addresses without angle brackets; empty means the
    recipient's own.  A `ReadyMade` has at least one.  `suppressed` are those of a pending row that are left out all the
    same, with the reason of each.  `due_at`, in wall-clock seconds, is when a pending row may be tried first; 0 is at
    once.  Rows with the same `group`, if it is not empty, share a message.
    """

    row: Recipient | BadRow | ReadyMade
    status: Status = Status.PENDING
    reason: str = ""
    forward_paths: tuple[str, ...] = ()
    suppressed: Mapping[str, str] = _NONE
    due_at: float = 0.0
    group: bytes = b""


class Fold(Struct, frozen=True):
    """It is time to move what the journal of turns holds into the tables."""


class PathRecord(Struct, frozen=True, kw_only=True):
    """One address that a row is sent to, and what has become of that.

    `code`, `enhanced` and `reply` are the server's last words, `error` what broke where it had none; `reason` says
    either in a word or three, or why nothing was sent.  `attempts` counts every try.  Times are wall clock.
    `overruled` says who took it out of doubt, where no server did, and when.  `came_back` is not the outbox's: reports
    put it there.
    """

    address: str
    status: Status
    code: int | None
    enhanced: str
    reply: str
    reason: str
    attempts: int
    relay: str
    message_id: str
    first_at: float | None
    last_at: float | None
    error: str
    overruled: str = ""
    came_back: CameBack | None = None


class RowRecord(PathRecord, frozen=True, kw_only=True):
    """One input row and what has become of its own recipient; `copies` are the other addresses it is sent to.

    `run_number` says which run under its name it belongs to, where a report is about several.  `shares` is the number
    of the earlier row whose message it shares, which tolerates the copies; 0: it has its own.
    """

    row: int
    place: Place
    name: str
    fields: Mapping[str, object]
    copies: tuple[PathRecord, ...] = ()
    run_number: int = 0
    shares: int = 0


AcceptedRow = tuple[int, int, int, bytes, int, str, str, int, str, str, float | None, float | None]
"""What a report's table says of an accepted row that has one delivery: its id, the row's number, 1, the fields as JSON,
code, enhanced code, reply, tries, relay, Message-ID, and when the first and the last try were."""


@dataclass(frozen=True, slots=True)
class Doubtful:
    """A delivery in doubt.  `is_alone`: no other delivery of the run has its Message-ID.

    `is_retried`: it is to be sent again, and has not been yet.
    """

    delivery: int
    row: int
    forward_path: str
    message_id: str
    is_alone: bool
    is_retried: bool = False


class Suppressed(NamedTuple):
    """How many rows became SUPPRESSED, and how many copies of rows that go on."""

    rows: int
    copies: int


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One try for one row.  `at` is wall-clock seconds, `took` seconds; `code` is None where no reply came."""

    row: int
    address: str
    at: float
    took: float
    relay: str
    code: int | None
    enhanced: str
    outcome: str
    reason: str


# -- How the model's values are written into columns and read back.


# A row's deliveries follow one another, its own recipient first, and ids are dense.
IS_COPY = "EXISTS (SELECT 1 FROM delivery AS before WHERE before.id = {0}.id - 1 AND before.row = {0}.row)"
"""Whether a delivery goes to another address of its row than the recipient's own; to be formatted with its alias."""

STATUS_OF: dict[str, Status] = {status.value: status for status in Status}  # four times as fast as Status(text)


def written(value: object) -> msgspec.Raw:
    """For encoders of JSON: what stands for a `Literal`.  Raises `TypeError` for anything else."""
    if isinstance(value, Literal):
        return msgspec.Raw(value.text.encode())
    raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")


_to_json = msgspec.json.Encoder(enc_hook=written).encode
_from_json = msgspec.json.Decoder(dict[str, object], float_hook=read_number).decode


def storable(text: str) -> str:
    """`text` with lone surrogates, which UTF-8 and so SQLite cannot hold, replaced by `?`."""
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode()


def encode_texts(fields: dict[str, str]) -> bytes:
    """What `encode_fields` makes of cells that are all text without a lone surrogate."""
    return _to_json(fields)


def encode_fields(fields: Mapping[str, object], *, place: Place | None) -> bytes:
    """The cells as JSON.  Dates, decimals and the like become text; raises `OutboxError` for what JSON cannot say."""
    cells = fields if type(fields) is dict else dict(fields)
    try:
        return _to_json(cells)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(cells, enc_hook=float), ensure_ascii=False).encode("utf-8", "replace")
    except (TypeError, ValueError, RecursionError) as error:
        raise OutboxError(
            f"{place or 'a row'}: a field cannot be recorded: {error}",
            hint="use text, numbers, true, false, null, lists and objects of such",
        ) from error


decode_fields: Callable[[bytes], dict[str, object]] = _from_json
"""The cells that `encode_fields` wrote."""


def decode_recipient(address: str, *, name: str, fields: bytes, source: str, line: int) -> Recipient:
    """The recipient of a stored row.  Its address was checked when it came in."""
    local, _, domain = address.rpartition("@")
    return Recipient(Address(local, domain), name, _from_json(fields), Place(source, line))


def encode_campaign(campaign: Campaign) -> bytearray:
    """The whole campaign, attachments included, as MessagePack.  Raises `OutboxError`, and `MemoryError`."""
    # Made here and large enough: when msgspec 0.22 finds no memory to enlarge a buffer of its own, the process crashes.
    buffer = bytearray(_most_bytes(campaign))
    try:
        msgspec.msgpack.Encoder().encode_into(campaign, buffer)
        return buffer
    except (UnicodeEncodeError, OverflowError) as error:
        raise OutboxError(f"the campaign {campaign.name!r} cannot be recorded: {error}") from error


def _most_bytes(value: object) -> int:
    """At least as many as `value` takes in MessagePack."""
    match value:
        case bytes():
            return 5 + len(value)
        case str():
            return 5 + 4 * len(value)
        case tuple():
            return 5 + sum(map(_most_bytes, value))
        case _ if is_dataclass(value):
            return 5 + sum(_most_bytes(part.name) + _most_bytes(getattr(value, part.name)) for part in fields(value))
        case _:
            return 9


def decode_campaign(data: bytes) -> Campaign:
    """The campaign that `encode_campaign` wrote.  Raises `msgspec.DecodeError` when it is damaged."""
    return msgspec.msgpack.decode(data, type=Campaign)


def attempt_columns(attempt: AttemptResult) -> tuple[object, ...]:
    """The columns of the table `attempt` behind `delivery`."""
    event, verdict = attempt.event, attempt.verdict
    ended: tuple[object, ...]
    if isinstance(event, Reply):
        ended = (event.stage._value_, event.code, storable(event.enhanced), storable(event.text), None)
    else:
        ended = (event.stage._value_, None, "", storable(event.what), event.kind._value_)
    judged = (verdict.outcome._value_, verdict.scope._value_, storable(verdict.says), verdict.counts)
    return (attempt.at, attempt.took, storable(attempt.relay), *ended, *judged)


# -- How input rows come into a new outbox: a thousand at a time, then once over all of them.


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
