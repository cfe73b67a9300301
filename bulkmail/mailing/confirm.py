"""What a person sees before a run: how many messages go when, the question, and one message to its author."""

from __future__ import annotations

import math
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import tzinfo

from anyio import to_thread

from bulkmail.checks.check_finding import Severity
from bulkmail.mailing.following import FollowUp, read_followed, with_thread
from bulkmail.mailing.mailing import Mailing
from bulkmail.mailing.ordering import messages
from bulkmail.mailing.permits import accounts_of, find_ledger, quotas_of
from bulkmail.mailing.rows import GivenRows, Selection
from bulkmail.message.compose.composer import Composer
from bulkmail.model.campaign import Keys
from bulkmail.model.errors import BulkmailError, ConfigError, TemplateError
from bulkmail.model.lazy import dataclass
from bulkmail.model.pace import Bounds, Pace, PlannedShare, plan_demand, plan_shares, say_plan
from bulkmail.model.quantities import say_duration
from bulkmail.model.quota import Quota, QuotaBooking
from bulkmail.model.recipient import Address, Recipient, RowFields
from bulkmail.model.relay import Secret
from bulkmail.model.route import MailboxProviders, Route
from bulkmail.model.schedule import ALWAYS
from bulkmail.model.tally import Status
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.recipients.list_source import ListOptions
from bulkmail.settings.settings import Settings
from bulkmail.text import printable

# -- What the question before sending tells: which deliveries this run sends, how many, and the first message.


_BATCH = 10_000  # rows


@dataclass(frozen=True, slots=True)
class Audience:
    """`sender` and `subject` as in the message of the first row that is to be written to, safe to print; empty if none.

    `providers` are those of the recipients not yet tried, the one with most first: a provider's name or a domain.
    """

    sender: str
    subject: str
    providers: tuple[tuple[str, int], ...]


def audience_of(mailing: Mailing, known: MailboxProviders) -> Audience:
    """Reads all rows that are pending: about a second for 100,000."""
    sender = subject = ""
    providers: Counter[str] = Counter()
    domains: Counter[str] = Counter()
    for recipient in _pending(mailing):
        if not domains:
            sender, subject = _first_message(mailing, recipient)
        domains[recipient.address.domain] += 1
    for domain, number in domains.items():
        providers[known.of(domain)] += number
    return Audience(sender, subject, tuple(providers.most_common()))


def _pending(mailing: Mailing) -> Iterator[Recipient]:
    after = 0
    while rows := mailing.outbox.pending_rows(after, _BATCH):
        for _, recipient in rows:
            yield recipient
        after = rows[-1][0]


def _first_message(mailing: Mailing, recipient: Recipient) -> tuple[str, str]:
    campaign = mailing.outbox.campaign
    if campaign is None:
        return "", ""
    try:
        message = Composer(campaign, run_id=mailing.outbox.run_id, keys=mailing.keys).render(recipient)
    except BulkmailError:  # from an on_message hook, for example; the checks have reported it
        return "", ""
    return printable(message.sender), printable(message.subject)


def choose(mailing: Mailing, addresses: Iterable[Address]) -> None:
    """Only the rows with these addresses are sent, with their copies; the others stay as they are.

    Raises `ConfigError` for an address that is not in the list.
    """
    named = {address.key: address for address in addresses}
    found = mailing.outbox.deliveries_to(named)
    if missing := [address.readable for key, address in named.items() if key not in found]:
        raise ConfigError(
            f"--only: {', '.join(missing[:5])} {'is' if len(missing) == 1 else 'are'} not in the list",
            hint="give the address as it is in the list",
        )
    mailing.wants = {number for numbers in found.values() for number in numbers}


def count_next(mailing: Mailing) -> tuple[int, int]:
    """How many rows, and how many deliveries, this run may write to: those chosen, and no more than its limit."""
    tally = mailing.tally
    found = (tally.open_rows, tally.open) if mailing.wants is None else mailing.outbox.count_wanted(mailing.wants)
    rows, deliveries = (min(number, mailing.pace.limit or number) for number in found)
    return rows, deliveries


# -- What a campaign may expect of its hours and quotas: how many messages go when, before the first has gone.


@dataclass(frozen=True, slots=True)
class Outlook:
    """`shares` are the plan if all are accepted; `paused` says why the account is paused until the first, if it is."""

    shares: Sequence[PlannedShare]
    total: int
    now: float
    per_second: float | None
    zone: tzinfo | None
    paused: str = ""

    @property
    def is_at_once(self) -> bool:
        """Whether everything may go now, as fast as it can."""
        return len(self.shares) == 1 and self.shares[0].at <= self.now and not self.paused

    def sentence(self) -> str:
        """`"2,000 today, 2,000 tomorrow, 347 on Monday"`, with how long the first take at the rate."""
        said = say_plan(self.shares, total=self.total, now=self.now, zone=self.zone)
        if self.per_second and len(self.shares) > 1 and (took := self.shares[0].count / self.per_second) >= 1:
            said += f"; the first {self.shares[0].count:,} take about {say_duration(took)}"
        return f"{said} ({self.paused})" if self.paused else said


def look_ahead(
    routes: Sequence[Route],
    pace: Pace,
    total: int,
    *,
    run_id: str,
    is_rehearsal: bool,
    now: float | None = None,
    demand: Sequence[tuple[float, int]] = (),
) -> Outlook:
    """When how many of `total` recipients go out through `routes`.  Reads the ledgers, so it may wait for the disk.

    `demand`, unless it is empty, says from when on how many of them may go.
    Of several relays those count that come first; their accounts' quotas add up.  Raises `OutboxError`.
    """
    now = time.time() if now is None else now
    best = min((route.priority for route in routes), default=1)
    routes = [route for route in routes if route.priority == best]
    accounts = accounts_of(routes)
    bookings, began_at, rests = list[QuotaBooking](), list[float](), list[tuple[float, str]]()
    ramp = None if is_rehearsal else pace.ramp
    for account in accounts:
        ledger = find_ledger(account, is_needed=False)
        if ledger is None:
            rests.append((now, ""))
            continue
        with ledger:
            bookings += ledger.bookings(now)
            paused = ledger.paused(now)
            rests.append((paused.until, paused.why) if paused else (now, ""))
            if ramp is not None and (begun := ledger.ramp_began(run_id)) is not None:
                began_at.append(begun)
    opens_at, why = min(rests, default=(now, ""))  # the first account that may go
    per_second = _per_second(routes, pace)
    bounds = Bounds(
        quota=_together(list(quotas_of(routes, pace.quota).values())),
        ramp=ramp if accounts else None,
        ramp_began_at=min(began_at, default=None),
        per_second=per_second,
        windows=ALWAYS if is_rehearsal else pace.windows,
        start=max(opens_at, now if is_rehearsal or pace.start is None else pace.start),
    )
    by_time = plan_demand(bounds, bookings, demand, now=now) if demand else None
    shares = plan_shares(bounds, bookings, total, now=now) if by_time is None else by_time
    zone = pace.windows.each[0].zone if pace.windows.each else None
    return Outlook(shares, total, now, per_second, zone, paused=why)


def _together(quotas: Sequence[Quota]) -> Quota:
    """What several accounts may do: as much as you like, as soon as one of them may."""
    hours, days = [quota.per_hour for quota in quotas], [quota.per_day for quota in quotas]
    return Quota(_sum(hours), _sum(days))


def _sum(limits: Sequence[int | None]) -> int | None:
    known = [limit for limit in limits if limit is not None]
    return sum(known) if known and len(known) == len(limits) else None


def _per_second(routes: Sequence[Route], pace: Pace) -> float | None:
    """The rate that all of `routes` keep together; None when there is none."""
    own = sum(route.rate.per_second if route.rate else math.inf for route in routes)
    slowest = min(own, pace.rate.per_second if pace.rate else math.inf)
    return slowest if 0 < slowest < math.inf else None


# -- One message of a campaign to its author, as one row of the list would get it: it leaves nothing behind.


@dataclass(frozen=True, slots=True)
class TrialMessage:
    """A test message: `to` gets what `recipient` in row number `row` of the list would get.

    It lives in memory and is a rehearsal, so that no later run takes the row for reached, and no reply to it is taken
    for one about the recipient.
    """

    mailing: Mailing
    to: Address
    row: int
    recipient: Recipient


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What became of it: the reply with its code, or why there is none, and then `code` is 0."""

    status: Status
    code: int
    words: str


async def prepare_trial(
    settings: Settings, *, to: Address, row: int | None, keys: Keys, follow_up: FollowUp | None = None
) -> TrialMessage:
    """The test message for row number `row`, from 1, or for the first row that would be sent to.

    The links to unsubscribe in it are signed with a key that is thrown away, so that no click in it unsubscribes the
    recipient.  Raises `ConfigError` for a row that there is not or that cannot be used, `TemplateError`, `ListError`.
    """
    routes = settings.routes
    if not routes or routes[0].relay.kind.is_rehearsal:
        kept = f"the relay {routes[0].relay.kind.value}: delivers nothing" if routes else "no relay is given"
        raise ConfigError(
            f"{kept}, so a test message would not reach {to.readable}",
            hint="add --relay smtp://user@host:587; to look at messages here: bulkmail preview",
        )
    if keys.unsubscribe is not None:
        keys = replace(keys, unsubscribe=Secret(secrets.token_hex(32)))
    number, recipient = await to_thread.run_sync(_find, settings, row, keys, follow_up)
    campaign = settings.campaign
    if follow_up is not None:
        followed = await to_thread.run_sync(read_followed, follow_up, settings.suppressions)
        campaign = with_thread(campaign, followed)
    rows = GivenRows(_rows_of(recipient), ListOptions(), name=recipient.place.file)
    await to_thread.run_sync(rows.fetch_all)
    mailing = await Mailing.prepare(
        None,
        campaign=campaign,
        rows=rows,
        routes=routes,
        pace=replace(settings.pace, limit=None, breakers=replace(settings.pace.breakers, canary=0)),
        selection=Selection(redirect_to=to),
        is_rehearsal=True,
        keys=keys,
        suppressions=None,
    )
    # Of one row alone there is little to say about a list, and a message with a fault is worth looking at.
    mailing.findings = [found for found in mailing.findings if found.severity is Severity.ERROR]
    mailing.notices = [*settings.notices]
    mailing.refuse_empty()
    return TrialMessage(mailing, to, number, recipient)


def result_of(trial: TrialMessage) -> TrialResult:
    """What became of the message so far.  Raises `OutboxError`."""
    with OutboxReader.over(trial.mailing.outbox) as reader:
        record = next(iter(reader.rows()))
    reply = " ".join(str(part) for part in (record.code, record.enhanced, record.reply) if part)
    return TrialResult(record.status, record.code or 0, reply or record.error or record.reason)


def _find(settings: Settings, row: int | None, keys: Keys, follow_up: FollowUp | None) -> tuple[int, Recipient]:
    for number, recipient, made in messages(settings, keys=keys, row=row, follow_up=follow_up):
        if isinstance(made, TemplateError):
            raise TemplateError(f"row {number} ({recipient.place}): {made}", hint=made.hint)
        return number, recipient
    if row is None:
        raise ConfigError("the list has no row that would be sent to", hint="bulkmail check says why")
    raise ConfigError(
        f"row {row:,} cannot be used: the list has no such row, or nothing can be sent to it",
        hint="rows count from 1, without the header; bulkmail check names rows that cannot be used",
    )


def _rows_of(recipient: Recipient) -> Sequence[Recipient]:
    """The rows that share the message, each by itself."""
    if not recipient.rows:
        return [recipient]
    return [
        replace(recipient, fields=dict(fields), place=RowFields.place_of(fields) or recipient.place, rows=())
        for fields in recipient.rows
    ]
