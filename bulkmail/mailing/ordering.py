"""From settings to a mailing: which outbox, which rows, what of an earlier run counts."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

from bulkmail.config.runs import run_path
from bulkmail.config.settings import Settings
from bulkmail.mailing.gate import Online, ask_outside
from bulkmail.mailing.history import Past, Standing, look, refuse_changed, refuse_finished
from bulkmail.mailing.loading import Told
from bulkmail.mailing.mailing import Mailing, Selection
from bulkmail.mailing.rows import GivenRows, Rows
from bulkmail.message.branches import Branches, Cover
from bulkmail.message.composer import Composer
from bulkmail.message.templates import compile_condition
from bulkmail.model.address import Address
from bulkmail.model.delivery import Status
from bulkmail.model.errors import ConfigError, TemplateError
from bulkmail.model.keys import Keys
from bulkmail.model.message import Message
from bulkmail.model.recipient import BadRow, Recipient
from bulkmail.model.relay import Kind, Relay
from bulkmail.model.route import Route
from bulkmail.model.tally import Tally
from bulkmail.outbox.reader import OutboxReader, is_outbox
from bulkmail.preflight.checks import NO_RELAY, gravest_first, judge
from bulkmail.preflight.finding import Finding
from bulkmail.recipients.screening import Suppression, screen
from bulkmail.recipients.source import ListOptions, open_list


@dataclass(frozen=True, slots=True)
class Order:
    """What the words of one `send` add to the settings.  `outbox` None is the usual place.

    `sample` sends to so many rows drawn by lot, `redirect_to` gets everybody's letter, `dry_run` sends nothing: each
    makes it a rehearsal.  `begin_anew` sends to everybody whatever an earlier run did, `only_unreached` to those whom
    it did not reach.  With `strict` a warning keeps the gate shut; findings with a code in `ignored` do not count.
    """

    outbox: Path | None = None
    sample: int | None = None
    redirect_to: Address | None = None
    dry_run: bool = False
    begin_anew: bool = False
    only_unreached: bool = False
    strict: bool = False
    ignored: tuple[str, ...] = ()
    command: str = "bulkmail send"


def is_rehearsal(settings: Settings, order: Order) -> bool:
    """Whether nobody on the list is written to.  Raises `ConfigError` for a sample that would be."""
    kind = _needed(settings.routes)[0].relay.kind  # all are of one
    if order.sample is not None and not (kind.is_rehearsal or order.redirect_to or order.dry_run):
        raise ConfigError(
            "--sample is a rehearsal, and through a real relay it would write to real people",
            hint="add --redirect-to YOUR-ADDRESS, or use --limit to begin with a few of the list for real",
        )
    return kind.is_rehearsal or order.redirect_to is not None or order.dry_run


def routes_of(settings: Settings, order: Order) -> tuple[Route, ...]:
    """The relays that this order goes through."""
    return (Route(Relay(Kind.NULL)),) if order.dry_run else _needed(settings.routes)


def _needed(routes: tuple[Route, ...]) -> tuple[Route, ...]:
    if not routes:
        raise ConfigError(
            "no relay is given, so there is no way to send",
            hint='add relay = "smtp://user@host:587" to campaign.toml, or --relay URL; "sandbox:" rehearses here',
        )
    return routes


async def order_mailing(settings: Settings, order: Order, *, keys: Keys, reading: Told, checking: Told) -> Mailing:
    """A mailing ready to be sent: a new one, or an unfinished one to go on with.

    Raises `ConfigError` when an earlier run forbids it, saying how and naming the commands.  An earlier run that is to
    be replaced stays as it is until the new one is sent.
    """
    rehearsal = is_rehearsal(settings, order)
    path = order.outbox or run_path(settings, rehearsal=rehearsal)
    past = Past(path, Standing.NONE) if rehearsal else look(path)
    with _list_at_hand(settings) as source:
        digest = _list_digest(settings, source)
        if past.has_begun and not (order.begin_anew or order.only_unreached):
            if past.standing is Standing.FINISHED:
                refuse_finished(past, command=order.command)
            if changed := past.changes(settings.campaign, digest):
                refuse_changed(past, changed, command=order.command)
            return Mailing.reopen(path, routes=routes_of(settings, order), pace=settings.pace, keys=keys)
        new = path.with_name(f"{path.stem}.next{path.suffix}") if past.has_begun else path
        suppression = suppression_of(settings)
        if past.has_begun and order.only_unreached:
            _suppress_reached(suppression, path)
        with _rows(settings, source) as rows:
            mailing = await Mailing.prepare(
                new,
                campaign=settings.campaign,
                rows=rows,
                routes=routes_of(settings, order),
                pace=settings.pace,
                selection=Selection(
                    settings.where,
                    suppression,
                    settings.allow_duplicates,
                    order.redirect_to,
                    order.sample,
                    _own_columns(settings),
                ),
                is_rehearsal=rehearsal,
                settings={"list_digest": digest, "list": settings.list_source, "name": settings.name},
                keys=keys,
                told_loading=reading,
                told_checking=checking,
            )
    mailing.notices += suppression.notices
    mailing.pass_gate(strict=order.strict, ignored=order.ignored)
    if new != path:
        mailing.takes_over = path
    return mailing


@dataclass(frozen=True, slots=True)
class Checked:
    """What `check` found out: findings, the gravest first; what was noticed on the way; what the rows would be."""

    findings: list[Finding]
    notices: list[str]
    tally: Tally


async def check(
    settings: Settings, *, keys: Keys, reading: Told, checking: Told, online: Online | None = None
) -> Checked:
    """What is wrong with letter and list, what was noticed, and what the rows would be; sends and leaves nothing.

    With `online` relays and the DNS are asked, too.
    """
    suppression = suppression_of(settings)
    with (
        tempfile.TemporaryDirectory(prefix="bulkmail-") as folder,
        _list_at_hand(settings) as source,
        _rows(settings, source) as rows,
    ):
        mailing = await Mailing.prepare(
            Path(folder) / "check.outbox",
            campaign=settings.campaign,
            rows=rows,
            routes=settings.routes or (Route(Relay(Kind.NULL)),),
            pace=settings.pace,
            selection=Selection(
                settings.where, suppression, settings.allow_duplicates, own_columns=_own_columns(settings)
            ),
            keys=keys,
            told_loading=reading,
            told_checking=checking,
        )
        tally = mailing.tally
        mailing.abandon()
    findings = mailing.findings
    if online is not None and mailing.evidence is not None:
        evidence = await ask_outside(mailing.evidence, settings.routes, keys=keys, online=online)
        findings = gravest_first([*(found for found in findings if found.code == NO_RELAY), *judge(evidence)])
    return Checked(findings, [*mailing.notices, *suppression.notices], tally)


def _own_columns(settings: Settings) -> frozenset[str]:
    return frozenset({settings.list_options.address_column, settings.list_options.name_column} - {""})


def letters(
    settings: Settings, *, keys: Keys, row: int | None = None, address: str = "", covers: bool = False
) -> Iterator[tuple[int, Recipient, Message | TemplateError]]:
    """The message of each row that is meant, or of row number `row` (from 1), or of those with `address`.

    `covers` gives a few rows that between them take every branch of the letter that any row takes.  A row that is asked
    for by number or address is shown even if `--where` or a suppression list leaves it out.  Bad rows are passed over;
    in place of a letter that does not render comes the reason.  Raises `ListError`.
    """
    wanted = Address.parse(address).key if address else ""
    composer = Composer(settings.campaign, run_id="preview", keys=keys)
    with _list_at_hand(settings) as source, _rows(settings, source) as rows:
        found = enumerate(rows, 1)
        chosen = _named(found, row, wanted) if row or wanted else _meant(settings, found, composer)
        if covers:
            chosen = iter(_covering(settings, chosen))
        for number, recipient in chosen:
            path = recipient.address.wire
            try:
                letter: Message | TemplateError = composer.compose(
                    recipient, row=number, forward_path=path, date=time.time()
                )
            except TemplateError as error:
                letter = error
            yield number, recipient, letter


Numbered = tuple[int, Recipient]


def _named(rows: Iterable[tuple[int, Recipient | BadRow]], row: int | None, key: str) -> Iterator[Numbered]:
    for number, recipient in rows:
        if isinstance(recipient, BadRow) or (row or number) != number:
            continue
        if not key or recipient.address.key == key:
            yield number, recipient


def _meant(
    settings: Settings, rows: Iterable[tuple[int, Recipient | BadRow]], composer: Composer
) -> Iterator[Numbered]:
    """The rows that would be sent to."""
    suppression = suppression_of(settings)
    where = compile_condition(settings.where) if settings.where else None
    known: set[int] = set()
    for number, recipient in rows:
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
        if cover.offer(number, branches.taken(recipient.fields, email=recipient.address.readable)):
            kept[number] = recipient
        if not branches:
            break
    return [(number, kept[number]) for number in cover.chosen()]


def suppression_of(settings: Settings) -> Suppression:
    """Everybody who is not to be written to.  Each file is a list of addresses, a delivery report or an outbox."""
    suppression = Suppression()
    for name in settings.suppress:
        path = Path(name)
        if is_outbox(path):
            _suppress_reached(suppression, path)
        else:
            suppression.add_file(path)
    return suppression


def _suppress_reached(suppression: Suppression, outbox: Path) -> None:
    with OutboxReader.open(outbox) as reader:
        suppression.add_keys(reader.reached(), name=f"{outbox.name}: reached already")


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


def _list_digest(settings: Settings, source: str) -> str:
    """32 hex digits that change when the list, or what is taken from it, does."""
    choices = (
        settings.list_options,
        settings.where,
        settings.allow_duplicates,
        settings.to,
    )
    state = blake2b(repr(choices).encode("utf-8", "surrogateescape"), digest_size=16)
    for name in [source, *settings.suppress]:
        path = Path(name)
        if name and path.is_file() and not is_outbox(path):
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    state.update(block)
    return state.hexdigest()


@contextmanager
def _rows(settings: Settings, source: str) -> Iterator[Rows]:
    options = ListOptions(**asdict(settings.list_options))
    if settings.to:
        yield GivenRows([{"email": address} for address in settings.to], options, name="--to")
        return
    with open_list(source, options) as rows:
        yield rows
