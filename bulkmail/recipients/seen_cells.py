"""The cells of a sheet as people see them: values put together with what the sheet says of their looks."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence

from bulkmail.recipients.number_format import NotShown, shown_moment, shown_number, shown_text
from bulkmail.recipients.remarks import Remarks
from bulkmail.recipients.sheet_notes import RowNotes

EXACT = 1e15  # a sheet keeps 15 digits of a number; of a longer one the last ones are lost

SeenRow = tuple[int, Sequence[object]]


def seen_cells(
    rows: Iterable[SeenRow], notes: Iterator[RowNotes], *, first_column: int, remarks: Remarks
) -> Iterator[SeenRow]:
    """The rows with text in place of every number or date that has a format; `notes` are about some of them, in order.

    `first_column` is that of the first cell.  What is seen otherwise than it is read is put into `remarks`, by the
    number of the column.
    """
    note = next(notes, None)
    for line, cells in rows:
        while note is not None and note.number < line:
            note = next(notes, None)
        if note is not None and note.number == line:
            if note.is_hidden:
                remarks.hidden.add(line)
            cells = _noted(line, cells, note, first_column, remarks)
        for at, cell in enumerate(cells):
            if isinstance(cell, float) and abs(cell) >= EXACT:
                remarks.add(remarks.inexact, at, line, f"{cell:.0f}")
        yield line, cells


def _noted(line: int, cells: Sequence[object], note: RowNotes, first_column: int, remarks: Remarks) -> Sequence[object]:
    seen = list(cells)
    for column, code in note.formats.items():
        at = column - first_column
        if 0 <= at < len(seen):
            try:
                seen[at] = _shown(seen[at], code)
            except NotShown:
                remarks.add(remarks.formats, at, line, code)
    for column, error in note.errors.items():
        at = column - first_column
        if 0 <= at < len(seen):
            seen[at] = error
    for column in note.blank:
        at = column - first_column
        if 0 <= at < len(seen) and seen[at] in ("", None):
            remarks.add(remarks.blank, at, line, "")
    return seen


def _shown(cell: object, code: str) -> object:
    match cell:
        case float():
            return shown_number(cell, code)
        case datetime.date() | datetime.time() | datetime.timedelta():
            return shown_moment(cell, code)
        case str() if cell:
            return shown_text(cell, code)
    return cell
