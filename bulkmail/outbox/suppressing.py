"""Open deliveries that a suppression list names by now."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection

from bulkmail.model.delivery import Status, check_move
from bulkmail.model.recipient import Address
from bulkmail.outbox.encoding import IS_COPY, storable
from bulkmail.outbox.entries import Suppressed

# The only delivery of a row whose message is redirected is no copy, although it goes elsewhere.
_OPEN = f"""
    SELECT d.id, r.number, r.address, r.content IS NOT NULL, d.forward_path,
           d.forward_path <> r.address AND {IS_COPY.format("d")}
    FROM delivery AS d JOIN row AS r ON r.number = d.row
    WHERE d.due_at IS NOT NULL AND d.status IN ('pending', 'deferred') AND d.ending_at IS NULL
"""  # noqa: S608 (our own words only)
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
