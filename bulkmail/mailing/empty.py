"""A run that has no recipient to send to."""

from __future__ import annotations

from collections.abc import Sequence

from bulkmail.model.delivery import Status
from bulkmail.model.errors import BulkmailError
from bulkmail.model.tally import Tally
from bulkmail.report.report import Report
from bulkmail.text import count, printable


class NothingToSend(BulkmailError):
    """No recipient is left to send to: the list is empty, or all of it is left out.  `report` has every row."""

    def __init__(self, message: str, report: Report) -> None:
        hint = "if that is as it should be, allow it: --allow-empty, or allow_empty = true"
        if report.invalid:
            place, reason = report.invalid[0]
            hint = f"correct the rows, the first at {place}: {printable(reason)}; {hint}"
        super().__init__(message, hint=hint)
        self.report = report


def why_empty(tally: Tally, notices: Sequence[str], *, where: str) -> str:
    """Why no row is open, as a sentence."""
    if not tally.rows:
        return notices[0] if notices else "the list has no rows"
    left_out = ", ".join(f"{tally[status]:,} {status.value}" for status in Status if tally[status])
    if where and tally[Status.FILTERED] == tally.rows:
        return f"no row of {tally.rows:,} matches the condition {printable(where)!r}"
    return f"no recipient is left of {count(tally.rows, 'row')} ({left_out})"
