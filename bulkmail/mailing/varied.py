"""The rows of a list, each with the variant of the message that its recipient gets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bulkmail.mailing.rows import Rows
from bulkmail.mailing.wrapped_rows import WrappedRows
from bulkmail.model.campaign import Campaign
from bulkmail.model.recipient import BadRow, Recipient
from bulkmail.model.variants import FIELD, variant_of
from bulkmail.text import printable


class VariedRows(WrappedRows):
    """The same rows with a field `variant`.

    A list that has that column decides itself, as a report does that is fed back; an empty cell there is filled in.
    """

    def __init__(self, rows: Rows, campaign: Campaign) -> None:
        super().__init__(rows, FIELD)
        self._variants = campaign.variants
        self._names = {name for name, _ in campaign.variants}
        self._salt = campaign.name

    def __iter__(self) -> Iterator[Recipient | BadRow]:
        """Each row in order."""
        for row in self._rows:
            if isinstance(row, BadRow):
                yield row
                continue
            given = row.fields.get(FIELD)
            if given in (None, ""):
                chosen = variant_of(row.address, self._variants, salt=self._salt)
                yield replace(row, fields={**row.fields, FIELD: chosen})
            elif isinstance(given, str) and given in self._names:
                yield row
            else:
                known = ", ".join(name for name, _ in self._variants)
                reason = f"the variant {printable(str(given), 40)!r} is none of this campaign: {known}"
                yield BadRow(reason, row.fields, row.place)


def varied(rows: Rows, campaign: Campaign) -> Rows:
    """The rows with the variant of each, where the campaign has variants."""
    return VariedRows(rows, campaign) if campaign.variants else rows
