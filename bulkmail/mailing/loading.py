"""Filling an outbox: every row of the list recorded, then every message tried, before anything is sent."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from email.message import EmailMessage

from anyio import to_thread

from bulkmail.checks.tried_messages import MessageCheck, MessageRenderer
from bulkmail.mailing.feed import Feed
from bulkmail.mailing.rows import Selection
from bulkmail.message.compose.ready_made import take_apart
from bulkmail.model.delivery import Status
from bulkmail.model.errors import ConfigError, TemplateError
from bulkmail.model.lazy import dataclass
from bulkmail.model.recipient import Address, BadRow, Place, PlainRows, Recipient
from bulkmail.outbox.entries import ReadyMade
from bulkmail.outbox.outbox import Entry, Outbox
from bulkmail.recipients.grouping import Grouping, Ungrouped
from bulkmail.recipients.screening import Screened
from bulkmail.text import printable

BATCH = 1000  # rows a transaction and a turn of the worker thread

Messages = Iterable[EmailMessage] | AsyncIterable[EmailMessage]
"""Ready-made messages as a program gives them."""

Told = Callable[[int], None]
"""Called with the number of rows done so far."""


def no_one(rows: int) -> None:
    """The default: ignores progress."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How the rows of a list are recorded.

    `screen` says what a row begins as.  `selection` says which rows and copies are suppressed, and the one address that
    gets all messages in a rehearsal.  `forward_paths` are those of a row, if not only its own address; a row that it
    raises `TemplateError` for is invalid.  `grouping` says which rows share a message; a row that it cannot place is
    invalid.  `due_at` and `why_not` are those that `screen` goes by.
    """

    screen: Callable[[Recipient | BadRow], Screened]
    selection: Selection = Selection()
    forward_paths: Callable[[Recipient], tuple[str, ...]] | None = None
    grouping: Grouping | None = None
    due_at: Callable[[Mapping[str, object]], float] | None = None
    why_not: Callable[[str], str] | None = None

    def entries(self, rows: Iterable[Recipient | BadRow | PlainRows]) -> Iterator[Entry | PlainRows]:
        """What the outbox stores of each row, in their order.

        `PlainRows` are taken as they are, but for those that `screen` has to look at: only for a list of which each
        other such row becomes pending, its own address for its only forward path.
        """
        for row in rows:
            if isinstance(row, PlainRows):
                yield from self._plain(row)
            else:
                yield self._entry(self.screen(row))

    def _plain(self, block: PlainRows) -> Iterator[Entry | PlainRows]:
        suppression, due_at, why_not = self.selection.suppression, self.due_at, self.why_not
        if suppression is None and due_at is None and why_not is None:
            yield block
            return
        start, due = 0, list[float]()
        for at, (line, wire, name, key, fields) in enumerate(block.rows):
            is_plain = not (suppression is not None and suppression.matches_key(key)) and not (why_not and why_not(key))
            if is_plain and due_at is not None:
                try:
                    due.append(due_at(fields))
                except ConfigError:
                    is_plain = False
            if is_plain:
                continue
            if at > start:
                yield PlainRows(block.file, block.rows[start:at], due)
            local, _, domain = wire.rpartition("@")
            yield self._entry(self.screen(Recipient(Address(local, domain), name, fields, Place(block.file, line))))
            start, due = at + 1, []
        if start < len(block.rows):
            yield PlainRows(block.file, block.rows[start:], due)

    def _entry(self, screened: Screened) -> Entry:
        group = b""
        if self.grouping is not None and screened.status in (Status.PENDING, Status.INVALID):
            try:
                group = self.grouping.key(screened.row)
            except Ungrouped as error:
                return Entry(BadRow(str(error), screened.row.fields, screened.row.place), Status.INVALID)
        return self._ungrouped(screened)._replace(group=group)

    def _ungrouped(self, screened: Screened) -> Entry:
        row, selection = screened.row, self.selection
        if screened.status is not Status.PENDING:
            return Entry(row, screened.status, screened.reason)
        redirected = (selection.redirect_to.wire,) if selection.redirect_to else ()
        if redirected or self.forward_paths is None or not isinstance(row, Recipient):
            return Entry(row, screened.status, screened.reason, redirected, due_at=screened.due_at)
        try:
            paths = self.forward_paths(row)
        except TemplateError as error:
            return Entry(row, Status.INVALID, str(error))
        left_out = selection.suppressed_copies(row, paths) if len(paths) > 1 else {}
        return Entry(row, screened.status, screened.reason, paths, left_out, screened.due_at)


async def record(
    outbox: Outbox,
    rows: Iterable[Recipient | BadRow | PlainRows],
    rules: Rules,
    *,
    fetch: Callable[[], Awaitable[int]] | None = None,
    reported: Told = no_one,
) -> None:
    """Puts every row into `outbox`, in worker threads; the caller says when loading is finished.

    `fetch`, where there is one, is awaited first, in the caller's task: it says how many rows can be iterated then, 0
    at the end.  What iterating the list raises (`ListError`) passes through.
    """
    await _record_all(outbox, rules.entries(rows), fetch=fetch, reported=reported)


def record_now(outbox: Outbox, rows: Iterable[Recipient | BadRow], rules: Rules) -> None:
    """Puts every row into `outbox`, in the caller's thread."""
    entries = rules.entries(rows)
    while _record_batch(outbox, entries, BATCH):
        pass


async def record_messages(
    outbox: Outbox, messages: Messages, *, seen: Callable[[EmailMessage], None] | None = None
) -> None:
    """Puts every message into `outbox`, with a delivery for each of its recipients; one that cannot go is invalid.

    `messages` are iterated in the caller's task; `seen` is called with each, in the thread that records it.
    """
    feed: Feed[EmailMessage] = Feed(messages, lambda message: message)

    def entry(number: int, message: EmailMessage) -> Entry:
        if seen is not None:
            seen(message)
        return _entry_of(outbox.run_id, message, number)

    entries = (entry(number, message) for number, message in enumerate(feed, 1))
    try:
        await _record_all(outbox, entries, fetch=feed.fetch, reported=no_one)
    finally:
        await feed.aclose()


async def _record_all(
    outbox: Outbox, entries: Iterator[Entry | PlainRows], *, fetch: Callable[[], Awaitable[int]] | None, reported: Told
) -> None:
    total = 0
    while True:
        ready = BATCH if fetch is None else await fetch()
        # At the end the iterator is asked once more, so that it can come to its own end.
        written = await to_thread.run_sync(_record_batch, outbox, entries, ready or 1)
        if not written:
            return
        total += written
        reported(total)


def _entry_of(run_id: str, message: EmailMessage, number: int) -> Entry:
    label = printable(str(message["Subject"] or ""))
    try:
        taken = take_apart(message, run_id=run_id, number=number, date=time.time())
    except ConfigError as error:
        return Entry(BadRow(str(error), {"subject": label}, Place("<messages>", number)), Status.INVALID)
    ready = ReadyMade(taken.content, taken.reverse_path, taken.message_id, label)
    return Entry(ready, forward_paths=tuple(path.wire for path in taken.forward_paths))


def _record_batch(outbox: Outbox, entries: Iterator[Entry | PlainRows], size: int) -> int:
    batch: list[Entry | PlainRows] = []
    rows = 0
    while rows < size and (entry := next(entries, None)) is not None:
        batch.append(entry)
        rows += len(entry.rows) if isinstance(entry, PlainRows) else 1
    if batch:
        outbox.record(batch)
    return rows


async def try_messages(
    outbox: Outbox, check: MessageCheck, messages: MessageRenderer, *, reported: Told = no_one
) -> None:
    """Renders the message of every row that is to be sent; those that fail become invalid."""
    last = 0
    while (last := await to_thread.run_sync(_try_batch, outbox, check, messages, last)) >= 0:
        reported(check.rows)


def _try_batch(outbox: Outbox, check: MessageCheck, messages: MessageRenderer, last: int) -> int:
    if outbox.is_grouped:
        people = outbox.pending_rows(last, BATCH)
        if not people:
            return -1
        # One by one: the rows of a message are in memory only while it is tried.
        whole = ((number, replace(person, rows=outbox.rows_of(number))) for number, person in people)
        outbox.invalidate_many(check.bad_rows(whole, messages))
        return people[-1][0]
    rows = outbox.pending_in_brief(last, BATCH)
    if not rows:
        return -1
    outbox.invalidate_many(check.bad_stored_rows(rows, messages))
    return rows[-1][0]
