"""What is said of an entry: in reports, in the outbox, on the terminal."""

from __future__ import annotations

import time

from bulkmail.model.suppression import SuppressionEntry, SuppressionReason


def day(at: float, *, now: float | None = None) -> str:
    """`"2 Nov"`, or `"2 Nov 2025"` of another year, by the local calendar.  Times are wall-clock seconds."""
    then, today = time.localtime(at), time.localtime(now)
    year = f" {then.tm_year}" if then.tm_year != today.tm_year else ""
    return f"{then.tm_mday} {time.strftime('%b', then)}{year}"


def explain(entry: SuppressionEntry, *, campaign: str = "", said: str = "") -> str:
    """`"hard bounce of 2 Nov (spring): 550 5.1.1 no such user"`: why there is no mail to an address.

    `campaign` is whose event caused it, and `said` the server's words.
    """
    is_act = entry.reason in (SuppressionReason.UNSUBSCRIBE, SuppressionReason.MANUAL)
    text = f"{entry.reason.says} {'on' if is_act else 'of'} {day(entry.since)}"
    if campaign:
        text += f" ({campaign})"
    if said or entry.note:
        text += f": {said or entry.note}"
    return text
