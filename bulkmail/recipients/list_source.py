"""Opening a list, whatever it is in."""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Protocol

from bulkmail.model.errors import ListError
from bulkmail.model.recipient import BadRow, PlainRows, Recipient
from bulkmail.recipients.columns import has_address_column
from bulkmail.recipients.csv_reader import CsvReader
from bulkmail.recipients.fields import shown
from bulkmail.recipients.given import plain_row
from bulkmail.recipients.list_reading import ListOptions, Reading
from bulkmail.recipients.sheet_bounds import bounded
from bulkmail.recipients.sheets import MAGIC, SUFFIXES
from bulkmail.recipients.streams import OpenedList, list_errors, mark, open_bytes

__all__ = ["ListOptions", "RecipientList", "from_rows", "open_list"]

_SAMPLE_BYTES = 1 << 20
_OLD_EXCEL = b"\xd0\xcf\x11\xe0"
_TABLES = (".csv", ".tsv", ".txt")
_JSONS = (".json", ".jsonl", ".ndjson")


class Reader(Protocol):
    """What reads one format."""

    columns: list[str]

    def rows(self) -> Iterator[Recipient | BadRow]:
        """All recipients, once."""


class RecipientList:
    """A list that is open: iterate it once.  Memory stays flat however long it is, except for a workbook.

    `columns` of CSV and workbooks is known from the start; that of JSON grows in order of appearance.  `notices` are
    sentences on what was guessed, trimmed or left out; more may come while it is read.  `repeated` are the names that
    several columns have, each with what all but the first are called instead.
    """

    def __init__(self, opened: OpenedList, reading: Reading, reader: Reader) -> None:
        self.name = reading.name
        self.columns = reader.columns
        self.notices = reading.notices
        self.repeated = reading.repeated
        self.remarks = reading.remarks
        self._opened = opened
        self._reader = reader
        self._is_read = False

    def __iter__(self) -> Iterator[Recipient | BadRow]:
        """Each row in order.  Raises `ListError` where the list cannot be read on, after the rows before that."""
        self._begin()
        return self._rows()

    def blocks(self) -> Iterator[PlainRows | Recipient | BadRow]:
        """The same rows in the same order, but rows that need no second look may come many together."""
        self._begin()
        return self._blocks()

    def _begin(self) -> None:
        if self._is_read:
            raise RuntimeError(f"{self.name} was read already; open it again")
        self._is_read = True

    def _rows(self) -> Iterator[Recipient | BadRow]:
        with list_errors(self.name):
            yield from self._reader.rows()

    def _blocks(self) -> Iterator[PlainRows | Recipient | BadRow]:
        reader = self._reader
        with list_errors(self.name):
            yield from reader.blocks() if isinstance(reader, CsvReader) else reader.rows()

    def close(self) -> None:
        """Closes what it reads from."""
        self._opened.close()

    def __enter__(self) -> RecipientList:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open_list(source: str | os.PathLike[str], options: ListOptions = ListOptions()) -> RecipientList:  # noqa: B008
    """Opens a list: CSV, TSV, JSON, JSON lines (each also as .gz) or a workbook; `"-"` is standard input.

    Raises `ListError` for a list that cannot be used as a whole: no such file, no header, no address column, no rows.
    """
    opened = open_bytes(source)
    return read_list(opened, Reading(opened.name, options))


def read_list(opened: OpenedList, reading: Reading) -> RecipientList:
    """The same from bytes that are open already; they are closed if that fails."""
    try:
        with list_errors(reading.name):
            opened = bounded(opened, reading)
            return RecipientList(opened, reading, _reader(opened, reading))
    except BaseException:
        opened.close()
        raise


def from_rows(
    rows: Iterable[object],
    options: ListOptions = ListOptions(),  # noqa: B008
    *,
    name: str = "<rows>",
) -> Iterator[Recipient | BadRow]:
    """A program's own rows as a list; `name` and the row's number stand for file and line.

    A row is a mapping, or what has fields by name: a NamedTuple, a dataclass, a row of sqlite3 or SQLAlchemy, a
    pydantic model.  Values become what JSON has: a date ISO text, a tuple a list, NaN null.  Raises `ListError` if no
    field holds addresses.
    """
    return from_plain(map(plain_row, rows), options, name=name)


def from_plain(rows: Iterable[object], options: ListOptions, *, name: str) -> Iterator[Recipient | BadRow]:
    """The same from what `plain_row` made of each row."""
    from bulkmail.recipients.rows_from_objects import ObjectRows

    return ObjectRows(Reading(name, options)).rows(enumerate(rows, 1))


def _reader(opened: OpenedList, reading: Reading) -> Reader:
    sample = opened.stream.read(_SAMPLE_BYTES)
    opened.stream.seek(0)
    read = _sheet if sample.startswith(MAGIC) else FORMATS.get(opened.suffix)
    if read is not None:
        return read(opened, reading)
    if reading.options.sheet != "":
        raise ListError(
            f"{reading.name} is not a workbook, so it has no sheet {shown(str(reading.options.sheet))}",
            hint="leave out --sheet (sheet below [recipients])",
        )
    if sample.startswith(_OLD_EXCEL):
        raise ListError(
            f"{reading.name} is in the format of Excel 97–2003", hint="open it in Excel, save it as .xlsx or CSV"
        )
    if opened.suffix not in _TABLES:
        text = _readable(sample, mark(opened.stream))
        is_json = opened.suffix in _JSONS or text.startswith(("[", "{"))
        if is_json and reading.options.header_row:
            raise ListError(
                f"{reading.name} is JSON, which has no row that names the columns",
                hint="leave out --header-row (header_row below [recipients])",
            )
        if is_json:
            from bulkmail.recipients.json_reader import JsonLinesReader, JsonReader
        if text.startswith("[") or (opened.suffix == ".json" and not _is_lines(text, reading)):
            return JsonReader(opened.stream, reading)
        if is_json:
            is_lines = opened.suffix in _JSONS or _is_lines(text, reading)
            return (JsonLinesReader if is_lines else JsonReader)(opened.stream, reading)
    return CsvReader(opened.stream, reading, is_tsv=opened.suffix == ".tsv")


def _sheet(opened: OpenedList, reading: Reading) -> Reader:
    from bulkmail.recipients.xlsx import SheetReader  # late, as all but CSV: a run reads one format

    return SheetReader(opened, reading)


FORMATS: dict[str, Callable[[OpenedList, Reading], Reader]] = dict.fromkeys(SUFFIXES, _sheet)
"""Formats that only the name of a file tells, by its suffix; a new one is a module with a reader and a line here."""


def _readable(sample: bytes, marked: str) -> str:
    """Good enough to know a bracket by, whatever the encoding."""
    text = codecs.getincrementaldecoder(marked or "utf-8")("replace").decode(sample)
    return text.replace("\0", "").lstrip()


def _is_lines(text: str, reading: Reading) -> bool:
    """Whether JSON that begins with a brace is one object a line rather than one object for all."""
    first, _, rest = text.partition("\n")
    first = first.rstrip()
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        # Half a line, if the next one is an object again; but so goes the first line of an object of objects too.
        return rest.lstrip("\r\n").startswith("{") and len(first) > 1 and not first.endswith("[")
    from bulkmail.recipients.json_reader import KEY

    if not isinstance(value, dict) or isinstance(value.get(KEY), list):
        return False
    return bool(rest.strip()) or has_address_column(list(value), reading.options.address_column)
