"""One person of the list, and one row that is nobody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from bulkmail.model.address import Address


class Place(NamedTuple):
    """Where a row came from: the file as the user named it, and its line (1-based; for a sheet, its row).

    One a row, made twice on its way: a tuple takes half as long to make as a frozen dataclass.
    """

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Recipient:
    """A row that can be written to.  `fields` are its cells by column, the address's own among them.

    From CSV and sheets every field is text; from JSON a field may be any JSON value.
    """

    address: Address
    name: str
    fields: Mapping[str, object]
    place: Place


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that nobody can be written to from.  `reason` is a sentence; `fields` is what could be read of it."""

    reason: str
    fields: Mapping[str, object]
    place: Place


PlainRow = tuple[int, str, str, str, dict[str, str]]
"""A row that can be written to, in brief: its line, `Address.wire`, the display name, `Address.key`, the fields."""


StoredRow = tuple[int, str, str, dict[str, object], str, int]
"""A recipient as an outbox has it: the number of its row, `Address.wire`, the display name, the fields, file, line."""


class PlainRows(NamedTuple):
    """Rows of one file that follow one another, none of which needs a second look.

    Every value is a text without a NUL and without a lone surrogate.
    """

    file: str
    rows: list[PlainRow]
