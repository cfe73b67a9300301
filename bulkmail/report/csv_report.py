"""The report as a table: the input row by row and column by column, and what became of each.

A spreadsheet takes a cell that begins with `=`, `+`, `-` or `@` for a formula, and a hostile one may run programs
(CWE-1236).  Such a cell gets a `'` in front, in the header too.  Plain numbers and telephone numbers stay as they are
(`-3.5`, `+43 (1) 234-56`) and plain mail addresses (`+ann@example.com`): there is no harm in them, and who takes an
address out of the report should not write to a different one.  An address that begins with `=` is a formula.  Where a
spreadsheet that separates by `;` would split a cell, and a part of it would be a formula, that part gets a `'` too.  A
report that is fed back as a list loses its guards.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any, BinaryIO

from bulkmail.model.errors import BulkmailError
from bulkmail.model.feedback_event import CameBack
from bulkmail.model.lazy import lazy_pattern
from bulkmail.model.recipient import Place
from bulkmail.model.tally import Status
from bulkmail.outbox.entries import AcceptedRow, RowRecord
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.recipients.columns import DELIVERY_COLUMNS, FORMULA_STARTS, guarded_inside
from bulkmail.report.report_files import replacing
from bulkmail.report.row_words import as_json, copy_object, iso, trouble
from bulkmail.report.run_source import Source
from bulkmail.text import count

_HARMLESS = lazy_pattern(r"[+-]?[0-9 ().-]+|[+-]?[A-Za-z0-9._+-]+@[A-Za-z0-9.-]+")
_OWN = ("address", "name")
_ACCEPTED = Status.ACCEPTED.value
_BUFFER = 65_536  # characters
_MOST_COLUMNS = 2_000  # a list of objects may have another field in every row


def write_csv(source: OutboxReader | Source, target: Path | BinaryIO) -> None:
    """Writes the table: UTF-8, commas, CRLF, RFC 4180.  Memory stays flat.

    The columns are those of the list; of several lists or none, `address`, `name` and every field there is.  Columns
    that an earlier report added are replaced.  Times are ISO 8601 in UTC.  What is not text is written as JSON, and so
    are the copies of a row, as in the JSON report.  `delivery_feedback` is what came back about the row's own recipient
    (hard, soft, blocked, spam_complaint, unsubscribe, …), `delivery_pass` the pass of the campaign that it is from.
    NUL, which no table may hold, becomes U+FFFD.  Raises `BulkmailError` when the file cannot be written, or when the
    rows are not those that the outbox counts: then there is no new file.
    """
    if not isinstance(source, Source):
        source = Source.of(source)
    run = source.run
    table = _Table(run.columns or _OWN, is_rehearsal=run.is_rehearsal, number=run.number, has_own=not run.columns)
    with replacing(target) as file:
        try:
            _write(file, source, _with_all_fields(table, source) if table.has_own else table)
        except _UnknownField:
            file.seek(0)
            file.truncate()
            _write(file, source, _with_all_fields(table, source))


class _UnknownField(Exception):
    """A row has a field that is in no column."""


class _Table:
    """The columns of the input.  With `has_own` the first two are ours, for rows that have no such field."""

    def __init__(self, columns: Iterable[str], *, is_rehearsal: bool, number: int, has_own: bool = False) -> None:
        self.columns = [column for column in columns if column not in DELIVERY_COLUMNS]
        self.has_own = has_own
        self.is_rehearsal = is_rehearsal
        self.number = number
        self._known = frozenset((*self.columns, *DELIVERY_COLUMNS))
        self._end = f",,,{'yes' if is_rehearsal else 'no'},,,,{number}\r\n"

    def plain_line(self, row: AcceptedRow, fields: Mapping[str, object]) -> str:
        """What `cells` of the row come to as text; "" unless each of them is a text that stands there as it is."""
        _, _, _, _, code, enhanced, reply, tries, relay, message_id, first_at, last_at = row
        values: list[Any] = [*map(fields.get, self.columns), reply]
        try:
            text = f"{''.join(values)}{enhanced}{relay}{message_id}"
        except TypeError:  # a cell that is no text, or that this row does not have
            return ""
        if '"' in text or "," in text or ";" in text or "\r" in text or "\n" in text:
            return ""
        if not FORMULA_STARTS.isdisjoint([value[:1] for value in values]) or not fields.keys() <= self._known:
            return ""
        del values[-1]
        times = f"{iso(first_at)},{iso(last_at)}"
        return (
            f"{','.join(values)},{_ACCEPTED},{code},{enhanced},{reply},{tries},{relay},{message_id},{times}{self._end}"
        )

    def cells(self, record: RowRecord) -> list[object]:
        """One line.  Raises `_UnknownField`."""
        fields = record.fields
        if not fields.keys() <= self._known:
            raise _UnknownField
        values = list(map(fields.get, self.columns))
        if self.has_own:
            values[:2] = fields.get("address", record.address), fields.get("name", record.name)
        values += record.reply, trouble(record)
        # Nearly every cell is harmless text, and a look costs less than a call.
        *cells, reply, error = [
            value if isinstance(value, str) and value[:1] not in FORMULA_STARTS else _cell(value) for value in values
        ]
        line: list[object] = [
            *cells,
            record.status.value,
            record.code,
            record.enhanced,
            reply,
            record.attempts,
            record.relay,
            record.message_id,
            iso(record.first_at),
            iso(record.last_at),
            error,
            as_json([copy_object(copy) for copy in record.copies]).decode() if record.copies else "",
            "yes" if self.is_rehearsal else "no",
            *((came.kind.value, iso(came.at), _cell(came.reason)) if (came := record.came_back) else ("", "", "")),
            record.run_number or self.number,
        ]
        return [guarded_inside(cell) if isinstance(cell, str) and ";" in cell else cell for cell in line]


def _with_all_fields(table: _Table, source: Source) -> _Table:
    """The table with every other field there is, in order of appearance."""
    columns = dict.fromkeys(table.columns)
    for record in source.rows():
        columns.update(dict.fromkeys(record.fields))
        if len(columns) > _MOST_COLUMNS:
            raise BulkmailError(
                f"the list has over {count(_MOST_COLUMNS, 'different field')}: too many for a table",
                hint="write the report as JSON: bulkmail report … --format json",
            )
    return _Table(columns, is_rehearsal=table.is_rehearsal, number=table.number, has_own=table.has_own)


def _write(file: BinaryIO, source: Source, table: _Table) -> None:
    lines = StringIO(newline="")
    writer = csv.writer(lines)  # with its CRLF, or it would not quote a cell that has a lone CR
    writer.writerow([guarded_inside(_cell(column)) for column in (*table.columns, *DELIVERY_COLUMNS)])
    for batch in (source.rows(),) if table.has_own else source.batches():
        for row in batch:
            if isinstance(row, RowRecord):
                writer.writerow(table.cells(row))
            else:
                fields = source.fields_of(row)
                came_back = source.came_back(row)
                if came_back is None and (line := table.plain_line(row, fields)):
                    lines.write(line)
                else:
                    writer.writerow(table.cells(_record_of(row, fields, came_back)))
            if lines.tell() > _BUFFER:
                _flush(lines, file)
    _flush(lines, file)


def _record_of(row: AcceptedRow, fields: Mapping[str, object], came_back: CameBack | None) -> RowRecord:
    """The record of an accepted row, as far as a table without columns of ours needs it."""
    _, number, _, _, code, enhanced, reply, tries, relay, message_id, first_at, last_at = row
    return RowRecord(
        row=number,
        place=Place("", 0),
        address="",
        name="",
        fields=fields,
        status=Status.ACCEPTED,
        code=code,
        enhanced=enhanced,
        reply=reply,
        reason="",
        attempts=tries,
        relay=relay,
        message_id=message_id,
        first_at=first_at,
        last_at=last_at,
        error="",
        came_back=came_back,
    )


def _flush(lines: StringIO, file: BinaryIO) -> None:
    file.write(lines.getvalue().replace("\0", "\ufffd").encode("utf-8", "replace"))
    lines.seek(0)
    lines.truncate()


def _cell(value: object) -> str:
    """A value as the text of a cell that no spreadsheet will run."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else as_json(value).decode()
    return f"'{text}" if text[:1] in FORMULA_STARTS and not _HARMLESS.fullmatch(text) else text
