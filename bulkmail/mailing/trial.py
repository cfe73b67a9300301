"""One message of a campaign to its author, as one row of the list would get it: it leaves nothing behind."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace

from anyio import to_thread

from bulkmail.checks.check_finding import Severity
from bulkmail.mailing.following import FollowUp, read_followed, with_thread
from bulkmail.mailing.mailing import Mailing
from bulkmail.mailing.ordering import messages
from bulkmail.mailing.rows import GivenRows, Selection
from bulkmail.model.campaign import Keys
from bulkmail.model.delivery import Status
from bulkmail.model.errors import ConfigError, TemplateError
from bulkmail.model.lazy import dataclass
from bulkmail.model.recipient import Address, Recipient, RowFields
from bulkmail.model.relay import Secret
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.recipients.list_source import ListOptions
from bulkmail.settings.settings import Settings


@dataclass(frozen=True, slots=True)
class Trial:
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
) -> Trial:
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
    return Trial(mailing, to, number, recipient)


def result_of(trial: Trial) -> TrialResult:
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
