"""Open deliveries that a suppression list names by now."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from bulkmail.model.address import Address
from bulkmail.model.delivery import Status, check_move
from bulkmail.outbox.counting import IS_COPY
from bulkmail.outbox.encoding import storable
from bulkmail.outbox.entries import Suppressed

# The only delivery of a row whose message is redirected is no copy, although it goes elsewhere.
_OPEN = f"""
    SELECT d.id, r.number, r.address, r.content IS NOT NULL, d.forward_path,
           d.forward_path <> r.address AND {IS_COPY.format("d")}
    FROM delivery AS d JOIN row AS r ON r.number = d.row
    WHERE d.due_at IS NOT NULL AND d.status IN ('pending', 'deferred') AND d.ending_at IS NULL ORDER BY d.id
"""  # noqa: S608 (our own words only)
_SUPPRESS = "UPDATE delivery SET status = 'suppressed', due_at = NULL, reason = ? WHERE id = ?"


def suppress(connection: sqlite3.Connection, reason_of: Callable[[Address], str]) -> Suppressed:
    """Open deliveries whose address has a reason not to be written to become SUPPRESSED; says how many there were.

    A row whose own address has one is left out with its copies.  Each address of a ready-made message counts
    for itself.
    """
    for before in (Status.PENDING, Status.DEFERRED):
        check_move(before, Status.SUPPRESSED)
    found: dict[int, str] = {}
    rows, copies = set[int](), 0
    last, why_row = 0, ""
    for delivery, row, address, is_ready_made, path, is_copy in connection.execute(_OPEN):
        if row != last:
            last, why_row = row, "" if is_ready_made else reason_of(_address(address))
        reason = why_row or (reason_of(_address(path)) if is_copy or is_ready_made else "")
        if not reason:
            continue
        found[delivery] = storable(reason)
        if why_row or not is_copy:
            rows.add(row)
        else:
            copies += 1
    connection.executemany(_SUPPRESS, [(reason, delivery) for delivery, reason in found.items()])
    return Suppressed(len(rows), copies)


def _address(path: str) -> Address:
    local, _, domain = path.rpartition("@")
    return Address(local, domain)
