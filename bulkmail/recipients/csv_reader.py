"""CSV and its like: text in lines, cells between delimiters, quotes around what needs them (RFC 4180)."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from enum import Enum
from itertools import islice
from typing import IO, TextIO

from bulkmail.model.errors import EmptyList, ListError
from bulkmail.model.lazy import lazy_pattern
from bulkmail.model.recipient import BadRow, PlainRow, PlainRows, Recipient
from bulkmail.recipients.delimiter import (
    DELIMITERS,
    SPOKEN,
    declared_delimiter,
    first_rows,
    from_line,
    guess_delimiter,
)
from bulkmail.recipients.fields import LONGEST_CELL, LONGEST_ROW
from bulkmail.recipients.hints import header_below, no_header_at, say_header
from bulkmail.recipients.list_reading import HEADER_ONLY, Reading
from bulkmail.recipients.rows_from_cells import CellRows
from bulkmail.recipients.streams import choose, open_text
from bulkmail.text import count

_QUOTE = '"'
_ESCAPED_QUOTE = '\\"'
_ESCAPE = lazy_pattern(r"\\(.)")
_SAMPLE = 1 << 16  # characters that the delimiter is guessed from
_WITNESSES = 20  # lines that distinguish a stray quote from a long cell
_BLOCK = 1_000  # plain rows taken together
_MOST_READ_AGAIN = LONGEST_ROW  # characters, so that hostile quotes cannot make reading quadratic


class RowFault(Enum):
    """What is the matter with a row as text."""

    NONE = "none"
    CHARACTERS = "characters"  # it may have a cell that is too long, or characters that cannot be stored
    TOO_LONG = "too long"  # only its beginning was kept
    UNCLOSED = "unclosed"  # a quote opens a cell and does not close it; only the row's first line was taken


class CellReader:
    """Rows of cells from lines of text.  No row, however broken, keeps it from the next.

    `line` is the last physical line read, from 1.  `width` is the number of cells to expect, once it is known.
    `escaped_rows` had `\"` for a quote in a cell, the first of them at line `first_escaped`.
    """

    def __init__(self, text: TextIO, delimiter: str) -> None:
        self.line = 0
        self.width = 0
        self.escaped_rows = 0
        self.first_escaped = 0
        self._text = text
        self._delimiter = delimiter
        self._again: deque[str] = deque()
        self._may_read_again = _MOST_READ_AGAIN
        self._taken: list[str] = []  # the physical lines of the row in hand, if it has quotes
        self._is_first = False
        _raise_limit()
        self._rows = self._new_rows()

    def rows(self) -> Iterator[tuple[int, list[str], RowFault]]:
        """Each row's first line, its cells, and what is the matter with it.  Blank lines are rows of one empty cell."""
        delimiter, clean, quote = self._delimiter, RowFault.NONE, _QUOTE
        while line := self._next_line():
            number = self.line
            if quote in line:
                cells, trouble = self._quoted(line)
                yield number, cells, trouble
            else:
                # Without a quote a row is a line, and splitting it is what the csv module does, only faster.
                trouble = clean if line.isascii() and "\0" not in line and len(line) <= LONGEST_CELL else _trouble(line)
                yield number, line.rstrip("\r\n").split(delimiter), trouble

    def _next_line(self) -> str:
        """A physical line, of which at most `LONGEST_ROW` characters are kept; "" at the end."""
        if self._again:
            self.line += 1
            return self._again.popleft()
        line = self._text.readline(LONGEST_ROW)
        if line:
            self.line += 1
            if len(line) == LONGEST_ROW:
                rest = line
                while rest and rest[-1] not in "\r\n":
                    rest = self._text.readline(LONGEST_CELL)
        return line

    def _quoted(self, line: str) -> tuple[list[str], RowFault]:
        if len(line) >= LONGEST_ROW:
            return self._cells([line]), RowFault.TOO_LONG
        if _ESCAPED_QUOTE in line and (escaped := self._with_backslashes(line)):
            self.escaped_rows += 1
            self.first_escaped = self.first_escaped or self.line
            return escaped, _trouble(line)
        self._taken, self._is_first = [line], True
        try:
            cells = next(self._rows)
        except _Endless as endless:
            self._rows = self._new_rows()
            if endless.is_too_long and not self._has_stray_quote():
                self._skip_to_quote()
                return self._cells(self._taken), RowFault.TOO_LONG
            return self._give_back()
        except csv.Error:  # other code in this process lowered the limit
            _raise_limit()
            self._rows = self._new_rows()
            self._put_back(self._taken)
            return self._quoted(self._next_line())
        if len(self._taken) > 1 and not self._is_strict():
            return self._give_back()
        return cells, _trouble(line if len(self._taken) == 1 else "".join(self._taken))

    def _with_backslashes(self, line: str) -> list[str]:
        """The cells of a row that is sound only if `\\"` is a quote in a cell, as MySQL writes it; else nothing."""
        if self._is_sound([line]):
            return []
        only_quotes = _ESCAPE.sub(lambda found: found[0] if found[1] in '"\\' else f"\\\\{found[1]}", line)
        try:
            rows = list(
                csv.reader([only_quotes], delimiter=self._delimiter, escapechar="\\", doublequote=False, strict=True)
            )
        except csv.Error:
            return []
        return rows[0] if len(rows) == 1 and len(rows[0]) == (self.width or len(rows[0])) else []

    def _new_rows(self) -> Iterator[list[str]]:
        return csv.reader(self._feed(), delimiter=self._delimiter)

    def _feed(self) -> Iterator[str]:
        """What the csv module reads: the line in hand, and the next ones while a quote is open in it."""
        size = 0
        while True:
            if self._is_first:
                self._is_first, size = False, len(self._taken[0])
                yield self._taken[0]
                continue
            if self._again and self._may_read_again <= 0:
                raise _Endless(is_too_long=False)
            line = self._next_line()
            if not line:
                raise _Endless(is_too_long=False)
            self._taken.append(line)
            size += len(line)
            if size > LONGEST_ROW:
                raise _Endless(is_too_long=True)
            yield line

    def _is_strict(self) -> bool:
        """Whether every quote that closes a cell is followed by its end, as every program writes it.

        A stray quote swallows lines up to the next one, which then closes a cell in the middle: those lines are people.
        """
        return self._is_sound(self._taken)

    def _is_sound(self, lines: list[str]) -> bool:
        try:
            list(csv.reader(lines, delimiter=self._delimiter, strict=True))
        except csv.Error:
            return False
        return True

    def _has_stray_quote(self) -> bool:
        """Whether the lines that an endless cell swallowed look like rows of their own."""
        lines = [each for each in self._taken[1 : _WITNESSES + 1] if each.strip()]
        if self.width > 1:
            like = sum(line.count(self._delimiter) == self.width - 1 for line in lines)
        else:
            like = sum("@" in line for line in lines)
        return like * 2 > len(lines)

    def _give_back(self) -> tuple[list[str], RowFault]:
        """Takes only the row's first line and puts the others back."""
        first, *others = self._taken
        self._put_back(others)
        self._may_read_again -= sum(map(len, others))
        return self._cells([first.rstrip("\r\n")]), RowFault.UNCLOSED

    def _put_back(self, lines: list[str]) -> None:
        self._again.extendleft(reversed(lines))
        self.line -= len(lines)

    def _skip_to_quote(self) -> None:
        while line := self._next_line():
            if line.count(_QUOTE) % 2:
                return

    def _cells(self, lines: list[str]) -> list[str]:
        return next(csv.reader(lines, delimiter=self._delimiter))


def _raise_limit() -> None:
    """The longest cell that the csv module takes is the whole process's setting, by default 128 KB: too little."""
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_ROW * 2))


class _Endless(Exception):
    """A quote is open where the text ends, or where more was read than a row may have."""

    def __init__(self, *, is_too_long: bool) -> None:
        super().__init__()
        self.is_too_long = is_too_long


def _trouble(line: str) -> RowFault:
    if len(line) >= LONGEST_ROW:
        return RowFault.TOO_LONG
    if len(line) > LONGEST_CELL or "\0" in line:
        return RowFault.CHARACTERS
    try:
        line.encode()
    except UnicodeEncodeError:
        return RowFault.CHARACTERS
    return RowFault.NONE


class CsvReader:
    """A list in CSV: `columns` is known at once."""

    def __init__(self, stream: IO[bytes], reading: Reading, *, is_tsv: bool) -> None:
        """Raises `ListError` for a list without a header that can be used, or without rows."""
        self._reading = reading
        encoding = choose(stream, name=reading.name, wanted=reading.options.encoding, notices=reading.notices)
        text = open_text(stream, encoding, newline="")
        sample = _sample(text)
        delimiter, is_declared = _delimiter(sample, reading, default="\t" if is_tsv else ",")
        self._cells = CellReader(text, delimiter)
        rows = self._cells.rows()
        if is_declared:
            next(rows)
        line, header = self._header(rows)
        try:
            self._table = CellRows(
                header, reading, line=line, first=first_rows(sample, delimiter, after=line), delimiter=delimiter
            )
        except ListError as error:
            raise _with_better_header(error, reading, sample=sample, line=line, delimiter=delimiter) from None
        self._cells.width = len(header)
        self.columns = self._table.columns
        self._rows = rows
        self._recipients = reading.begun(self._people(), empty=HEADER_ONLY)

    def rows(self) -> Iterator[Recipient | BadRow]:
        """All recipients, once."""
        return self._recipients

    def blocks(self) -> Iterator[PlainRows | Recipient | BadRow]:
        """All recipients, once; rows that need no second look come in blocks."""
        yield from islice(self._recipients, 1)  # it was read to see that there is one
        table, clean, file = self._table, RowFault.NONE, self._reading.name
        if table.has_plain_rows:
            take = table.plain_row
            block: list[PlainRow] = []
            for line, cells, trouble in self._rows:
                if trouble is clean and (plain := take(line, cells)) is not None:
                    block.append(plain)
                    if len(block) < _BLOCK:
                        continue
                    row = None
                else:
                    row = self._row(line, cells, trouble)
                if block:
                    yield PlainRows(file, block)
                    block = []
                if row is not None:
                    yield row
            if block:
                yield PlainRows(file, block)
        yield from self._recipients  # the others, and the notices at the end

    def _header(self, rows: Iterator[tuple[int, list[str], RowFault]]) -> tuple[int, list[str]]:
        wanted = self._reading.options.header_row
        for line, cells, trouble in rows:
            if line < wanted:
                continue
            is_blank = not any(map(str.strip, cells))
            if wanted and (line > wanted or is_blank):
                found = "it is empty" if is_blank else f"the next row begins at line {line:,}"
                raise no_header_at(wanted, self._reading, unit="line", found=found)
            if is_blank:
                continue
            if trouble is RowFault.UNCLOSED:
                raise ListError(
                    f"{self._reading.place(line)}: the header has a double quote that is never closed",
                    hint='close it, or double it ("") where it is meant',
                )
            if trouble is RowFault.TOO_LONG:
                raise ListError(
                    f"{self._reading.place(line)}: the first line is longer than {LONGEST_ROW:,} characters, "
                    "expected the names of the columns"
                )
            if line == 1 and cells[0].lstrip().startswith(("{", "[{")):
                raise ListError(
                    f"{self._reading.place(line)}: this is JSON, expected the names of the columns",
                    hint="name the file .json, or .jsonl if each line is an object",
                )
            return line, cells
        if wanted:
            raise no_header_at(wanted, self._reading, unit="line", found=f"the list ends at line {self._cells.line:,}")
        raise EmptyList(f"{self._reading.name}: the list is empty", hint="its first line must name the columns")

    def _people(self) -> Iterator[Recipient | BadRow]:
        for line, cells, trouble in self._rows:
            row = self._row(line, cells, trouble)
            if row is not None:
                yield row
        self._table.notice_rows()
        if self._cells.escaped_rows:
            rows_said, first = count(self._cells.escaped_rows, "row"), self._cells.first_escaped
            self._reading.notices.append(
                f'{self._reading.name}: {rows_said} with \\" for a quote in a cell, as MySQL writes it, '
                f"the first at line {first:,}; read so"
            )

    def _row(self, line: int, cells: list[str], trouble: RowFault) -> Recipient | BadRow | None:
        if trouble is RowFault.NONE:
            return self._table.row(line, cells)
        if trouble is RowFault.CHARACTERS:
            return self._table.checked_row(line, cells)
        return self._troubled(line, cells, trouble)

    def _troubled(self, line: int, cells: list[str], trouble: RowFault) -> BadRow:
        if trouble is RowFault.UNCLOSED:
            reason = 'a double quote opens a cell and nothing closes it; double it ("") where it is meant'
            return self._table.bad(line, cells, reason)
        lines = f", up to line {self._cells.line:,}" if self._cells.line > line else ""
        row = self._table.checked_row(line, cells)
        if isinstance(row, BadRow) and any(len(cell) > LONGEST_CELL for cell in cells):
            return self._table.bad(line, cells, row.reason + lines)
        return self._table.bad(line, cells, f"the row is longer than {LONGEST_ROW:,} characters{lines}")


def _sample(text: TextIO) -> str:
    """The first rows, whole ones.  Leaves the text at its beginning."""
    sample = text.read(_SAMPLE)
    text.seek(0)
    if len(sample) == _SAMPLE:
        sample = sample[: sample.rfind("\n") + 1] or sample  # half a row would count as a ragged one
    return sample


def _with_better_header(error: ListError, reading: Reading, *, sample: str, line: int, delimiter: str) -> ListError:
    """The error of the header at `line`, its hint naming the line that looks like the real one, if there is one."""
    wanted = reading.options.address_column
    if reading.options.header_row:
        return error
    for each in (delimiter, *DELIMITERS):
        first = first_rows(sample, each, after=line - 1)
        if first and (found := header_below(first[0], first[1:], wanted=wanted)):
            return ListError(str(error), hint=say_header(*found, unit="line"))
    return error


def _delimiter(sample: str, reading: Reading, *, default: str) -> tuple[str, bool]:
    """What stands between the cells, and whether the first line only declares it."""
    declared = declared_delimiter(sample[: sample.find("\n") + 1])
    from_header = from_line(sample, reading.options.header_row) if reading.options.header_row else sample
    delimiter = declared or guess_delimiter(from_header, wanted=reading.options.address_column, default=default)
    if delimiter != default and not declared:
        reading.notices.append(f"{reading.name} was read with {SPOKEN[delimiter]} between its cells")
    return delimiter, bool(declared)
