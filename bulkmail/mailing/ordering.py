"""From settings to a mailing: which outbox, which rows, what of an earlier run counts."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from anyio import to_thread

from bulkmail.checks.catalog import NO_RELAY, gravest_first, judge
from bulkmail.checks.check_finding import Finding
from bulkmail.checks.evidence import Found
from bulkmail.checks.list_checks import ambiguous
from bulkmail.mailing import suppression_list
from bulkmail.mailing.checking import (
    Online,
    Rules,
    Told,
    ask_outside,
    record_now,
    refuse_unknown_columns,
    refuse_unknown_names,
)
from bulkmail.mailing.following import Followed, FollowUp, RunRows, following, read_followed, said, with_thread
from bulkmail.mailing.mailing import Mailing
from bulkmail.mailing.permits import planned_now
from bulkmail.mailing.previous_run import (
    Digest,
    Past,
    Standing,
    earlier_passes,
    look,
    number_of,
    refuse_cancelled,
    refuse_changed,
    refuse_other_kind,
    reports_beside,
)
from bulkmail.mailing.rows import GivenRows, Rows, Selection, asks_for_delivery, opened, varied
from bulkmail.mailing.run_record import Targets
from bulkmail.message.compose.composer import Composer
from bulkmail.message.header.addresses import RowAddress, is_same_for_all
from bulkmail.message.template.branches import Branches, Cover
from bulkmail.message.template.constants import read_values
from bulkmail.message.template.field_names import mentioned_names
from bulkmail.message.template.rendering import Condition, compile_condition, referenced_names
from bulkmail.model.campaign import Keys
from bulkmail.model.delivery import Message
from bulkmail.model.errors import ConfigError, TemplateError
from bulkmail.model.lazy import dataclass
from bulkmail.model.pace import Pace
from bulkmail.model.recipient import Address, BadRow, Recipient
from bulkmail.model.relay import Kind, Relay, commands_of
from bulkmail.model.route import Route
from bulkmail.model.schedule import Planned
from bulkmail.model.tally import Status, Tally
from bulkmail.outbox.outbox import Outbox
from bulkmail.outbox.run_info import RunInfo
from bulkmail.recipients.grouping import EMAIL, Grouping
from bulkmail.recipients.list_reading import ListOptions
from bulkmail.recipients.screening import Suppression, screen
from bulkmail.settings.runs import run_path
from bulkmail.settings.settings import Settings
from bulkmail.settings.user_tables import is_served
from bulkmail.text import printable

_PAGE = 100  # messages of several rows that are read at a time


@dataclass(frozen=True, slots=True)
class Order:
    """What the words of one `send` add to the settings.  `outbox` None is the usual place, and so are no `reports`.

    `sample` sends to that many rows drawn by lot, `redirect_to` gets every message, `dry_run` sends nothing: each
    makes it a rehearsal.  A rehearsal goes as fast as it can, unless it is `paced`, and leaves out all rows but those
    of `only` (`Address.key`), if there are any.  `start_over` sends to everyone whatever an earlier run did,
    `only_unreached` to those whom it did not reach.  With `strict` a warning fails the checks; findings with a code
    in `ignored` do not count.  `follow_up` names the run whose recipients get the next message; they are the list where
    the settings name none.
    """

    outbox: Path | None = None
    reports: tuple[Path, ...] = ()
    trace: Path | None = None
    sample: int | None = None
    redirect_to: Address | None = None
    dry_run: bool = False
    paced: bool = False
    only: frozenset[str] = frozenset()
    start_over: bool = False
    only_unreached: bool = False
    strict: bool = False
    ignored: tuple[str, ...] = ()
    follow_up: FollowUp | None = None
    command: str = "bulkmail send"


def is_rehearsal(settings: Settings, order: Order) -> bool:
    """Whether no recipient of the list gets mail.  Raises `ConfigError` for a sample that would reach some."""
    kind = _needed(settings.routes)[0].relay.kind  # all are of one
    if order.sample is not None and not (kind.is_rehearsal or order.redirect_to or order.dry_run):
        raise ConfigError(
            "--sample is a rehearsal, and through a real relay it would write to real people",
            hint="add --redirect-to YOUR-ADDRESS, or use --limit to begin with a few of the list for real",
        )
    return kind.is_rehearsal or order.redirect_to is not None or order.dry_run


def routes_of(settings: Settings, order: Order) -> tuple[Route, ...]:
    """The relays that this order goes through."""
    routes = (Route(Relay(Kind.NULL)),) if order.dry_run else _needed(settings.routes)
    if order.paced or not routes[0].relay.kind.is_rehearsal:
        return routes
    return tuple(replace(route, rate=None) for route in routes)


def _pace_of(settings: Settings, order: Order) -> Pace:
    """The settings' pace; without a rate where the mail stays on this machine."""
    if order.paced or not routes_of(settings, order)[0].relay.kind.is_rehearsal:
        return settings.pace
    return replace(settings.pace, rate=None)


def _needed(routes: tuple[Route, ...]) -> tuple[Route, ...]:
    if not routes:
        raise ConfigError(
            "no relay is given, so there is no way to send",
            hint='add relay = "smtp://user@host:587" to campaign.toml, or --relay URL; "sandbox:" rehearses here',
        )
    return routes


async def order_mailing(
    settings: Settings, order: Order, *, keys: Keys, reading: Told, checking: Told
) -> Mailing | Past:
    """A mailing ready to be sent: a new one, or an unfinished one to go on with; or the finished run of this order.

    Raises `ConfigError` when an earlier run forbids it, saying how and naming the commands, `NothingToSend` when no
    recipient is left to send to.  An earlier run that is to be replaced stays as it is until the new one is sent.
    """
    rehearsal = is_rehearsal(settings, order)
    followed = await to_thread.run_sync(_read_followed, settings, order.follow_up)
    if followed is not None:
        settings = replace(settings, campaign=with_thread(settings.campaign, followed))
    past = await to_thread.run_sync(_look_first, settings, order)
    path = past.path
    refuse_other_kind(past, is_rehearsal=rehearsal, hint=_other_place(path, order, rehearsal=rehearsal))
    with _list_at_hand(settings) as source:
        digest = _list_digest(settings, source, followed)
        starts_over = rehearsal or order.start_over or order.only_unreached
        changed = past.changes(settings.campaign, digest, settings.schedule)
        if (past.has_begun or (past.is_planned and not changed)) and not starts_over:
            if changed:
                refuse_changed(past, changed, command=order.command)
            if past.tally[Status.CANCELLED]:
                refuse_cancelled(past, command=order.command)
            if past.standing is Standing.FINISHED:
                return past
            return await to_thread.run_sync(
                lambda: Mailing.reopen(
                    path,
                    routes=routes_of(settings, order),
                    pace=settings.pace,
                    keys=keys,
                    suppress=settings.suppress,
                    ignored=order.ignored,
                )
            )
        takes_over = past.has_begun and not rehearsal
        new = path.with_name(f"{path.stem}.next{path.suffix}") if takes_over else path
        suppression = await to_thread.run_sync(suppression_list.read_suppression, settings.suppress)
        passes = await to_thread.run_sync(_leave_out_reached, settings, order, past, suppression)
        with _rows(settings, source, followed) as rows:
            mailing = await Mailing.prepare(
                new,
                campaign=settings.campaign,
                rows=rows,
                routes=routes_of(settings, order),
                pace=_pace_of(settings, order),
                selection=Selection(
                    settings.where,
                    suppression,
                    settings.allow_duplicates,
                    order.redirect_to,
                    order.sample,
                    _own_columns(settings),
                    only=order.only if rehearsal else frozenset(),
                    most_invalid=settings.most_invalid,
                    address_column=settings.list_options.address_column,
                ),
                is_rehearsal=rehearsal,
                info=await to_thread.run_sync(_noted, settings, digest, past, passes, followed),
                keys=keys,
                suppressions=settings.suppressions,
                schedule=settings.schedule,
                followed=followed,
                told_loading=reading,
                told_checking=checking,
            )
    mailing.notices += [*settings.notices, *suppression.notices, *_one_address(settings, mailing.tally)]
    mailing.pass_gate(strict=order.strict, ignored=order.ignored)
    if not settings.allow_empty:
        mailing.refuse_empty(where=settings.where)
    if takes_over:
        mailing.takes_over = path
    return mailing


def changes_since(settings: Settings, fingerprint: str, recorded: RunInfo, follow_up: FollowUp | None) -> list[str]:
    """What is not as it was when a campaign was loaded: "the message", "the list", "the planned times (send_at)".

    `fingerprint` and `recorded` are those of the message, and the settings, that it was loaded with.  Blocks.
    """
    followed = _read_followed(settings, follow_up)
    if followed is not None:
        settings = replace(settings, campaign=with_thread(settings.campaign, followed))
    with _list_at_hand(settings) as source:
        digest = _list_digest(settings, source, followed)
    past = Past(
        Path(settings.name),
        Standing.UNFINISHED,
        fingerprint=fingerprint,
        list_digest=recorded.list_digest,
        schedule=recorded.schedule,
    )
    return past.changes(settings.campaign, digest, settings.schedule)


def _look_first(settings: Settings, order: Order) -> Past:
    """The run at the place of this one.  Raises `ConfigError` for a file that it would overwrite and must not."""
    path = order.outbox or run_path(settings, rehearsal=is_rehearsal(settings, order))
    Targets(path, inputs=settings.inputs).check()
    past = look(path)
    # Of a pass that follows another, the reports get names that are free.
    is_next = past.has_begun and not past.is_rehearsal and (order.start_over or order.only_unreached)
    usual = () if is_next else reports_beside(path, past.number)
    Targets(path, order.reports or usual, order.trace, settings.inputs).check()
    return past


def _read_followed(settings: Settings, follow_up: FollowUp | None) -> Followed | None:
    return None if follow_up is None else read_followed(follow_up, settings.suppressions)


def _noted(settings: Settings, digest: str, past: Past, passes: Sequence[str], followed: Followed | None) -> RunInfo:
    """What the outbox of a new run in the place of `past` remembers of it."""
    return RunInfo(
        list_digest=digest,
        list_name=settings.list_source or ("" if followed is None or settings.to else str(followed.path)),
        name=settings.name,
        suppress=suppression_list.files_to_note(settings.suppress),
        files=tuple(dict.fromkeys(settings.inputs)),
        number=number_of(past),
        passes=tuple(passes),
    )


def _other_place(path: Path, order: Order, *, rehearsal: bool) -> str:
    if order.outbox is None:
        return f"look at it with bulkmail status {shlex.quote(str(path))}, then move it away"
    if rehearsal:
        return f"leave --outbox out, or give the rehearsal one of its own: --outbox {path.stem}.rehearsal{path.suffix}"
    return f"leave --outbox out, or name another file; if the rehearsal is no longer needed, remove {path}"


def _leave_out_reached(settings: Settings, order: Order, past: Past, suppression: Suppression) -> tuple[str, ...]:
    """With `only_unreached`, adds those whom the passes before have reached; returns the run ids of these passes.

    A rehearsal of such a pass leaves out those whom the real run has reached.
    """
    if not order.only_unreached:
        return ()
    if set(settings.campaign.group_by) - {EMAIL, settings.list_options.address_column}:
        raise ConfigError(
            "--changed leaves out by address whom the run before has reached, and with"
            f" group_by = {', '.join(settings.campaign.group_by)} a recipient may get several messages",
            hint="bulkmail resume --retry-rejected tries what failed again; --new sends everything",
        )
    if is_rehearsal(settings, order):
        past = look(run_path(settings, rehearsal=False))
    if not past.has_begun or past.is_rehearsal:
        return ()
    suppression_list.add_pass(suppression, past.path)
    for outbox in earlier_passes(past):
        suppression_list.add_pass(suppression, outbox)
    return (*past.passes, past.run_id)


@dataclass(frozen=True, slots=True)
class Checked:
    """What `check` found out: findings, the gravest first; what was noticed on the way; what the rows would be, and
    when they would be sent to, if that is planned.
    """

    findings: list[Finding]
    notices: list[str]
    tally: Tally
    planned: Planned | None = None


async def check(
    settings: Settings,
    *,
    keys: Keys,
    reading: Told,
    checking: Told,
    online: Online | None = None,
    follow_up: FollowUp | None = None,
) -> Checked:
    """What is wrong with message and list, what was noticed, and what the rows would be; sends and leaves nothing.

    With `online` relays and the DNS are asked, too.
    """
    followed = await to_thread.run_sync(_read_followed, settings, follow_up)
    if followed is not None:
        settings = replace(settings, campaign=with_thread(settings.campaign, followed))
    suppression = suppression_list.read_suppression(settings.suppress)
    with (
        tempfile.TemporaryDirectory(prefix="bulkmail-") as folder,
        _list_at_hand(settings) as source,
        _rows(settings, source, followed) as rows,
    ):
        mailing = await Mailing.prepare(
            Path(folder) / "check.outbox",
            campaign=settings.campaign,
            rows=rows,
            routes=settings.routes or (Route(Relay(Kind.NULL)),),
            pace=settings.pace,
            selection=Selection(
                settings.where,
                suppression,
                settings.allow_duplicates,
                own_columns=_own_columns(settings),
                most_invalid=settings.most_invalid,
                address_column=settings.list_options.address_column,
            ),
            keys=keys,
            suppressions=settings.suppressions,
            schedule=settings.schedule,
            followed=followed,
            told_loading=reading,
            told_checking=checking,
        )
        tally = mailing.tally
        planned = planned_now(mailing.outbox, time.time())
        mailing.abandon()
    findings, evidence = mailing.findings, mailing.evidence
    links = settings.campaign.unsubscribe
    # Without asking outside no command is run, and a key of its own stands in for what it would print.
    is_key_known = links is not None and (online is not None or not commands_of(links.key_from))
    if evidence is not None and is_key_known and keys.unsubscribe is not None:
        evidence = replace(evidence, is_key_served=await to_thread.run_sync(is_served, keys.unsubscribe))
    if evidence is not None:
        used = suppression_list.list_in_use(settings.suppressions, settings.campaign)
        evidence = replace(evidence, intake_overdue=await to_thread.run_sync(suppression_list.intake_overdue, used))
    if evidence is not None and online is not None:
        evidence = await ask_outside(evidence, settings.routes, keys=keys, online=online)
    if evidence is not mailing.evidence and evidence is not None:
        findings = gravest_first([*(found for found in findings if found.code == NO_RELAY), *judge(evidence)])
    notices = [*mailing.notices, *settings.notices, *suppression.notices, *_one_address(settings, tally)]
    return Checked(findings, notices, tally, planned)


def _one_address(settings: Settings, tally: Tally) -> Iterator[str]:
    """Says that the messages of all rows go to the same address."""
    address = settings.address
    if address is not None and is_same_for_all(address.text) and tally.eligible > 1:
        yield f"{address.name}: names no column; all {tally.eligible:,} messages go to {printable(address.text)}"


def _own_columns(settings: Settings) -> frozenset[str]:
    options = settings.list_options
    return frozenset({options.address_column, options.name_column or ""} - {""})


def messages(
    settings: Settings,
    *,
    keys: Keys,
    row: int | None = None,
    address: str = "",
    covers: bool = False,
    doubted: Callable[[Found], None] = lambda found: None,
    follow_up: FollowUp | None = None,
) -> Iterator[tuple[int, Recipient, Message | TemplateError]]:
    """The message of each row that is meant, or of row number `row` (from 1), or of those with `address`.

    `covers` gives a few rows that together take every branch of the message that any row takes.  A row chosen
    by number or address is shown even if `--where` or a suppression list leaves it out.  Bad rows are passed over;
    in place of a message that does not render comes the reason.  `doubted` first gets each name in the messages
    that several columns have.  Of a `follow_up` there are only messages to those whom the run reached.  Raises
    `ListError`, and for a run that cannot be followed what `read_followed()` raises.
    """
    followed = _read_followed(settings, follow_up)
    if followed is not None:
        settings = replace(settings, campaign=with_thread(settings.campaign, followed))
    wanted = Address.parse(address).key if address else ""
    composer = Composer(settings.campaign, run_id="preview", keys=keys)
    with _list_at_hand(settings) as source, _rows(settings, source, followed) as read:
        rows = varied(following(read, followed, settings.campaign), settings.campaign)
        for ambiguity in ambiguous(rows.repeated, _used_names(settings)):
            doubted(ambiguity)
        chosen: Iterator[Numbered]
        if settings.campaign.group_by:
            shared = _messages(settings, rows, composer, row=row, key=wanted)
            chosen = (each for each in shared if _is_reached(each[1], followed))
        else:
            found = ((number, row) for number, row in enumerate(rows, 1) if _is_reached(row, followed))
            chosen = _named(found, row, wanted) if row or wanted else _meant(settings, found, rows, composer)
        if covers:
            chosen = iter(_covering(settings, chosen))
        for number, recipient in chosen:
            path = recipient.address.wire
            try:
                message: Message | TemplateError = composer.compose(
                    recipient, row=number, forward_path=path, date=time.time()
                )
            except TemplateError as error:
                message = error
            yield number, recipient, message


def _is_reached(row: Recipient | BadRow, followed: Followed | None) -> bool:
    """Whether the run that is followed, if there is one, reached the row's recipient."""
    return followed is None or isinstance(row, BadRow) or not followed.why_not(row.address.key)


def _used_names(settings: Settings) -> set[str]:
    """The names of fields that the messages and the condition use."""
    used = {*referenced_names(settings.campaign), *(mentioned_names(settings.campaign) or ())}
    return used | compile_condition(settings.where).names if settings.where else used


Numbered = tuple[int, Recipient]


def _named(rows: Iterable[tuple[int, Recipient | BadRow]], row: int | None, key: str) -> Iterator[Numbered]:
    for number, recipient in rows:
        if isinstance(recipient, BadRow) or (row or number) != number:
            continue
        if not key or recipient.address.key == key:
            yield number, recipient


def _messages(settings: Settings, rows: Rows, composer: Composer, *, row: int | None, key: str) -> Iterator[Numbered]:
    """The messages that rows share, each by its first row with all of them: sorted by an outbox, not in memory."""
    with tempfile.TemporaryDirectory(prefix="bulkmail-") as folder, ExitStack() as stack:
        outbox = stack.enter_context(Outbox.create(Path(folder) / "preview.outbox", campaign=settings.campaign))
        suppression, where = None, None
        if not (row or key):
            suppression = suppression_list.read_suppression(settings.suppress)
            where = compile_condition(settings.where) if settings.where else None
            kept = suppression_list.ReadList.open(
                suppression_list.list_in_use(settings.suppressions, settings.campaign)
            )
            if kept is not None:
                stack.callback(kept.close)
                suppression.add_list(kept.reason)
        record_now(
            outbox,
            rows,
            Rules(
                lambda each: screen(each, suppression=suppression, where=where),
                forward_paths=composer.forward_paths if composer.has_copies else None,
                grouping=Grouping(settings.campaign.group_by, address_column=settings.list_options.address_column),
            ),
        )
        if where is not None:
            refuse_unknown_names(where, rows.columns)
        refuse_unknown_columns(settings.campaign.group_by, rows.columns)
        outbox.finish_loading()
        wanted = outbox.message_of(row) if row else None
        last = 0
        while people := outbox.pending_rows(last, _PAGE):
            for last, recipient in people:
                if (wanted or last) == last and (not key or recipient.address.key == key):
                    yield last, replace(recipient, rows=outbox.rows_of(last))


def _meant(
    settings: Settings, found: Iterable[tuple[int, Recipient | BadRow]], rows: Rows, composer: Composer
) -> Iterator[Numbered]:
    """The rows that would be sent to."""
    suppression = suppression_list.read_suppression(settings.suppress)
    where = compile_condition(settings.where) if settings.where else None
    kept = suppression_list.ReadList.open(suppression_list.list_in_use(settings.suppressions, settings.campaign))
    try:
        if kept is not None:
            suppression.add_list(kept.reason)
        yield from _screened(settings, found, composer, suppression, where)
    finally:
        if kept is not None:
            kept.close()
    if where is not None:
        refuse_unknown_names(where, rows.columns)


def _screened(
    settings: Settings,
    found: Iterable[tuple[int, Recipient | BadRow]],
    composer: Composer,
    suppression: Suppression,
    where: Condition | None,
) -> Iterator[Numbered]:
    known: set[int] = set()
    for number, recipient in found:
        screened = screen(recipient, suppression=suppression, where=where)
        if screened.status is not Status.PENDING or not isinstance(recipient, Recipient):
            continue
        key = hash(recipient.address.key)  # of this process; a million take 60 MB
        if key not in known:
            yield number, recipient
        if not settings.allow_duplicates and _has_forward_path(composer, recipient):
            known.add(key)


def _has_forward_path(composer: Composer, recipient: Recipient) -> bool:
    """Whether a row takes part in the search for duplicates: one with a wrong copy is invalid before."""
    try:
        return bool(composer.forward_paths(recipient))
    except TemplateError:
        return False


def _covering(settings: Settings, rows: Iterable[Numbered]) -> list[Numbered]:
    branches, cover, kept = Branches(settings.campaign), Cover(), dict[int, Recipient]()
    for number, recipient in rows:
        if cover.offer(number, branches.taken(recipient.fields, email=recipient.address.readable, rows=recipient.rows)):
            kept[number] = recipient
        if not branches:
            break
    return [(number, kept[number]) for number in cover.chosen()]


@contextmanager
def _list_at_hand(settings: Settings) -> Iterator[str]:
    """The list as a file that can be read twice, once to know it and once to use it."""
    if settings.list_source != "-":
        yield settings.list_source
        return
    with tempfile.TemporaryDirectory(prefix="bulkmail-") as folder:
        spool = Path(folder) / "standard input"
        with spool.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield str(spool)


def _list_digest(settings: Settings, source: str, followed: Followed | None) -> str:
    """32 hex digits that change when the list, or what is taken from it, does; suppression files are no part of it."""
    choices = (
        settings.list_options,
        settings.where,
        settings.allow_duplicates,
        settings.to,
        *([settings.address.text] if settings.address else []),  # older outboxes have digests without
        *([followed.run_id, said(followed.unless)] if followed else []),
    )
    digest = Digest()
    digest.add(repr(choices).encode("utf-8", "surrogateescape"))
    if source:
        digest.add_file(Path(source))
    return str(digest)


@contextmanager
def _rows(settings: Settings, source: str, followed: Followed | None = None) -> Iterator[Rows]:
    options = ListOptions(
        **asdict(settings.list_options),
        row_address=RowAddress(settings.address, read_values(settings.campaign.data)) if settings.address else None,
        keeps_delivery=asks_for_delivery(settings.where),
    )
    if settings.to:
        given = GivenRows([{"email": address} for address in settings.to], options, name="--to")
        given.fetch_all()
        yield given
        return
    if not source and followed is not None:
        yield RunRows(followed)
        return
    with opened(source, options) as rows:
        yield rows
