"""Planned times as an outbox stores them and as reports show them."""

from __future__ import annotations

import time

from bulkmail.model.schedule import Planned
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.report.row_words import iso


def planned_in(reader: OutboxReader) -> Planned | None:
    """What is left of the planned times of a run; None for one without, and for a rehearsal, which waits for none."""
    schedule = reader.info.schedule
    if schedule is None or reader.is_rehearsal or not reader.is_loaded:
        return None
    return reader.planned(time.time(), zone_column=schedule.zone_column, fallback=schedule.fallback)


def sentence(planned: Planned, now: float, *, is_running: bool) -> str:
    """When the next messages go, for people; empty when none is planned."""
    if not planned.later:
        return ""
    said = f"Planned: {planned.sentence(now)}."
    return said if is_running else f"{said} The run sends them only while it is running: bulkmail resume."


def as_object(planned: Planned) -> dict[str, object]:
    """For programs: rows never tried that are due, and those that have a time to come, with the first and last one."""
    return {
        "at_once": planned.at_once,
        "later": planned.later,
        "first_at": iso(planned.first_at) or None,
        "last_at": iso(planned.last_at) or None,
        "zones": dict(planned.zones),
    }
