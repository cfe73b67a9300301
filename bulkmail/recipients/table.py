"""Rows of cells under a header, as recipients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bulkmail.model.address import parse_mailbox
from bulkmail.model.errors import AddressError, ListError
from bulkmail.model.recipient import BadRow, Place, Recipient
from bulkmail.model.units import count
from bulkmail.recipients.columns import (
    DELIVERY_COLUMNS,
    MOST_COLUMNS,
    address_column,
    is_report,
    listed,
    name_column,
    unguarded,
)
from bulkmail.recipients.dialect import SPOKEN
from bulkmail.recipients.fields import LONGEST_CELL, display_name, shown, storable, text_fault


@dataclass(frozen=True, slots=True)
class ListOptions:
    """What the user said about a list; empty means find out."""

    address_column: str = ""
    name_column: str = ""
    encoding: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of one list: its name in messages, what was asked for, and the notices so far.

    `is_suppression` keeps the columns of a report and does not mind a list without rows.
    """

    name: str
    options: ListOptions
    notices: list[str] = field(default_factory=list)
    is_suppression: bool = False

    def place(self, line: int) -> Place:
        """Where in the list that is."""
        return Place(self.name, line)

    def notice_delivery_columns(self, columns: Sequence[str]) -> None:
        """Says that these columns of a report are not part of the list."""
        number = count(len(columns), "column")
        self.notices.append(f"{self.name}: left out {number} named as in bulkmail's reports: {listed(columns)}")


class Table:
    """What to make of a row.  `columns` are the names of the header, less those that are left out."""

    def __init__(
        self, header: Sequence[str], reading: Reading, *, line: int, unit: str = "line", delimiter: str = ""
    ) -> None:
        """`line` is the header's; `unit` is what rows are counted in; `delimiter` is empty for a sheet.

        Raises `ListError` for a header that cannot be used.
        """
        self._reading = reading
        self._file = reading.name
        self._unit = unit
        self._delimiter = delimiter
        self._empty_rows = 0
        self._first_empty = 0  # its line
        place = reading.place(line)
        self._is_report = is_report(header)
        names = _trimmed([unguarded(cell) for cell in header] if self._is_report else header, reading, place=place)
        self._names = names
        self._named = len(names)
        self._width = len(header)
        _refuse_addresses(names, place=place, options=reading.options, between=delimiter or ", ", unit=unit)
        _refuse_bad_names(names, place=place)
        address = address_column(names, reading.options.address_column, place=place)
        name = name_column(names, reading.options.name_column, place=place)
        kept = list(range(self._named))
        if not reading.is_suppression and not set(names).isdisjoint(DELIVERY_COLUMNS):
            reading.notice_delivery_columns([each for each in names if each in DELIVERY_COLUMNS])
            kept = [at for at in kept if names[at] not in DELIVERY_COLUMNS]
        # None where all are kept, which spares every row the picking.
        self._kept = None if len(kept) == self._width else kept
        self.columns = [names[at] for at in kept]
        self._address_column = address
        self._address_at = names.index(address)
        self._name_column = name
        self._name_at = names.index(name) if name else -1

    def row(self, line: int, cells: Sequence[str]) -> Recipient | BadRow | None:
        """The row as a recipient; None if it has no content at all."""
        if self._is_report:
            cells = [unguarded(cell) for cell in cells]
        if len(cells) != self._width:
            return self._misfit(line, cells)
        try:
            name, address = parse_mailbox(cells[self._address_at])
        except AddressError as error:
            return self._unaddressed(line, cells, error)
        if self._name_at >= 0 and (given := cells[self._name_at]):
            try:
                name = display_name(given) or name
            except AddressError as error:
                return self.bad(line, cells, f"the name in column {shown(self._name_column)} {error}")
        if self._kept is None:
            fields = dict(zip(self.columns, cells))  # noqa: B905  (as many as the width; strict= costs 0.3 µs)
        elif self._width > self._named and any(map(str.strip, cells[self._named :])):
            return self._beyond(line, cells)
        else:
            fields = {column: cells[at] for column, at in zip(self.columns, self._kept, strict=True)}
        return Recipient(address, name, fields, Place(self._file, line))

    def checked_row(self, line: int, cells: Sequence[str]) -> Recipient | BadRow | None:
        """The same for a row in which some cell may be one that can be neither stored nor sent."""
        for at, cell in enumerate(cells):
            fault = text_fault(cell)
            if fault:
                return self.bad(line, cells, f"the cell in {self._column(at)} {fault}")
        return self.row(line, cells)

    def bad(self, line: int, cells: Sequence[str], reason: str) -> BadRow:
        """A row that nobody can be written to from; only what can be stored is kept of it."""
        fields: Mapping[str, object] = {
            column: storable(cells[at])
            for column, at in zip(self.columns, self._kept or range(self._width), strict=False)
            if at < len(cells)
        }
        return BadRow(reason, fields, Place(self._file, line))

    def notice_empty_rows(self) -> None:
        """Says at the end of the list that some rows had cells but nothing in them."""
        if self._empty_rows:
            rows, first = count(self._empty_rows, "row"), f"{self._unit} {self._first_empty:,}"
            self._reading.notices.append(f"{self._file}: {rows} without any content skipped, the first at {first}")

    def _column(self, at: int) -> str:
        return f"column {shown(self._names[at])}" if at < self._named else f"column {at + 1}"

    def _unaddressed(self, line: int, cells: Sequence[str], error: AddressError) -> BadRow | None:
        cell = cells[self._address_at]
        if not cell.strip():
            return self._without_address(line, cells)
        return self.bad(line, cells, f"the address {shown(cell)} {error}")

    def _without_address(self, line: int, cells: Sequence[str]) -> BadRow | None:
        if not any(map(str.strip, cells)):
            if len(cells) > 1:
                self._empty_rows += 1
                self._first_empty = self._first_empty or line
            return None
        return self.bad(line, cells, f"there is no address: the cell in column {shown(self._address_column)} is empty")

    def _misfit(self, line: int, cells: Sequence[str]) -> Recipient | BadRow | None:
        if self._named <= len(cells) < self._width:  # the header alone ends in empty cells
            return self.row(line, [*cells, *[""] * (self._width - len(cells))])
        if not any(map(str.strip, cells)):
            return self._without_address(line, cells)
        reason = f"the row has {count(len(cells), 'cell')}, expected {self._named:,} as in the header"
        if len(cells) > self._width:
            reason += f"; a cell that holds {SPOKEN[self._delimiter]} must stand in double quotes"
        return self.bad(line, cells, reason)

    def _beyond(self, line: int, cells: Sequence[str]) -> BadRow:
        at = next(at for at in range(self._named, self._width) if cells[at].strip())
        return self.bad(
            line, cells, f"the row has {shown(cells[at])} in column {at + 1}, which has no name in the header"
        )


def _trimmed(header: Sequence[str], reading: Reading, *, place: Place) -> list[str]:
    """The header's names without the space around them and without empty cells at its end."""
    names = [cell.strip().strip("\ufeff").strip() for cell in header]
    while names and not names[-1]:
        names.pop()
    padded = [name for cell, name in zip(header, names, strict=False) if cell != name and name]
    if padded:
        reading.notices.append(f"{place}: spaces around the column names {listed(padded)} were taken off")
    return names


def _refuse_addresses(names: Sequence[str], *, place: Place, options: ListOptions, between: str, unit: str) -> None:
    """Raises `ListError` for a header that is no header: its cells hold an address."""
    if options.address_column in names:
        return
    for at, name in enumerate(names):
        try:
            parse_mailbox(name)
        except AddressError:
            continue
        example = ["email" if each == at else f"column{each + 1}" for each in range(len(names))]
        raise ListError(
            f"{place}: the first {unit} must name the columns, but it holds the address {shown(name)}",
            hint=f"put a {unit} above it that names the columns: {between.join(example)}",
        )


def _refuse_bad_names(names: Sequence[str], *, place: Place) -> None:
    if len(names) > MOST_COLUMNS:
        raise ListError(f"{place}: the header has {len(names):,} columns; the most is {MOST_COLUMNS:,}")
    seen: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if not name:
            raise ListError(f"{place}: column {number} has no name", hint="name it in the header, or delete the column")
        fault = text_fault(name)
        if fault:
            raise ListError(f"{place}: the name of column {number} {fault}: {shown(name)}", hint=_hint(name))
        if name in seen:
            raise ListError(
                f"{place}: two columns are named {shown(name)}: columns {seen[name]} and {number}",
                hint="rename one of them in the header",
            )
        seen[name] = number


def _hint(name: str) -> str:
    if len(name) > LONGEST_CELL:
        return "this is hardly a header; its first line must name the columns"
    if "\0" in name:
        return "this looks like UTF-16; say --encoding utf-16-le, or save the list as UTF-8"
    return "name the list's encoding with --encoding"
