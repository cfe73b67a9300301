"""The checks before sending: every message tried, all that is known put together, judged; and nothing to send."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from anyio import to_thread

from bulkmail.checks.check_finding import SHOWN, Hits
from bulkmail.checks.evidence import Evidence, flaws_of
from bulkmail.checks.row_checks import Repeats, RowCheck
from bulkmail.checks.tried_messages import MessageCheck
from bulkmail.mailing.loading import Told, try_messages
from bulkmail.mailing.relays import look_at_relay
from bulkmail.mailing.rows import Rows
from bulkmail.message.compose.bodies import linked_fields
from bulkmail.message.compose.composer import Composer
from bulkmail.message.dkim import public_key, record_name
from bulkmail.message.template.field_names import mentioned_names, names_of_message, names_of_rows, printed_names
from bulkmail.message.template.rendering import Condition, referenced_names
from bulkmail.model.campaign import Campaign, Keys
from bulkmail.model.delivery import Status
from bulkmail.model.errors import BulkmailError, ConfigError
from bulkmail.model.lazy import dataclass
from bulkmail.model.relay import Kind, Secret
from bulkmail.model.route import Route
from bulkmail.model.tally import MOST_INVALID, Tally
from bulkmail.outbox.outbox import Outbox
from bulkmail.probe.dns_records import MOST_DOMAINS, Ask, ask_dns, find_records
from bulkmail.recipients.columns import DELIVERY_COLUMNS, listed, own_columns
from bulkmail.recipients.grouping import EMAIL
from bulkmail.recipients.screening import Suppression
from bulkmail.report.report import Report
from bulkmail.text import closest, count, printable


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
