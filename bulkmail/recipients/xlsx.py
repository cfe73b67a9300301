"""Workbooks: one sheet of an .xlsx, by default the first visible one, its cells as the text that people see in them."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from bulkmail.model.errors import EmptyList, ListError
from bulkmail.model.recipient import BadRow, Recipient
from bulkmail.recipients.columns import has_address_column
from bulkmail.recipients.hints import LOOKED_AT, Row, header_below, no_header_at, say_header
from bulkmail.recipients.list_reading import HEADER_ONLY, Reading
from bulkmail.recipients.rows_from_cells import CellRows
from bulkmail.recipients.seen_cells import SeenRow, seen_cells
from bulkmail.recipients.sheet_notes import is_open_document, read_notes
from bulkmail.recipients.sheets import choose_sheet, say_sheet
from bulkmail.recipients.streams import OpenedList
from bulkmail.text import printable

_WHOLE = 1e21  # from here on a float is written with an exponent


class SheetReader:
    """A list in a workbook: `columns` is known at once.  The sheet is in memory as a whole, as its format demands."""

    def __init__(self, opened: OpenedList, reading: Reading) -> None:
        """Raises `ListError` for what is no workbook, and for a sheet without a usable header or without rows."""
        book = _Book(opened, reading)
        name = choose_sheet(book.visible, book.names, reading)
        rows = book.seen_rows(name)
        try:
            line, header = _header(rows, reading)
            first = list(itertools.islice(rows, LOOKED_AT))
            texts = [(number, [cell_text(cell) for cell in cells]) for number, cells in first]
            self._table = CellRows(header, reading, line=line, first=texts, unit="row")
        except ListError as error:
            raise _with_better_place(error, book, name, reading) from None
        rows = itertools.chain(first, rows)
        self._names = reading.remarks.names = [cell.strip() for cell in header]
        self.columns = self._table.columns
        self._recipients = reading.begun(self._people(rows), empty=HEADER_ONLY)

    def rows(self) -> Iterator[Recipient | BadRow]:
        """All recipients, once."""
        return self._recipients

    def _people(self, rows: Iterator[tuple[int, Sequence[object]]]) -> Iterator[Recipient | BadRow]:
        for line, cells in rows:
            row = self._table.checked_row(line, [cell_text(cell) for cell in cells])
            if isinstance(row, Recipient) and bool in map(type, cells):
                row = self._with_booleans(row, cells)
            if row is not None:
                yield row
        self._table.notice_rows()

    def _with_booleans(self, row: Recipient, cells: Sequence[object]) -> Recipient:
        """The row with true and false where the sheet has them: as text each would count as true."""
        found = {name: cell for name, cell in zip(self._names, cells, strict=False) if isinstance(cell, bool)}
        return replace(row, fields={name: found.get(name, value) for name, value in row.fields.items()})


def _header(rows: Iterator[tuple[int, Sequence[object]]], reading: Reading) -> Row:
    """The row that names the columns: the one that was asked for, or else the first with any content."""
    wanted = reading.options.header_row
    for line, cells in rows:
        texts = [cell_text(cell) for cell in cells]
        if line == wanted and not any(map(str.strip, texts)):
            raise no_header_at(wanted, reading, unit="row", found="it is empty")
        if line >= wanted and any(map(str.strip, texts)):
            return line, texts
    if wanted:
        raise no_header_at(wanted, reading, unit="row", found="the sheet ends before it")
    raise EmptyList(f"{reading.name}: the sheet is empty", hint="its first row must name the columns")


def _with_better_place(error: ListError, book: _Book, name: str, reading: Reading) -> ListError:
    """The error of a header, its hint naming the row or the sheet that has the real one, if there is one."""
    wanted = reading.options.address_column
    if not reading.options.header_row:
        first = book.first_rows(name)
        if first and (found := header_below(first[0], first[1:], wanted=wanted)):
            return ListError(str(error), hint=say_header(*found, unit="row"))
    if reading.options.sheet == "":
        for other in book.visible:
            first = book.first_rows(other) if other != name else []
            if first and has_address_column([cell.strip() for cell in first[0][1]], wanted):
                return ListError(str(error), hint=say_sheet(other, first[0][1], wanted))
            found = header_below(first[0], first[1:], wanted=wanted) if first else None
            if found:
                return ListError(str(error), hint=f"{say_sheet(other)}; in it {say_header(*found, unit='row')}")
    return error


def cell_text(cell: object) -> str:
    """The cell as text: `7.0` as `7`, a date as `2026-11-03`, what a sheet calls true as `TRUE`."""
    match cell:
        case str():
            return cell
        case bool():
            return "TRUE" if cell else "FALSE"
        case float():
            # Sheets know no integers; and people see 15 digits of a float, never its last two.
            return str(int(cell)) if cell.is_integer() and abs(cell) < _WHOLE else f"{cell:.15g}"
        case datetime.date() | datetime.time():  # a datetime is a date
            return cell.isoformat()
        case datetime.timedelta():
            minutes, seconds = divmod(round(cell.total_seconds()), 60)
            return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    return "" if cell is None else str(cell)


class _Book:
    """A workbook.  `visible` are the names of its visible sheets, `names` those of all, hidden ones too.

    Raises `ListError`, also from its methods, for what is no workbook that can be read.
    """

    def __init__(self, opened: OpenedList, reading: Reading) -> None:
        try:
            import python_calamine  # it is an extra
        except ImportError:
            raise ListError(
                f"{reading.name}: workbooks need python-calamine, which is not installed",
                hint="type: pip install 'bulkmail[xlsx]'; or save the sheet as CSV",
            ) from None
        self._reading = reading
        self._file = opened.path or opened.stream
        with self._errors():
            self._book = python_calamine.CalamineWorkbook.from_object(self._file)
            sheets = [
                sheet for sheet in self._book.sheets_metadata if sheet.typ == python_calamine.SheetTypeEnum.WorkSheet
            ]
        self.names = [sheet.name for sheet in sheets]
        self.visible = [sheet.name for sheet in sheets if sheet.visible == python_calamine.SheetVisibleEnum.Visible]

    def rows(self, name: str) -> Iterator[Sequence[object]]:
        """The rows of a sheet."""
        with self._errors():
            return self._book.get_sheet_by_name(name).iter_rows()

    def seen_rows(self, name: str) -> Iterator[SeenRow]:
        """The rows of a sheet by number, as people see them; what they see otherwise goes into the remarks."""
        with self._errors():
            sheet = self._book.get_sheet_by_name(name)
        if is_open_document(self._file):
            self._reading.notices.append(
                f"{self._reading.name}: number formats and hidden rows of an OpenDocument sheet are not read: 19% is"
                " 0.19, a date is 2026-12-24, and hidden rows get the message; save it as .xlsx if that matters"
            )
        start = sheet.start
        return seen_cells(
            enumerate(sheet.iter_rows(), 1),
            read_notes(self._file, name),
            first_column=start[1] if start else 0,
            remarks=self._reading.remarks,
        )

    def first_rows(self, name: str) -> list[Row]:
        """The first rows of a sheet that have any content."""
        texts = ((line, [cell_text(cell) for cell in cells]) for line, cells in enumerate(self.rows(name), 1))
        return list(itertools.islice((row for row in texts if any(map(str.strip, row[1]))), LOOKED_AT))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        import python_calamine

        name = self._reading.name
        try:
            yield
        except python_calamine.PasswordError:
            raise ListError(f"{name} is protected by a password", hint="save it without one, or as CSV") from None
        except python_calamine.CalamineError as error:
            raise ListError(
                f"{name} is not a workbook that can be read: {printable(str(error))}", hint="save the sheet as CSV"
            ) from error
