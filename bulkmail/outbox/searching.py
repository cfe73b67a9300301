"""Pages of rows and of tries, found by key: the last page costs as much as the first."""

from __future__ import annotations

import sqlite3
from typing import Any, NamedTuple

from bulkmail.model.delivery import Status

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
