"""Rows of cells under a header, as recipients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from bulkmail.model.errors import AddressError, ListError
from bulkmail.model.recipient import Address, BadRow, Place, PlainRow, Recipient, parse_mailbox, plain_address
from bulkmail.recipients.columns import DELIVERY_COLUMNS, address_column, is_report, name_column, unguarded
from bulkmail.recipients.delimiter import SPOKEN
from bulkmail.recipients.fields import USUAL_NAME, display_name, shown, storable, text_fault
from bulkmail.recipients.header_line import column_names
from bulkmail.recipients.hints import Row, address_columns, by_column, check_addresses, say_column
from bulkmail.recipients.list_reading import MakeAddress, Reading
from bulkmail.text import count


class CellRows:
    """What to make of a row.  `columns` are the names of the header, less those that are left out."""

    def __init__(
        self,
        header: Sequence[str],
        reading: Reading,
        *,
        line: int,
        first: Sequence[Row] = (),
        unit: str = "line",
        delimiter: str = "",
    ) -> None:
        """`line` is the header's; `unit` is what rows are counted in; `delimiter` is empty for a sheet.

        `first` are some rows below it, to judge the columns by.  Raises `ListError` for a header that cannot be used.
        """
        self._reading = reading
        self._file = reading.name
        self._unit = unit
        self._delimiter = delimiter
        self._empty_rows = 0
        self._first_empty = 0  # its line
        self._short_rows = 0
        self._first_short = 0  # its line
        self._numbers = 0  # in the column of names
        self._first_number = 0  # its line
        place = reading.place(line)
        self._is_report = is_report(header)
        self._trims = not reading.options.keep_space
        cells = [unguarded(cell) for cell in header] if self._is_report else header
        rows = [cells for _, cells in first]
        names = column_names(cells, reading, place=place, unit=unit, delimiter=delimiter, rows=rows)
        self._names = names
        self._named = len(names)
        self._width = len(header)
        self._row_address = reading.options.row_address
        is_made = self._row_address is not None and not reading.options.address_column
        address = ""
        if not is_made:
            samples = by_column(names, first)
            holding = say_column(address_columns(names, samples), reading)
            address = address_column(names, reading.options.address_column, place=place, hint=holding)
            if not reading.options.address_column and not self._is_report:
                check_addresses(address, names, samples, reading)
        name = name_column(names, reading.options.name_column, place=place)
        _refuse_repeated(address, reading, place=place, flag="--address-column")
        if name in reading.repeated:
            if reading.options.name_column:
                _refuse_repeated(name, reading, place=place, flag="name_column")
            name = ""
        kept = list(range(self._named))
        if not reading.keeps_delivery and not set(names).isdisjoint(DELIVERY_COLUMNS):
            reading.notice_delivery_columns([each for each in names if each in DELIVERY_COLUMNS])
            kept = [at for at in kept if names[at] not in DELIVERY_COLUMNS]
        # None where all are kept, which spares every row the picking.
        self._kept = None if len(kept) == self._width else kept
        self.columns = [names[at] for at in kept]
        self._address_column = address
        self._address_at = -1 if is_made else names.index(address)
        self._name_column = name
        self._name_at = names.index(name) if name else -1

    @property
    def has_plain_rows(self) -> bool:
        """Whether `plain_row` may take a row: no column is left out, and no address is made of several."""
        return not self._is_report and self._kept is None and self._row_address is None

    def plain_row(self, line: int, cells: list[str]) -> PlainRow | None:
        """In brief what `row` makes of the row, where it takes every cell as it is and says nothing; else None.

        Only if there are plain rows, and for cells that hold neither a NUL nor a lone surrogate.
        """
        if len(cells) != self._width or (self._trims and not _are_bare(cells)):
            return None
        address = plain_address(cells[self._address_at])
        if address is None:
            return None
        name = ""
        if self._name_at >= 0 and (given := cells[self._name_at]):
            if not (given[0].isalpha() and len(given) <= USUAL_NAME and given.isprintable()):
                return None
            name = given.strip()
        wire = f"{address[0]}@{address[1]}"
        return line, wire, name, wire.lower(), dict(zip(self.columns, cells))  # noqa: B905  (as many as the width)

    def row(self, line: int, cells: Sequence[str]) -> Recipient | BadRow | None:
        """The row as a recipient; None if it has no content at all."""
        if self._is_report:
            cells = [unguarded(cell) for cell in cells]
        if len(cells) != self._width:
            return self._misfit(line, cells)
        if self._trims:
            cells = self._reading.trim(cells, self._names, line=line)
        try:
            make = self._row_address
            name, address = self._made(make, cells) if make else parse_mailbox(cells[self._address_at])
        except AddressError as error:
            return self._unaddressed(line, cells, error)
        if self._name_at >= 0 and (given := cells[self._name_at]):
            try:
                name = self._display_name(given, line) or name
            except AddressError as error:
                return self.bad(line, cells, f"the name in column {shown(self._name_column)} {error}")
        if self._kept is None:
            fields = dict(zip(self.columns, cells))  # noqa: B905  (as many as the width; strict= costs 0.3 µs)
        elif self._width > self._named and any(map(str.strip, cells[self._named :])):
            return self._beyond(line, cells)
        else:
            fields = {column: cells[at] for column, at in zip(self.columns, self._kept, strict=True)}
        return Recipient(address, name, fields, Place(self._file, line))

    def _display_name(self, given: str, line: int) -> str:
        """The name in a cell; none in one that is an order number such as `#1001`, unless the user named the column."""
        if not (given[:1].isalpha() or self._reading.options.name_column or any(map(str.isalpha, given))):
            self._numbers += 1
            self._first_number = self._first_number or line
            return ""
        return display_name(given)

    def checked_row(self, line: int, cells: Sequence[str]) -> Recipient | BadRow | None:
        """The same for a row in which some cell may be one that can be neither stored nor sent."""
        for at, cell in enumerate(cells):
            fault = text_fault(cell)
            if fault:
                return self.bad(line, cells, f"the cell in {self._column(at)} {fault}")
        return self.row(line, cells)

    def bad(self, line: int, cells: Sequence[str], reason: str) -> BadRow:
        """A row without a usable address; only what can be stored is kept of it."""
        fields: Mapping[str, object] = {
            column: storable(cells[at])
            for column, at in zip(self.columns, self._kept or range(self._width), strict=False)
            if at < len(cells)
        }
        return BadRow(reason, fields, Place(self._file, line))

    def notice_rows(self) -> None:
        """Says at the end of the list what was taken off cells, and that some rows were empty or too short."""
        self._reading.notice_padded()
        if self._numbers:
            self._reading.notices.append(
                f"{self._file}: column {shown(self._name_column)} holds no name in {count(self._numbers, 'row')}, the "
                f"first at {self._unit} {self._first_number:,}; To shows these addresses alone"
            )
        if self._short_rows:
            rows, first = count(self._short_rows, "row"), f"{self._unit} {self._first_short:,}"
            self._reading.notices.append(
                f"{self._file}: {rows} without the last cells, the first at {first}; the missing cells count as empty"
            )
        if self._empty_rows:
            rows, first = count(self._empty_rows, "row"), f"{self._unit} {self._first_empty:,}"
            self._reading.notices.append(f"{self._file}: {rows} without any content skipped, the first at {first}")

    def _column(self, at: int) -> str:
        return f"column {shown(self._names[at])}" if at < self._named else f"column {at + 1}"

    def _made(self, make: MakeAddress, cells: Sequence[str]) -> tuple[str, Address]:
        """Display name and address of a row: those of its cell, if that holds one, or else what its fields make."""
        fields: dict[str, object] = dict(zip(self._names, cells, strict=False))
        if self._address_at < 0:
            if not any(map(str.strip, cells)):
                raise AddressError("is empty")
            return make(fields)
        try:
            return parse_mailbox(cells[self._address_at])
        except AddressError:
            with suppress(AddressError):
                return make(fields)
            raise

    def _unaddressed(self, line: int, cells: Sequence[str], error: AddressError) -> BadRow | None:
        if self._address_at < 0:
            return (
                self.bad(line, cells, str(error)) if any(map(str.strip, cells)) else self._without_address(line, cells)
            )
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
        if not any(map(str.strip, cells)):
            return self._without_address(line, cells)
        if self._address_at < len(cells) < self._width:  # many programs leave empty cells at the end out
            if len(cells) < self._named and not self._reading.is_suppression:
                self._short_rows += 1
                self._first_short = self._first_short or line
            return self.row(line, [*cells, *[""] * (self._width - len(cells))])
        if len(cells) > self._width and not any(map(str.strip, cells[self._width :])):
            return self.row(line, cells[: self._width])
        reason = f"the row has {count(len(cells), 'cell')}, expected {self._named:,} as in the header"
        if len(cells) > self._width:
            reason += f"; a cell that holds {SPOKEN[self._delimiter]} must stand in double quotes"
        return self.bad(line, cells, reason)

    def _beyond(self, line: int, cells: Sequence[str]) -> BadRow:
        at = next(at for at in range(self._named, self._width) if cells[at].strip())
        return self.bad(
            line, cells, f"the row has {shown(cells[at])} in column {at + 1}, which has no name in the header"
        )


def _are_bare(cells: list[str]) -> bool:
    """Whether `trimmed` surely leaves them as they are: what it takes away and `strip` does not is not printable."""
    if list(map(str.strip, cells)) != cells:
        return False
    text = "".join(cells)
    return text.isascii() or text.isprintable()


def _refuse_repeated(column: str, reading: Reading, *, place: Place, flag: str) -> None:
    """Raises `ListError` if more than one column has that name."""
    others = reading.repeated.get(column)
    if others:
        raise ListError(
            f"{place}: {len(others) + 1} columns are named {shown(column)}, so it is not clear which one is meant",
            hint=f"rename all but one of them in the header, or take one of the others: {flag} {others[0]}",
        )
