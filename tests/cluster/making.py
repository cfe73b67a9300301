"""Campaigns for tests that need one in a store."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping

from bulkmail.cluster.loading import NewCampaign
from bulkmail.model.kept_row import KeptDelivery, KeptPage, KeptRow
from bulkmail.model.recipient import Recipient

PAGE = 1_000


def make_campaign(name: str = "spring", *, canary: int = 0) -> NewCampaign:
    """One without a message."""
    return NewCampaign(name=name, run_id=secrets.token_hex(10), canary=canary)


def make_pages(
    recipients: Iterable[Recipient], *, queue_of: Mapping[int, int] | None = None, most: int = PAGE
) -> Iterator[KeptPage]:
    """A page for each `most` recipients, all pending; `queue_of` by the number of the row."""
    page = KeptPage([], [], [])
    for number, each in enumerate(recipients, 1):
        place = each.place
        page.rows.append(
            KeptRow(number, place.file, place.line, each.address.wire, each.name, json.dumps(dict(each.fields)))
        )
        page.deliveries.append(KeptDelivery(number, number, each.address.wire, False, (queue_of or {}).get(number, 0)))
        if len(page.rows) == most:
            yield page
            page = KeptPage([], [], [])
    if page.rows:
        yield page
