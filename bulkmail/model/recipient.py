"""One person of the list, and one row without a usable recipient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


class RowFields(dict[str, object]):
    """The fields of one row of a message that several rows share; `_place` is where the row is.

    The name begins with `_` because templates, which get these values, cannot reach such names.
    """

    __slots__ = ("_place",)

    def __init__(self, fields: Mapping[str, object], place: Place) -> None:
        super().__init__(fields)
        self._place = place

    @staticmethod
    def place_of(row: object) -> Place | None:
        """Where the row is; None for a value that is none of these."""
        return row._place if isinstance(row, RowFields) else None


@dataclass(frozen=True, slots=True)
class Recipient:
    """A row that can be written to.  `fields` are its cells by column, the address's own among them.

    From CSV and sheets every field is text; from JSON a field may be any JSON value.  `rows` are the fields of all rows
    that share the message, this one's first, where rows are grouped; empty where each row has a message of its own.
    """

    address: Address
    name: str
    fields: Mapping[str, object]
    place: Place
    rows: tuple[RowFields, ...] = ()


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be sent to.  `reason` is a sentence; `fields` is what could be read of it."""

    reason: str
    fields: Mapping[str, object]
    place: Place


PlainRow = tuple[int, str, str, str, dict[str, str]]
"""A row that can be written to, in brief: its line, `Address.wire`, the display name, `Address.key`, the fields."""


StoredRow = tuple[int, str, str, dict[str, object], str, int]
"""A recipient as an outbox has it: the number of its row, `Address.wire`, the display name, the fields, file, line."""


class PlainRows(NamedTuple):
    """Rows of one file that follow one another, none of which needs a second look.

    Every value is a text without a NUL and without a lone surrogate.  `due_at`, if given, says for each row
    when it may be tried first (wall-clock seconds, 0 for at once).
    """

    file: str
    rows: list[PlainRow]
    due_at: Sequence[float] = ()
