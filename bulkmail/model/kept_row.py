"""All that is kept of a row, as values: the way from one kind of store into another."""

from __future__ import annotations

from typing import NamedTuple


class KeptRow(NamedTuple):
    """One input row, `fields` as JSON.  `shares` is the number of the earlier row whose message it shares; 0: none."""

    number: int
    source: str
    line: int
    address: str
    name: str
    fields: str
    shares: int = 0


class KeptDelivery(NamedTuple):
    """One forward path of a row.  Times are wall-clock seconds; `due_at` is 0 for at once, None for never again.

    `status` is a value of `Status`, or "grouped" for a row that shares the message of another.
    It has more attributes than a class should: it is a row of a table, read and written as a whole.
    """

    id: int
    row: int
    forward_path: str
    is_copy: bool
    queue: int = 0
    status: str = "pending"
    due_at: float | None = 0.0
    attempts: int = 0
    tries: int = 0
    first_at: float | None = None
    marked_at: float | None = None
    marked_relay: str = ""
    in_doubt_before: bool = False
    digest: bytes | None = None
    message_id: str = ""
    reason: str = ""


class KeptAttempt(NamedTuple):
    """Try number `number` of a delivery."""

    delivery: int
    number: int
    at: float
    took: float
    relay: str
    stage: str
    code: int | None
    enhanced: str
    text: str
    breakage: str | None
    outcome: str
    scope: str
    reason: str
    counts: bool


class KeptPage(NamedTuple):
    """Rows that follow one another, with all their deliveries by id, and the tries of these in their order."""

    rows: list[KeptRow]
    deliveries: list[KeptDelivery]
    attempts: list[KeptAttempt]
