"""Filling an outbox: every row of the list recorded, then every letter tried, before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from anyio import to_thread

from bulkmail.model.address import Address
from bulkmail.model.delivery import Status
from bulkmail.model.recipient import BadRow, Recipient
from bulkmail.outbox.outbox import Entry, Outbox
from bulkmail.preflight.finding import Finding
from bulkmail.preflight.letter import LetterCheck
from bulkmail.recipients.screening import Screened

BATCH = 1000  # rows a transaction and a turn of the worker thread

Told = Callable[[int], None]
"""Told how many rows are done so far."""


async def record(
    outbox: Outbox,
    rows: Iterable[Recipient | BadRow],
    *,
    screen: Callable[[Recipient | BadRow], Screened],
    redirect_to: Address | None = None,
    told: Told = lambda rows: None,
) -> None:
    """Puts every row into `outbox`, screened; with `redirect_to` that address gets them all instead.

    What iterating the list raises (`ListError`) passes through.  The caller says when loading is finished.
    """
    paths = (redirect_to.wire,) if redirect_to else ()
    entries = (
        Entry(screened.row, screened.status, screened.reason, paths if screened.status is Status.PENDING else ())
        for screened in map(screen, rows)
    )
    total = 0
    while written := await to_thread.run_sync(_record_batch, outbox, entries):
        total += written
        told(total)


def _record_batch(outbox: Outbox, entries: Iterator[Entry]) -> int:
    batch = list(islice(entries, BATCH))
    if batch:
        outbox.record(batch)
    return len(batch)


async def try_letters(outbox: Outbox, check: LetterCheck, *, told: Told = lambda rows: None) -> list[Finding]:
    """Renders the letter of every row that is to be sent; those that fail become invalid.  What was found on the way."""
    last = 0
    while (last := await to_thread.run_sync(_try_batch, outbox, check, last)) >= 0:
        told(check.rows)
    return check.findings()


def _try_batch(outbox: Outbox, check: LetterCheck, last: int) -> int:
    rows = outbox.pending_rows(last, BATCH)
    if not rows:
        return -1
    outbox.invalidate_many(check.bad_rows(rows))
    return rows[-1][0]
