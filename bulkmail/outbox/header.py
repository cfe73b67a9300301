"""What an outbox says of the run as a whole."""

from __future__ import annotations

import sqlite3

import msgspec

from bulkmail.model.campaign import Campaign
from bulkmail.model.lazy import dataclass
from bulkmail.outbox.counting import count_rows
from bulkmail.outbox.encoding import decode_campaign
from bulkmail.outbox.run_info import RunInfo
from bulkmail.outbox.shape import Moment, damaged, noticing_damage


@dataclass(frozen=True, slots=True)
class Header:
    """The run, its campaign (None for ready-made messages) and what it notes of it.  Times are wall-clock seconds.

    `loaded_at` is None while rows are missing, `started_at` before the first message, `ended_at` before the end.
    """

    run_id: str
    created_at: float
    loaded_at: float | None
    started_at: float | None
    ended_at: float | None
    allow_duplicates: bool
    recovered: int
    recovered_at: float | None
    campaign: Campaign | None
    info: RunInfo


_RUN = tuple[str, Moment, Moment | None, Moment | None, Moment | None, int, int, Moment | None, int]


def read_header(connection: sqlite3.Connection, name: str) -> Header:
    """The header of the outbox called `name`.  Raises `OutboxError` when it does not fit the rows."""
    run = connection.execute(
        "SELECT run_id, created_at, loaded_at, started_at, ended_at, allow_duplicates, recovered, recovered_at,"
        " row_count FROM run"
    ).fetchone()
    if run is None:
        raise damaged(name, "it does not say which run it is")
    try:
        msgspec.convert(run, _RUN)
    except msgspec.ValidationError as error:
        raise damaged(name, f"what it says of the run cannot be read: {error}") from error
    if run[2] is not None and run[-1] != (rows := count_rows(connection)):
        raise damaged(name, f"it should have {run[-1]:,} rows and has {rows:,}")
    found = connection.execute("SELECT content FROM campaign").fetchone()
    with noticing_damage(name, "what it says of the run"):
        notes = msgspec.convert(dict(connection.execute("SELECT key, value FROM setting")), dict[str, str])
        info = RunInfo.read(notes)
    with noticing_damage(name, "its campaign"):
        campaign = decode_campaign(found[0]) if found else None
    run_id, created_at, loaded_at, started_at, ended_at, allow_duplicates, recovered, recovered_at, _ = run
    return Header(
        run_id=run_id,
        created_at=created_at,
        loaded_at=loaded_at,
        started_at=started_at,
        ended_at=ended_at,
        allow_duplicates=bool(allow_duplicates),
        recovered=recovered,
        recovered_at=recovered_at,
        campaign=campaign,
        info=info,
    )
