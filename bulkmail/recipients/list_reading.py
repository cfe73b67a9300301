"""One reading of one list: what was asked for, what there is to say about it, and whether it has any recipients."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field

from bulkmail.model.errors import EmptyList
from bulkmail.model.lazy import dataclass
from bulkmail.model.recipient import Address, BadRow, Place, Recipient
from bulkmail.recipients.columns import is_report, listed
from bulkmail.recipients.fields import trimmed
from bulkmail.recipients.remarks import Remarks
from bulkmail.text import count

_MOST_COLUMNS = 1_000

MakeAddress = Callable[[Mapping[str, object]], tuple[str, Address]]
"""Display name and address of a row, made of its fields.  Raises `AddressError`."""


@dataclass(frozen=True, slots=True)
class ListOptions:
    """What the user said about a list; empty means find out.

    `name_column` None: no column holds the names.  `row_address` makes a row's display name and address of its fields,
    or raises `AddressError`, for rows without one address in `address_column`, and for all if there is no such column.
    `sheet` of a workbook is a name or a number, from 1; `header_row` is the line, of a workbook the row, that names the
    columns.  `keep_space` leaves the space around cells where it is.
    `keeps_delivery`: the columns that an earlier report added are fields like all others, for a condition over them.
    """

    address_column: str = ""
    name_column: str | None = ""
    encoding: str = ""
    row_address: MakeAddress | None = field(default=None, compare=False)
    sheet: str | int = ""
    header_row: int = 0
    keeps_delivery: bool = False
    keep_space: bool = False


@dataclass(slots=True)
class NotedCells:
    """How many cells were read otherwise than written, in which columns, and the first line with one."""

    cells: int = 0
    first_line: int = 0
    columns: dict[str, None] = field(default_factory=dict)

    def note(self, column: str, line: int) -> None:
        """One more."""
        self.cells += 1
        self.first_line = self.first_line or line
        if len(self.columns) < _MOST_COLUMNS:
            self.columns[column] = None


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of one list: its name in messages, what was asked for, the notices and remarks so far.

    `repeated` are the names that several columns have, each with what all but the first are called instead.
    `padded` are cells with space around them, `constants` fields with NaN or Infinity in them.
    `is_suppression` keeps the columns of a report and does not mind a list without rows.
    """

    name: str
    options: ListOptions
    notices: list[str] = field(default_factory=list)
    repeated: dict[str, list[str]] = field(default_factory=dict)
    remarks: Remarks = field(default_factory=Remarks)
    padded: NotedCells = field(default_factory=NotedCells)
    constants: NotedCells = field(default_factory=NotedCells)
    is_suppression: bool = False

    @property
    def keeps_delivery(self) -> bool:
        """Whether the columns of an earlier report stay."""
        return self.is_suppression or self.options.keeps_delivery

    def place(self, line: int) -> Place:
        """Where in the list that is."""
        return Place(self.name, line)

    def notice_delivery_columns(self, columns: Sequence[str]) -> None:
        """Says that these columns of a report are not part of the list."""
        if is_report(columns):
            said = f"left out the {len(columns)} delivery_… columns of an earlier report"
        else:
            said = f"left out {count(len(columns), 'column')} named as in bulkmail's reports: {listed(columns)}"
        self.notices.append(f"{self.name}: {said}")

    def trim(self, cells: Sequence[str], names: Sequence[str], *, line: int) -> Sequence[str]:
        """The cells of a row without the space around them, which is noted by column."""
        bare = list(map(trimmed, cells))
        if bare != cells:
            for at, cell in enumerate(cells):
                if bare[at] and bare[at] != cell:  # a cell of nothing but space is an empty one
                    self.padded.note(names[at] if at < len(names) else f"column{at + 1}", line)
        return bare

    def notice_padded(self) -> None:
        """Says at the end of the list that there was space around some cells."""
        if self.padded.cells and not self.is_suppression:
            cells, first = count(self.padded.cells, "cell"), self.place(self.padded.first_line)
            self.notices.append(f"{first}: spaces around {cells} taken off ({listed(list(self.padded.columns), 5)})")

    def notice_constants(self) -> None:
        """Says at the end of the list that some fields had no number."""
        if self.constants.cells:
            fields, first = count(self.constants.cells, "field"), self.place(self.constants.first_line)
            columns = listed(list(self.constants.columns), 5)
            self.notices.append(f"{first}: NaN or Infinity in {fields} read as null ({columns})")

    def begun(self, rows: Iterator[Recipient | BadRow], *, empty: str, hint: str = "") -> Iterator[Recipient | BadRow]:
        """The same rows, the first of which was read.  Raises `EmptyList` with `empty` if there is none."""
        first = next(rows, None)
        if first is not None:
            return itertools.chain([first], rows)
        if not self.is_suppression:
            raise EmptyList(f"{self.name}: {empty}", hint=hint)
        return rows


HEADER_ONLY = "the list has a header and not one row below it"
