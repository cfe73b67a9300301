"""Which character stands between the cells of a table of text."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from bulkmail.model.lazy import lazy_pattern
from bulkmail.recipients.columns import has_address_column

DELIMITERS = (",", ";", "\t", "|")
_MOST_ROWS = 100
_ADDRESS = lazy_pattern(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_EXCEL_HINT = lazy_pattern(r'"?sep=([,;\t|])"?\r?\n?')

SPOKEN = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a vertical bar"}


def declared_delimiter(first_line: str) -> str:
    """The delimiter that a first line `sep=;` declares, as Excel writes and reads it; else ""."""
    found = _EXCEL_HINT.fullmatch(first_line)
    return found[1] if found else ""


def from_line(sample: str, line: int) -> str:
    """The sample from that line on, counted from 1."""
    return "".join(list(io.StringIO(sample, newline=""))[max(0, line - 1) :])


def first_rows(sample: str, delimiter: str, *, after: int = 0) -> list[tuple[int, list[str]]]:
    """The first rows below line `after` that have any content, each with the line it begins at."""
    rows: list[tuple[int, list[str]]] = []
    reader = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter)
    line = 1
    try:
        for row in reader:
            if line > after and any(map(str.strip, row)):
                rows.append((line, row))
            line = reader.line_num + 1
            if len(rows) > _MOST_ROWS:
                break
    except csv.Error:  # a giant cell; the rows before it are enough
        pass
    return rows


def guess_delimiter(sample: str, *, wanted: str, default: str) -> str:
    """The delimiter of a table that begins with `sample`; `default` for a table of one column.

    It must divide the header.  A header cell that names the address column (`wanted`, or by its usual names) is the
    best witness, since hardly a wrong delimiter leaves such a cell whole; then that the rows have as many cells as the
    header, then that their cells look like addresses, then the number of cells.
    """
    best, delimiter = (False, 0.0, 0.0, 0), default
    for candidate in DELIMITERS:
        rows = [row for _, row in first_rows(sample, candidate)]
        if rows and len(rows[0]) > 1 and (score := _score(rows, wanted)) > best:
            best, delimiter = score, candidate
    return delimiter


def _score(rows: Sequence[Sequence[str]], wanted: str) -> tuple[bool, float, float, int]:
    header, body = rows[0], rows[1:]
    even = sum(len(row) == len(header) for row in body) / len(body) if body else 1.0
    people = sum(any(_ADDRESS.fullmatch(cell.strip()) for cell in row) for row in body) / len(body) if body else 0.0
    return has_address_column([cell.strip() for cell in header], wanted), even, people, len(header)
