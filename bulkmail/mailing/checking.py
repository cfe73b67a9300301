"""Before anything is sent: every row recorded, every message tried, all that is known put together and judged."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from email.message import EmailMessage

from anyio import to_thread

from bulkmail.checks.check_finding import SHOWN, Hits
from bulkmail.checks.evidence import Evidence, flaws_of
from bulkmail.checks.row_checks import Repeats, RowCheck
from bulkmail.checks.tried_messages import MessageCheck, MessageRenderer
from bulkmail.mailing.relays import look_at_relay
from bulkmail.mailing.rows import Feed, Rows, Selection
from bulkmail.message.compose.bodies import linked_fields
from bulkmail.message.compose.composer import Composer
from bulkmail.message.compose.ready_made import take_apart
from bulkmail.message.dkim import public_key, record_name
from bulkmail.message.template.field_names import mentioned_names, names_of_message, names_of_rows, printed_names
from bulkmail.message.template.rendering import Condition, referenced_names
from bulkmail.model.campaign import Campaign, Keys
from bulkmail.model.errors import BulkmailError, ConfigError, TemplateError
from bulkmail.model.lazy import dataclass
from bulkmail.model.recipient import Address, BadRow, Place, PlainRows, Recipient
from bulkmail.model.relay import Kind, Secret
from bulkmail.model.route import Route
from bulkmail.model.tally import MOST_INVALID, Status, Tally
from bulkmail.outbox.entries import ReadyMade
from bulkmail.outbox.outbox import Entry, Outbox
from bulkmail.probe.dns_records import MOST_DOMAINS, Ask, ask_dns, find_records
from bulkmail.recipients.columns import DELIVERY_COLUMNS, listed, own_columns
from bulkmail.recipients.grouping import EMAIL, Grouping, Ungrouped
from bulkmail.recipients.screening import Screened, Suppression
from bulkmail.report.report import Report
from bulkmail.text import closest, count, printable

# -- Filling an outbox: every row of the list recorded, then every message tried, before anything is sent.


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


# -- The checks before sending: every message tried, all that is known put together, judged; and nothing to send.


@dataclass(frozen=True, slots=True)
class Asked:
    """What settings say of the list: the fields that a condition needs, and the columns of addresses and names.

    Of the rows so large a share may be invalid.
    """

    condition_names: frozenset[str] = frozenset()
    own_columns: frozenset[str] = frozenset()
    most_invalid: float = MOST_INVALID


async def gather(
    outbox: Outbox,
    composer: Composer,
    campaign: Campaign,
    *,
    seen: RowCheck,
    rows: Rows,
    routes: Sequence[Route],
    asked: Asked,
    reported: Told,
    suppression: Suppression | None = None,
) -> Evidence:
    """Tries the message of every row of `outbox`, and says what is known then.  Raises `TemplateError`."""
    required = frozenset(referenced_names(campaign))
    printed = frozenset(printed_names(campaign))
    messages = MessageCheck(
        required | printed,
        printed=printed,
        linked=linked_fields(campaign),
        of_rows=names_of_rows(campaign),
        total=outbox.tally().open,
        hidden=rows.remarks.hidden,
    )
    await try_messages(outbox, messages, composer, reported=reported)
    tally = outbox.tally()
    mentioned = mentioned_names(campaign)
    repeats = Repeats()
    if campaign.group_by:
        leading = names_of_message(campaign)
        await to_thread.run_sync(lambda: repeats.look(outbox.shared_messages(), leading))
    elif tally[Status.DUPLICATE]:
        await to_thread.run_sync(lambda: repeats.look(outbox.repeats(), mentioned))
    columns = tuple(rows.columns)

    def hits(status: Status) -> Hits:
        return Hits(tally[status], outbox.lines_with(status, SHOWN) if tally[status] else [])

    left_out = Hits(*outbox.suppressed_copies(SHOWN)) if tally.copies.get(Status.SUPPRESSED) else Hits()
    return Evidence(
        campaign,
        rows=seen,
        messages=messages,
        tally=tally,
        columns=columns,
        own_columns=asked.own_columns | own_columns(columns) | frozenset(DELIVERY_COLUMNS),
        repeated=dict(rows.repeated),
        remarks=rows.remarks,
        repeats=repeats,
        mentioned=None if mentioned is None else frozenset(mentioned | asked.condition_names),
        required=required,
        duplicates=hits(Status.DUPLICATE),
        suppressed=hits(Status.SUPPRESSED),
        suppressed_copies=left_out,
        suppression_faults=tuple(suppression.faults) if suppression is not None else (),
        suppression_fault_count=suppression.fault_count if suppression is not None else 0,
        relay_hosts=tuple(route.relay.host for route in routes if route.relay.host),
        most_invalid=asked.most_invalid,
        flaws=await to_thread.run_sync(flaws_of, campaign, messages),
    )


@dataclass(frozen=True, slots=True)
class Online:
    """What is asked of relays and the DNS: `passwords` go with the routes; `all_domains` of recipients or some."""

    passwords: Sequence[Secret | None]
    all_domains: bool = False
    ask: Ask = ask_dns


async def ask_outside(evidence: Evidence, routes: Sequence[Route], *, keys: Keys, online: Online) -> Evidence:
    """The same with what relays and the DNS say.  Sends nothing.  Raises `ConfigError`."""
    relays = [
        await look_at_relay(route.relay, password)
        for route, password in zip(routes, online.passwords, strict=True)
        if route.relay.kind is Kind.SMTP
    ]
    signatures = zip(evidence.campaign.dkim, keys.dkim, strict=False)
    records = await find_records(
        online.ask,
        sender_domain=evidence.sender.domain if evidence.sender else "",
        bounce_domain=evidence.bounce_domain,
        keys={record_name(dkim): public_key(dkim, key) for dkim, key in signatures},
        recipients={domain: hits.number for domain, hits in evidence.messages.domains.items()},
        most_domains=None if online.all_domains else MOST_DOMAINS,
    )
    return replace(evidence, relays=tuple(relays), records=records)


def refuse_unknown_columns(group_by: Sequence[str], columns: Sequence[str]) -> None:
    """Raises `ConfigError` for a column to group by that no row has."""
    unknown = [column for column in group_by if column != EMAIL and column not in columns]
    if unknown and columns:
        near = closest(unknown[0], columns)
        raise ConfigError(
            f"group_by: the list has no column {printable(unknown[0], 40)!r}",
            hint=f"did you mean {near!r}?" if near else f"its columns are {listed(columns)}",
        )


def refuse_unknown_names(where: Condition, columns: Sequence[str]) -> None:
    """Raises `ConfigError` for a condition over a column that no row has: it would leave out the whole list."""
    unknown = sorted(where.names - frozenset(columns))
    if unknown and columns:
        near = closest(unknown[0], columns)
        raise ConfigError(
            f"--where {where.text!r}: the list has no column {unknown[0]!r}",
            hint=f"did you mean {near!r}?" if near else f"its columns are {listed(columns)}",
        )


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
