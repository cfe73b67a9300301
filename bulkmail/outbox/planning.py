"""What is left of planned times: rows never tried that have a time of their own."""

from __future__ import annotations

import sqlite3
from collections import Counter

from bulkmail.model.schedule import Planned
from bulkmail.outbox.encoding import IS_COPY
from bulkmail.text import printable

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
