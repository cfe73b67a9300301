"""The gate: every letter tried, all that is known put together, and judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from anyio import to_thread

from bulkmail.mailing.loading import Told, try_letters
from bulkmail.mailing.rows import Rows
from bulkmail.message.composer import Composer
from bulkmail.message.names import mentioned_names, printed_names
from bulkmail.message.templates import referenced_names
from bulkmail.model.campaign import Campaign
from bulkmail.model.delivery import Status
from bulkmail.model.route import Route
from bulkmail.outbox.outbox import Outbox
from bulkmail.preflight.evidence import Evidence, flaws_of
from bulkmail.preflight.finding import SHOWN, Hits
from bulkmail.preflight.letter import LetterCheck
from bulkmail.preflight.rows import RowCheck
from bulkmail.recipients.columns import DELIVERY_COLUMNS, own_columns


@dataclass(frozen=True, slots=True)
class Asked:
    """What settings say of the list: the fields that a condition needs, and the columns of addresses and names."""

    condition_names: frozenset[str] = frozenset()
    own_columns: frozenset[str] = frozenset()


async def gather(
    outbox: Outbox,
    composer: Composer,
    campaign: Campaign,
    *,
    seen: RowCheck,
    rows: Rows,
    routes: Sequence[Route],
    asked: Asked,
    told: Told,
) -> Evidence:
    """Tries the letter of every row of `outbox`, and says what is known then.  Raises `TemplateError`."""
    required = frozenset(referenced_names(campaign))
    printed = frozenset(printed_names(campaign))
    letters = LetterCheck(
        composer.check, composer.render, required | printed, printed=printed, total=outbox.tally().open
    )
    await try_letters(outbox, letters, told=told)
    tally = outbox.tally()
    mentioned = mentioned_names(campaign)
    columns = tuple(rows.columns)

    def hits(status: Status) -> Hits:
        return Hits(tally[status], outbox.lines_with(status, SHOWN) if tally[status] else [])

    return Evidence(
        campaign,
        rows=seen,
        letters=letters,
        tally=tally,
        columns=columns,
        own_columns=asked.own_columns | own_columns(columns) | frozenset(DELIVERY_COLUMNS),
        mentioned=None if mentioned is None else frozenset(mentioned | asked.condition_names),
        required=required,
        duplicates=hits(Status.DUPLICATE),
        suppressed=hits(Status.SUPPRESSED),
        relay_hosts=tuple(route.relay.host for route in routes if route.relay.host),
        flaws=await to_thread.run_sync(flaws_of, campaign, letters),
    )
