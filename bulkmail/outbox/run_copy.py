"""All of a run on its way into another kind of store, and back into a file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from bulkmail.model.campaign import Campaign
from bulkmail.model.kept_row import KeptDelivery, KeptPage, KeptRow
from bulkmail.model.lazy import dataclass
from bulkmail.outbox.entries import IS_COPY, encode_campaign
from bulkmail.outbox.outbox import Outbox
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.outbox.run_info import RunInfo
from bulkmail.outbox.sqlite_file import make_file, make_folder, statements

PAGE = 5_000  # rows

_ROWS = """
    SELECT r.number, r.source, r.line, r.address, r.name, CAST(r.fields AS TEXT), coalesce(p.message, 0)
    FROM row AS r LEFT JOIN part AS p ON p.row = r.number WHERE r.number > ? ORDER BY r.number LIMIT ?
"""
_DELIVERIES = f"""
    SELECT d.id, d.row, d.forward_path, {IS_COPY.format("d")}, d.queue, d.status, d.due_at, d.attempts, d.tries,
           d.first_at, d.ending_at, d.ending_relay, d.in_doubt_before, d.digest, d.message_id, d.reason
    FROM delivery AS d WHERE d.row BETWEEN ? AND ? ORDER BY d.id
"""  # noqa: S608
_COPIED_ATTEMPTS = """
    CREATE TEMP TABLE copied (
        delivery INTEGER, try INTEGER, at REAL, took REAL, relay TEXT, stage TEXT, code INTEGER, enhanced TEXT,
        text TEXT, breakage TEXT, outcome TEXT, scope TEXT, reason TEXT, counts INTEGER
    )
"""
# A try that came in behind the look at its delivery is left out: then the copy is of one moment for each delivery.
_ATTEMPTS = """
    INSERT INTO attempt
        (delivery, at, took, relay, stage, code, enhanced, text, breakage, outcome, scope, reason, counts)
    SELECT c.delivery, at, took, relay, stage, code, enhanced, text, breakage, outcome, scope, c.reason, counts
    FROM copied AS c JOIN delivery AS d ON d.id = c.delivery WHERE c.try <= d.tries ORDER BY at + took
"""
_LAST = """
    UPDATE delivery SET last_attempt = latest.id
    FROM (SELECT delivery, max(id) AS id FROM attempt GROUP BY delivery) AS latest WHERE latest.delivery = delivery.id
"""


@dataclass(frozen=True, slots=True)
class CopiedRun:
    """What a copy says of the run as a whole.  Times are wall-clock seconds."""

    run_id: str
    created_at: float
    started_at: float | None
    ended_at: float | None
    allow_duplicates: bool
    campaign: Campaign | None
    info: RunInfo


def pages_of(outbox: Outbox) -> Iterator[KeptPage]:
    """All rows of a run that nothing has been sent from yet, in their order."""
    last = 0
    while True:
        with outbox.store.reading() as connection:
            rows = [KeptRow(*row) for row in connection.execute(_ROWS, (last, PAGE))]
            if not rows:
                return
            found = connection.execute(_DELIVERIES, (rows[0].number, rows[-1].number)).fetchall()
        last = rows[-1].number
        yield KeptPage(rows, [KeptDelivery(*each) for each in found], [])


def write_copy(path: Path, run: CopiedRun, pages: Iterable[KeptPage]) -> None:
    """An outbox at `path` that holds `run` with its rows.  Raises `OutboxError`."""

    def fill(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO run (id, run_id, created_at, allow_duplicates) VALUES (1, ?, ?, ?)",
            (run.run_id, run.created_at, run.allow_duplicates),
        )
        connection.executemany("INSERT INTO setting VALUES (?, ?)", run.info.notes().items())
        if run.campaign is not None:
            content = encode_campaign(run.campaign)
            connection.execute("INSERT INTO campaign VALUES (1, ?, ?)", (run.campaign.fingerprint, content))
        connection.execute(_COPIED_ATTEMPTS)
        for page in pages:
            _add(connection, page)
        connection.execute(_ATTEMPTS)
        connection.execute(_LAST)
        connection.execute("DROP TABLE copied")
        for statement in statements("loaded.sql"):
            connection.execute(statement)
        connection.execute(
            "UPDATE run SET loaded_at = created_at, row_count = (SELECT count(*) FROM row), started_at = ?,"
            " ended_at = ?",
            (run.started_at, run.ended_at),
        )

    make_folder(path.parent)
    make_file(path, fill, replace=True)


def _add(connection: sqlite3.Connection, page: KeptPage) -> None:
    connection.executemany(
        "INSERT INTO row (number, source, line, address, name, fields) VALUES (?, ?, ?, ?, ?, ?)",
        [(*row[:5], row.fields.encode()) for row in page.rows],
    )
    connection.executemany(
        "INSERT INTO part VALUES (?, ?)", [(row.shares, row.number) for row in page.rows if row.shares]
    )
    connection.executemany(
        "INSERT INTO delivery (id, row, forward_path, queue, status, due_at, attempts, tries, first_at, ending_at,"
        " ending_relay, in_doubt_before, digest, message_id, reason)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(*each[:3], *each[4:]) for each in page.deliveries],
    )
    connection.executemany("INSERT INTO copied VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", page.attempts)


class CopiedReader(OutboxReader):
    """A copy of a run that is kept elsewhere; `sender` is a process that sends from it there just now."""

    sender: tuple[int, str] | None = None

    @property
    def is_running(self) -> tuple[int, str] | None:
        """Pid and host of a process that sends from the run itself."""
        return self.sender
