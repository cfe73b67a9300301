"""The report as one JSON object, for programs: the stable format, version 1."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import BinaryIO

from bulkmail.model.feedback_event import FeedbackKind, ReturnedCounts
from bulkmail.model.tally import Status
from bulkmail.model.timing import Hold
from bulkmail.outbox.entries import RowRecord
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.recipients.columns import DELIVERY_COLUMNS
from bulkmail.report.planned import as_object as planned_object
from bulkmail.report.report_files import replacing
from bulkmail.report.row_words import Reasons, Variants, as_json, copy_object, feedback_object, iso
from bulkmail.report.run_source import Pass, Source
from bulkmail.report.slowdowns import as_object

VERSION = 1


def write_json(source: OutboxReader | Source, target: Path | BinaryIO) -> None:
    """Writes `{"bulkmail": 1, …, "totals": {…}, "times": {…}, "rows": […], "reasons": {…}}`, a row a line.

    `totals` has every status and their sum, `rows`; `messages` the same, but rows that share one count once, and
    each but the first of them has the number of that as `shares`.  `copies` counts the other addresses of rows.
    `slowdowns` has who asked for less.  `feedback` counts the rows that something came back about, by kind, and
    what is matched to no message; `passes` has the runs that the campaign was sent in, if there are several.
    `reasons` has, by status, words with counts.  `variants` has, by variant of the message, the rows by status and
    what came back, and is empty for a campaign without.  Times are ISO 8601 in UTC, or null.  Within a version keys
    may come, none goes or changes.  Memory stays flat.  Raises `BulkmailError` when the file cannot be written, or
    when the rows are not those that the outbox counts: then there is no new file.
    """
    if not isinstance(source, Source):
        source = Source.of(source)
    reasons, variants = Reasons(), Variants(source.campaign)
    with replacing(target) as file:
        file.write(as_json(head(source)).removesuffix(b"}") + b',\n"rows":[')
        lead = b"\n"
        for record in source.rows():
            reasons.add(record)
            variants.add(record)
            file.write(lead + as_json(_row(record, source.run.number)))
            lead = b",\n"
        counts = {status.value: dict(counter.most_common()) for status, counter in reasons.by_status.items()}
        file.write(b'\n],\n"reasons":' + as_json(counts))
        file.write(b',\n"variants":' + as_json(variants.as_object()) + b"}\n")


def head(source: Source) -> dict[str, object]:
    """What holds for the run as a whole."""
    run, tally = source.run, source.tally
    messages = source.messages or tally
    return {
        "bulkmail": VERSION,
        "name": run.name,
        "run_id": run.run_id,
        "relay": run.relay,
        "list": run.list_name,
        "is_rehearsal": run.is_rehearsal,
        "exit_code": tally.exit_code,
        "rest": run.rest and _rest(run.rest),
        "stopped": run.stopped and {"by": run.stopped.by, "at": iso(run.stopped.at) or None},
        "follows": run.follows and {"run_id": run.follows[0], "outbox": run.follows[1]},
        "planned": run.planned and planned_object(run.planned),
        "slowdowns": [as_object(slowdown, time.time()) for slowdown in run.slowdowns],
        "totals": {"rows": tally.rows, **{status.value: tally[status] for status in Status}},
        "messages": {"messages": messages.messages, **{status.value: messages[status] for status in Status}},
        "copies": {status.value: tally.copies.get(status, 0) for status in Status if status.is_eligible},
        "feedback": _feedback(source.returned),
        "passes": [_pass(each) for each in source.passes],
        "times": {
            "created": iso(run.created_at) or None,
            "started": iso(run.started_at) or None,
            "ended": iso(run.ended_at) or None,
        },
    }


def _rest(hold: Hold) -> dict[str, object]:
    return {"until": None if math.isinf(hold.until) else iso(hold.until), "why": hold.why}


def _feedback(returned: ReturnedCounts) -> dict[str, int]:
    return {**{kind.value: returned[kind] for kind in FeedbackKind}, "unmatched": returned.unmatched}


def _pass(each: Pass) -> dict[str, object]:
    run, tally = each.run, each.tally
    return {
        "pass": run.number,
        "run_id": run.run_id,
        "outbox": str(run.path) if run.path is not None else None,
        "totals": {"rows": tally.rows, **{status.value: tally[status] for status in Status}},
        "feedback": {kind.value: each.returned[kind] for kind in FeedbackKind},
        "started": iso(run.started_at) or None,
        "ended": iso(run.ended_at) or None,
    }


def _row(record: RowRecord, number: int) -> dict[str, object]:
    return {
        "row": record.row,
        "shares": record.shares or None,
        "file": record.place.file,
        "line": record.place.line,
        "address": record.address,
        "name": record.name,
        "status": record.status.value,
        "code": record.code,
        "enhanced_code": record.enhanced,
        "reply": record.reply,
        "reason": record.reason,
        "attempts": record.attempts,
        "relay": record.relay,
        "message_id": record.message_id,
        "first_at": iso(record.first_at) or None,
        "last_at": iso(record.last_at) or None,
        "error": record.error,
        "copies": [copy_object(copy) for copy in record.copies],
        "feedback": feedback_object(record),
        "pass": record.run_number or number,
        "fields": {name: value for name, value in record.fields.items() if name not in DELIVERY_COLUMNS},
    }
