"""Rows of cells under a header, as recipients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bulkmail.model.address import parse_mailbox
from bulkmail.model.errors import AddressError
from bulkmail.model.recipient import BadRow, Place, Recipient
from bulkmail.model.units import count
from bulkmail.recipients.columns import DELIVERY_COLUMNS, address_column, is_report, name_column, unguarded
from bulkmail.recipients.dialect import SPOKEN
from bulkmail.recipients.fields import display_name, shown, storable, text_fault
from bulkmail.recipients.header import column_names
from bulkmail.recipients.reading import Reading


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
        cells = [unguarded(cell) for cell in header] if self._is_report else header
        names = column_names(cells, reading, place=place, unit=unit, delimiter=delimiter)
        self._names = names
        self._named = len(names)
        self._width = len(header)
        address = address_column(names, reading.options.address_column, place=place)
        name = name_column(names, reading.options.name_column, place=place)
        kept = list(range(self._named))
        if not reading.keeps_delivery and not set(names).isdisjoint(DELIVERY_COLUMNS):
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
