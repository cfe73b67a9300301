"""Which rows share a message: those with the same values in the columns that rows are grouped by."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b

from bulkmail.model.errors import AddressError, ListError
from bulkmail.model.recipient import BadRow, Recipient, parse_mailbox
from bulkmail.recipients.columns import has_address_column
from bulkmail.recipients.fields import shown

EMAIL = "email"
"""Stands for the address of the row, whatever its column is called."""


class Ungrouped(ListError):
    """A row that could belong to any message; `str()` is a sentence."""


class Grouping:
    """Says what each row is grouped by.

    Addresses are compared as addresses (`Address.key`), so `Ann@Shop.example` and `ann@shop.example` are the same;
    other cells are compared as they are.
    """

    def __init__(self, columns: Sequence[str], *, address_column: str = "") -> None:
        """`address_column` is the column that holds the addresses, if the settings name one."""
        self.columns = tuple(columns)
        self._address_column = address_column

    def key(self, row: Recipient | BadRow) -> bytes:
        """16 bytes, the same for rows that share a message; empty for a bad row that does not say.

        Raises `Ungrouped` for a row that has nothing in one of the columns.
        """
        values: list[str] = []
        for column in self.columns:
            value = self._value(row, column)
            if value is None:
                if isinstance(row, BadRow):
                    return b""
                raise Ungrouped(
                    f"the field {shown(column)}, by which rows are grouped, is "
                    f"{'empty' if column in row.fields else 'missing'}: it does not say which message the row is for"
                )
            values.append(value)
        return blake2b(json.dumps(values).encode(), digest_size=16).digest()

    def _value(self, row: Recipient | BadRow, column: str) -> str | None:
        """The text that stands for the row's value; None if there is none."""
        if column == EMAIL or (column == self._address_column and column):
            return row.address.key if isinstance(row, Recipient) else self._address_of(row.fields)
        value = row.fields.get(column)
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        if isinstance(value, str):
            return _address_key(value) or value
        return json.dumps(value, sort_keys=True, default=str)

    def _address_of(self, fields: Mapping[str, object]) -> str | None:
        """The key of the address in a row that is bad for another reason."""
        column = self._address_column
        if not column and has_address_column(list(fields), ""):
            column = next(each for each in fields if has_address_column([each], ""))
        value = fields.get(column)
        return (_address_key(value) or None) if isinstance(value, str) else None


def _address_key(text: str) -> str:
    """The `Address.key` of a cell that holds one address, "" for any other."""
    if "@" not in text:
        return ""
    try:
        return parse_mailbox(text)[1].key
    except AddressError:
        return ""
