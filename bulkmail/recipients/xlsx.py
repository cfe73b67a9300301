"""Workbooks: the first visible sheet of an .xlsx, its cells as the text that people see in them."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from bulkmail.model.errors import EmptyList, ListError
from bulkmail.model.recipient import BadRow, Recipient
from bulkmail.model.reply import printable
from bulkmail.recipients.columns import listed
from bulkmail.recipients.opening import Opened
from bulkmail.recipients.reading import HEADER_ONLY, Reading
from bulkmail.recipients.table import Table

if TYPE_CHECKING:
    from python_calamine import CalamineSheet

SUFFIXES = (".xlsx", ".xlsm", ".ods")
MAGIC = b"PK\x03\x04"
_WHOLE = 1e21  # from here on a float is written with an exponent


class SheetReader:
    """A list in a workbook: `columns` is known at once.  The sheet is in memory as a whole, as its format demands."""

    def __init__(self, opened: Opened, reading: Reading) -> None:
        """Raises `ListError` for what is no workbook, and for a sheet without a usable header or without rows."""
        rows = enumerate(_sheet(opened, reading).iter_rows(), 1)
        texts = ((line, [cell_text(cell) for cell in cells]) for line, cells in rows)
        line, header = next((row for row in texts if any(map(str.strip, row[1]))), (0, []))
        if not header:
            raise EmptyList(f"{reading.name}: the sheet is empty", hint="its first row must name the columns")
        self._table = Table(header, reading, line=line, unit="row")
        self.columns = self._table.columns
        self._everybody = reading.begun(self._people(rows), empty=HEADER_ONLY)

    def rows(self) -> Iterator[Recipient | BadRow]:
        """Everybody, once."""
        return self._everybody

    def _people(self, rows: Iterator[tuple[int, Sequence[object]]]) -> Iterator[Recipient | BadRow]:
        for line, cells in rows:
            row = self._table.checked_row(line, [cell_text(cell) for cell in cells])
            if row is not None:
                yield row


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


def _sheet(opened: Opened, reading: Reading) -> CalamineSheet:
    try:
        import python_calamine  # it is an extra
    except ImportError:
        raise ListError(
            f"{reading.name}: workbooks need python-calamine, which is not installed",
            hint="type: pip install 'bulkmail[xlsx]'; or save the sheet as CSV",
        ) from None
    try:
        book = python_calamine.CalamineWorkbook.from_object(opened.path or opened.stream)
        visible = [
            sheet.name
            for sheet in book.sheets_metadata
            if sheet.visible == python_calamine.SheetVisibleEnum.Visible
            and sheet.typ == python_calamine.SheetTypeEnum.WorkSheet
        ]
        return book.get_sheet_by_name(_first(visible, reading))
    except python_calamine.PasswordError:
        raise ListError(f"{reading.name} is protected by a password", hint="save it without one, or as CSV") from None
    except python_calamine.CalamineError as error:
        raise ListError(
            f"{reading.name} is not a workbook that can be read: {printable(str(error))}", hint="save the sheet as CSV"
        ) from error


def _first(sheets: Sequence[str], reading: Reading) -> str:
    if not sheets:
        raise ListError(f"{reading.name}: the workbook has no visible sheet")
    if len(sheets) > 1:
        reading.notices.append(
            f"{reading.name} has {len(sheets)} sheets; only the first, {listed(sheets[:1])}, was read"
        )
    return sheets[0]
