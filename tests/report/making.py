"""Makes runs and their rows, as a report finds them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bulkmail.model.delivery import AttemptResult, Mark, Settlement, settle
from bulkmail.model.outcome import Fault, Reply
from bulkmail.model.recipient import Address, BadRow, Place, Recipient
from bulkmail.model.retry import RetryPolicy
from bulkmail.model.tally import Status, Tally
from bulkmail.model.verdict import judge
from bulkmail.outbox.entries import Entry, RowRecord
from bulkmail.outbox.outbox import Outbox
from bulkmail.report.run_source import RunFacts, Source

STARTED = 1_700_000_000.5  # 2023-11-14T22:13:20.500Z


def make_record(row: int = 1, status: Status = Status.ACCEPTED, **changes: Any) -> RowRecord:
    values: dict[str, Any] = {
        "row": row,
        "place": Place("people.csv", row + 1),
        "address": f"user{row}@example.org",
        "name": f"User {row}",
        "fields": {"email": f"user{row}@example.org", "town": "Graz"},
        "status": status,
        "code": None,
        "enhanced": "",
        "reply": "",
        "reason": "",
        "attempts": 0,
        "relay": "",
        "message_id": "",
        "first_at": None,
        "last_at": None,
        "error": "",
    }
    if status is Status.ACCEPTED:
        values |= {"code": 250, "enhanced": "2.0.0", "reply": "Ok: queued as 4WxYz1", "attempts": 1}
    return RowRecord(**values | changes)


def make_rejected(row: int = 1, **changes: Any) -> RowRecord:
    values = {"code": 550, "enhanced": "5.1.1", "reply": "no such user", "reason": "unknown user", "attempts": 1}
    return make_record(row, Status.REJECTED, **values | changes)


def make_run(**changes: Any) -> RunFacts:
    values: dict[str, Any] = {
        "name": "Spring",
        "run_id": "0123456789abcdef",
        "relay": "smtp://mail.example.com:587",
        "list_name": "people.csv",
        "is_rehearsal": False,
        "maildir": "",
        "columns": ("email", "town"),
        "created_at": STARTED - 1,
        "started_at": STARTED,
        "ended_at": STARTED + 10,
        "process": None,
        "path": Path("runs/spring.outbox"),
    }
    return RunFacts(**values | changes)


def make_source(records: Sequence[RowRecord], *, tally: Tally | None = None, **run: Any) -> Source:
    counted = Tally(
        len(records),
        dict(Counter(record.status for record in records)),
        dict(Counter(copy.status for record in records for copy in record.copies)),
    )
    return Source(make_run(**run), tally or counted, lambda: iter(records))


def fill_outbox(outbox: Outbox, events: Sequence[Reply | Fault | None], *, bad: Sequence[str] = ()) -> None:
    """A row for each event, sent with that outcome (None: not tried), then one for each reason in `bad`."""
    rows: list[Recipient | BadRow] = [
        Recipient(
            Address(f"user{number}", "example.org"),
            f"User {number}",
            {"email": f"user{number}@example.org", "town": "Graz"},
            Place("people.csv", number + 1),
        )
        for number in range(1, len(events) + 1)
    ]
    rows += [
        BadRow(reason, {"email": "", "town": "Graz"}, Place("people.csv", 100 + n)) for n, reason in enumerate(bad)
    ]
    outbox.record(Entry(row, Status.PENDING if isinstance(row, Recipient) else Status.INVALID) for row in rows)
    outbox.finish_loading()
    outbox.note(columns=("email", "town"))
    jobs = outbox.due(STARTED, limit=len(rows), excluding=())
    for job, event in zip(jobs, events, strict=True):
        if event is not None:
            outbox.write([Mark(job.delivery.id, f"<{job.delivery.id}@example.com>", STARTED, b"0123456789abcdef")])
            attempt = AttemptResult(STARTED, 0.25, "smtp://mail.example.com:587", event, judge(event))
            outbox.write([Settlement(settle(job.delivery, attempt, RetryPolicy(), jitter=0.5), attempt)])
    outbox.finish()
