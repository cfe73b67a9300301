"""What an outbox has to do, as values to work on; also what is left of planned times."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set

from bulkmail.model.delivery import Delivery, Job
from bulkmail.model.recipient import Address, Place, Recipient, RowFields, StoredRow
from bulkmail.model.schedule import Planned
from bulkmail.outbox.entries import IS_COPY, STATUS_OF, decode_fields, decode_recipient
from bulkmail.text import printable

# -- What an outbox has to do, as values to work on.


# One index answers both.  What is due again goes first: it has waited, and would expire behind a long list.  What was
# never tried is due since 0, and goes in the order of the input.
_AGAIN = "SELECT delivery.id FROM delivery WHERE queue = ? AND due_at > 0 AND due_at <= ? ORDER BY due_at, delivery.id"
_NEW = "SELECT delivery.id FROM delivery WHERE queue = ? AND due_at = 0 AND delivery.id > ? ORDER BY delivery.id"
_OPEN_BETWEEN = "SELECT id FROM delivery WHERE id > ? AND id <= ? AND due_at <= ? ORDER BY id"
_NEXT = "SELECT due_at FROM delivery WHERE queue = ? AND due_at > ? ORDER BY due_at LIMIT 1"
_OPEN = "SELECT count(*) FROM delivery WHERE queue = ? AND due_at IS NOT NULL"
_OPEN_COPIES = f"SELECT coalesce(sum({IS_COPY.format('delivery')}), 0), count(*) FROM delivery WHERE due_at IS NOT NULL"  # noqa: S608
# The same of a few ids, given as a JSON array: costs as many look-ups as there are ids, however long the list is.
_AMONG = "FROM json_each(?) AS wanted CROSS JOIN delivery ON delivery.id = wanted.value WHERE"
_TO = """
    SELECT coalesce(r.key, key_of(r.address)) AS named, d.id FROM row AS r JOIN delivery AS d ON d.row = r.number
    WHERE r.address <> '' AND named IN (SELECT value FROM json_each(?)) ORDER BY d.id
"""
# What has its end behind it is passed over; everything that may come back to life is not.
_SORT = """
    UPDATE delivery SET queue = {0} WHERE queue <> {0}
    AND status IN ('pending', 'deferred', 'in_doubt', 'rejected', 'expired')
"""
_BY_PATH = "queue_of(forward_path)"
_BY_ROW = """(
    SELECT queue_of(delivery.forward_path, r.address, r.name, r.fields, r.source, r.line, r.content, r.reverse_path)
    FROM row AS r WHERE r.number = delivery.row
)"""
_JOB = f"""
    SELECT d.id, d.row, d.forward_path, d.status, d.attempts, d.tries, d.due_at, d.first_at, {IS_COPY.format("d")},
           d.message_id, d.digest, d.in_doubt_before, r.address, r.name, r.fields, r.source, r.line,
           r.content, r.reverse_path, r.message_id
    FROM delivery AS d JOIN row AS r ON r.number = d.row
    WHERE d.ending_at IS NULL AND d.id IN ({{}})
"""  # noqa: S608 (our own words only)
_PENDING_ROWS = """
    SELECT DISTINCT r.number, r.address, r.name, r.fields, r.source, r.line
    FROM delivery AS d JOIN row AS r ON r.number = d.row
    WHERE d.row > ? AND d.status = 'pending' AND r.content IS NULL ORDER BY d.row LIMIT ?
"""
_PENDING_DELIVERIES = _PENDING_ROWS.replace("DISTINCT", "")  # sorting out copies costs more than reading the rows
_ROWS_OF = """
    SELECT source, line, fields FROM row WHERE number = ?1
    UNION ALL SELECT source, line, fields FROM (
        SELECT r.source, r.line, r.fields FROM part AS p JOIN row AS r ON r.number = p.row
        WHERE p.message = ?1 ORDER BY p.row
    )
"""
_SHARING = """
    SELECT r.number, r.address, r.line, r.fields, p.row, s.line, s.fields
    FROM part AS p JOIN row AS r ON r.number = p.message JOIN row AS s ON s.number = p.row
    ORDER BY p.message, p.row
"""
_SIZES = (1, 8, 64, 512)  # of a query for jobs: few different statements, so that each stays prepared


Ids = str | None
"""The ids of the only deliveries that are meant, as a JSON array; None means all."""

QueueOf = Callable[[str, Recipient | None, str], int]
"""The queue of a delivery, 0 or more, by its forward path, its recipient (None for a ready-made message) and the
reverse path of a ready-made message."""


def due(
    connection: sqlite3.Connection,
    now: float,
    *,
    limit: int,
    excluding: Collection[int],
    queue: int,
    after: int,
    wanted: Ids,
) -> list[Job]:
    """At most `limit` deliveries of `queue` due at `now` (wall clock) that are neither marked nor in `excluding`.

    Those never tried are behind the id `after`.  `wanted`, a JSON array of ids, leaves out all others.  Costs what it
    returns, what it excludes and what is wanted, however long the list is.
    """
    excluded = excluding if isinstance(excluding, (Set, Mapping)) else set(excluding)
    ids: list[int] = []
    for query, values in ((_AGAIN, (queue, now)), (_NEW, (queue, after))):
        for (number,) in _execute(connection, query, values, wanted=wanted):
            if len(ids) >= limit:
                break
            if number not in excluded:
                ids.append(number)
    found: dict[int, Job] = {}
    largest = _SIZES[-1]
    for start in range(0, len(ids), largest):
        _fetch(connection, ids[start : start + largest], found)
    return [found[number] for number in ids if number in found]


def open_between(connection: sqlite3.Connection, after: int, last: int, now: float) -> list[Job]:
    """The deliveries with these ids, `after` excluded, that could be tried at `now` (wall clock), by id."""
    found: dict[int, Job] = {}
    ids = [number for (number,) in connection.execute(_OPEN_BETWEEN, (after, last, now))]
    for start in range(0, len(ids), _SIZES[-1]):
        _fetch(connection, ids[start : start + _SIZES[-1]], found)
    return [found[number] for number in ids if number in found]


def pending_rows(connection: sqlite3.Connection, after: int, limit: int) -> list[tuple[int, Recipient]]:
    """The next rows behind number `after` that are pending and made from templates, by number."""
    return [
        (number, decode_recipient(address, name=name, fields=fields, source=source, line=line))
        for number, address, name, fields, source, line in connection.execute(_PENDING_ROWS, (after, limit))
    ]


def pending_in_brief(connection: sqlite3.Connection, after: int, limit: int) -> list[StoredRow]:
    """The same in brief, of at most `limit` deliveries; none only if there are none."""
    found: list[StoredRow] = []
    for number, address, name, fields, file, line in connection.execute(_PENDING_DELIVERIES, (after, limit)):
        if number != after:  # the next delivery of the same row
            found.append((number, address, name, decode_fields(fields), file, line))
            after = number
    return found


def rows_of(connection: sqlite3.Connection, message: int) -> tuple[RowFields, ...]:
    """The fields of the rows that share the message of this one, its own first."""
    return tuple(
        RowFields(decode_fields(fields), Place(source, line))
        for source, line, fields in connection.execute(_ROWS_OF, (message,))
    )


def message_of(connection: sqlite3.Connection, row: int) -> int:
    """The number of the row whose message `row` shares, or its own."""
    found = connection.execute("SELECT message FROM part WHERE row = ?", (row,)).fetchone()
    return int(found[0]) if found else row


def sharing_rows(connection: sqlite3.Connection) -> Iterator[tuple[int, str, int, bytes]]:
    """Message, address, line and fields of all rows that share a message, those of one message together, in order."""
    last = 0
    for message, address, line, fields, _, other_line, other_fields in connection.execute(_SHARING):
        if message != last:
            last = message
            yield message, address, line, fields
        yield message, address, other_line, other_fields


def repeated_rows(connection: sqlite3.Connection) -> Iterator[tuple[str, str, int, bytes]]:
    """Key, address, line and fields of all rows that share their key with a duplicate, those of one key together."""
    yield from connection.execute(
        "SELECT key, address, line, fields FROM row WHERE key IN"
        " (SELECT row.key FROM delivery JOIN row ON row.number = delivery.row WHERE delivery.status = 'duplicate')"
        " ORDER BY key, number"
    )


def lines_with(connection: sqlite3.Connection, status: str, limit: int) -> list[int]:
    """The lines that the first rows in `status` had in their list."""
    query = (
        "SELECT DISTINCT row.number, row.line FROM delivery JOIN row ON row.number = delivery.row"
        " WHERE delivery.status = ? ORDER BY delivery.id LIMIT ?"
    )
    return [int(line) for _, line in connection.execute(query, (status, limit))]


def suppressed_copies(connection: sqlite3.Connection, limit: int) -> tuple[int, list[int]]:
    """How many copies of pending rows are suppressed, and the lines of the first of these rows."""
    chosen = (
        "FROM delivery JOIN row ON row.number = delivery.row WHERE delivery.status = 'suppressed'"
        " AND EXISTS (SELECT 1 FROM delivery AS own WHERE own.row = delivery.row AND own.status = 'pending')"
    )
    (number,) = connection.execute(f"SELECT count(*) {chosen}").fetchone()
    lines = connection.execute(f"SELECT DISTINCT row.number, row.line {chosen} ORDER BY 1 LIMIT ?", (limit,))
    return int(number), [int(line) for _, line in lines]


def domains(connection: sqlite3.Connection, limit: int) -> list[str]:
    """The domains that are still to be written to, those with most recipients first."""
    query = (
        "SELECT substr(forward_path, instr(forward_path, '@') + 1) FROM delivery WHERE due_at IS NOT NULL"
        " GROUP BY 1 ORDER BY count(*) DESC LIMIT ?"
    )
    return [str(domain) for (domain,) in connection.execute(query, (limit,))]


def next_due(connection: sqlite3.Connection, queue: int, after: float, *, wanted: Ids) -> float | None:
    """The earliest time after `after` (wall clock, 0 or later) at which something wanted in `queue` is due."""
    found = _execute(connection, _NEXT, (queue, after), wanted=wanted).fetchone()
    return float(found[0]) if found else None


def count_open(connection: sqlite3.Connection, queue: int, *, wanted: Ids) -> int:
    """How many of the wanted deliveries of `queue` sending goes on with."""
    return int(_execute(connection, _OPEN, (queue,), wanted=wanted).fetchone()[0])


def count_wanted(connection: sqlite3.Connection, wanted: str) -> tuple[int, int]:
    """How many rows, and how many deliveries, of the wanted ones sending goes on with."""
    copies, deliveries = connection.execute(_OPEN_COPIES.replace("FROM delivery WHERE", _AMONG), (wanted,)).fetchone()
    return deliveries - copies, deliveries


def deliveries_to(connection: sqlite3.Connection, keys: str) -> dict[str, list[int]]:
    """The deliveries of the rows whose `Address.key` is in the JSON array `keys`, by key.  Reads all rows."""

    def key_of(path: str) -> str:
        local, _, domain = path.rpartition("@")
        return Address(local, domain).key

    found: dict[str, list[int]] = {}
    connection.create_function("key_of", 1, key_of, deterministic=True)
    for key, number in connection.execute(_TO, (keys,)):
        found.setdefault(key, []).append(number)
    connection.create_function("key_of", 1, None)
    return found


def _execute(connection: sqlite3.Connection, query: str, values: tuple[float, ...], *, wanted: Ids) -> sqlite3.Cursor:
    """Runs one of the queries above, over all deliveries or over those that are wanted."""
    if wanted is None:
        return connection.execute(query, values)
    return connection.execute(query.replace("FROM delivery WHERE", _AMONG), (wanted, *values))


def sort_into_queues(connection: sqlite3.Connection, queue_of: QueueOf, *, reads_rows: bool) -> None:
    """Puts every delivery that may still be sent into the queue that `queue_of` says."""

    def by_path(path: str) -> int:
        return queue_of(path, None, "")

    def by_row(
        path: str, address: str, name: str, fields: bytes, source: str, line: int, content: bytes | None, reverse: str
    ) -> int:
        if content is not None:
            return queue_of(path, None, reverse)
        return queue_of(path, decode_recipient(address, name=name, fields=fields, source=source, line=line), "")

    if reads_rows:
        connection.create_function("queue_of", 8, by_row, deterministic=True)
        connection.execute(_SORT.format(_BY_ROW))
        connection.create_function("queue_of", 8, None)
    else:
        connection.create_function("queue_of", 1, by_path, deterministic=True)
        connection.execute(_SORT.format(_BY_PATH))
        connection.create_function("queue_of", 1, None)


def _fetch(connection: sqlite3.Connection, ids: Sequence[int], found: dict[int, Job]) -> None:
    size = next(size for size in _SIZES if size >= len(ids))
    query = _JOB.format(",".join("?" * size))
    for columns in connection.execute(query, [*ids, *[ids[-1]] * (size - len(ids))]):
        found[columns[0]] = _job(columns)


def _job(columns: tuple) -> Job:  # type: ignore[type-arg]
    (number, row, path, status, attempts, tries, due_at, first_at, is_copy) = columns[:9]
    (marked_id, digest, in_doubt_before, address, name, fields, source, line) = columns[9:17]
    (content, reverse_path, message_id) = columns[17:]
    delivery = Delivery(number, row, path, STATUS_OF[status], attempts, tries, due_at, first_at, bool(is_copy))
    recipient = None
    if content is None:
        local, _, domain = address.rpartition("@")  # as `decode_recipient()`: this is done for each message
        recipient = Recipient(Address(local, domain), name, decode_fields(fields), Place(source, line))
    return Job(delivery, recipient, content, digest, bool(in_doubt_before), reverse_path, message_id or marked_id)


# -- What is left of planned times: rows never tried that have a time of their own.


_PLANNED = "status = 'pending' AND tries = 0 AND ending_at IS NULL AND due_at IS NOT NULL"
_IS_OWN = f"NOT {IS_COPY.format('d')}"
_COUNTS = f"""
    SELECT coalesce(sum(due_at <= :now), 0), coalesce(sum(due_at > :now), 0),
           min(CASE WHEN due_at > :now THEN due_at END), max(CASE WHEN due_at > :now THEN due_at END)
    FROM delivery AS d WHERE {_PLANNED} AND {_IS_OWN}
"""  # noqa: S608 (our own words only)
_ZONES = f"""
    SELECT (SELECT value FROM json_each(CAST(r.fields AS TEXT)) WHERE key = :column), count(*)
    FROM delivery AS d JOIN row AS r ON r.number = d.row WHERE {_PLANNED} AND {_IS_OWN} GROUP BY 1
"""  # noqa: S608
_DEMAND = f"""
    SELECT max(min(due_at), :now), count(*) FROM delivery AS d WHERE {_PLANNED}
    GROUP BY CASE WHEN due_at <= :now THEN 0 ELSE CAST(due_at / 3600 AS INTEGER) END ORDER BY 1 LIMIT :most
"""  # noqa: S608
_LAST = "SELECT max(due_at) FROM delivery WHERE status = 'pending' AND tries = 0"
_LONGEST = 60  # characters of a zone's name


def planned(connection: sqlite3.Connection, now: float, *, zone_column: str, fallback: str) -> Planned:
    """What is planned at `now`, wall-clock seconds; rows without a value in `zone_column` count as `fallback`.

    Without a time that is still to come there are no zones.
    """
    at_once, later, first, last = connection.execute(_COUNTS, {"now": now}).fetchone()
    zones = Counter[str]()
    if zone_column and later:  # reads the fields of all rows
        for name, number in connection.execute(_ZONES, {"column": zone_column}):
            said = " ".join(str("" if name is None else name).split())
            zones[printable(said, _LONGEST) or fallback] += number
    return Planned(int(at_once), int(later), first, last, tuple(zones.most_common()))


def demand(connection: sqlite3.Connection, now: float, *, most: int) -> list[tuple[float, int]]:
    """From when on how many deliveries may go, by the hour: at most the first `most` hours."""
    return [(float(at), int(number)) for at, number in connection.execute(_DEMAND, {"now": now, "most": most})]


def last_planned(connection: sqlite3.Connection) -> float:
    """The latest time, wall-clock seconds, at which a delivery never tried is due; 0 when there is none."""
    (last,) = connection.execute(_LAST).fetchone()
    return float(last or 0.0)
