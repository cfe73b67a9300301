"""The header of a table: the names of its columns, or why they cannot be."""

from __future__ import annotations

import itertools
from collections.abc import Container, Sequence

from bulkmail.model.errors import AddressError, ListError
from bulkmail.model.recipient import Place, parse_mailbox
from bulkmail.recipients.columns import MOST_COLUMNS, listed
from bulkmail.recipients.fields import LONGEST_CELL, shown, text_fault, trimmed
from bulkmail.recipients.list_reading import Reading
from bulkmail.text import count

_MOST_NAMED = 20  # columns in an example


def column_names(
    cells: Sequence[str],
    reading: Reading,
    *,
    place: Place,
    unit: str,
    delimiter: str,
    rows: Sequence[Sequence[str]] = (),
) -> list[str]:
    """The names without the space around them and without empty ones at the end, each column with one of its own.

    A column without a name is `column3`, a second one named `Town` is `Town_2`, each with a notice; at the end only
    columns that most of the first `rows` have content in.  `unit` is what the rows are counted in, `delimiter` is empty
    for a sheet.  Raises `ListError` for a header that is none.
    """
    names = _trimmed(cells, reading, place=place)
    filled = [sum(at < len(row) and bool(row[at].strip()) for row in rows) for at in range(len(names), len(cells))]
    while filled and filled[-1] * 2 <= len(rows):
        filled.pop()
    names += [""] * len(filled)
    if reading.options.address_column not in names:
        between = {"": ", ", "\t": "<tab>"}.get(delimiter, delimiter)
        _refuse_addresses(names, place=place, between=between, unit=unit)
    _refuse_bad_names(names, place=place)
    return _distinct(names, reading, place=place)


def _trimmed(header: Sequence[str], reading: Reading, *, place: Place) -> list[str]:
    names = [trimmed(cell) for cell in header]
    while names and not names[-1]:
        names.pop()
    padded = [name for cell, name in zip(header, names, strict=False) if cell != name and name]
    if padded:
        reading.notices.append(f"{place}: spaces around the column names {listed(padded)} were taken off")
    return names


def _refuse_addresses(names: Sequence[str], *, place: Place, between: str, unit: str) -> None:
    """Raises `ListError` for a header that is no header: its cells hold an address."""
    for at, name in enumerate(names):
        try:
            parse_mailbox(name)
        except AddressError:
            continue
        example = ["email" if each == at else f"column{each + 1}" for each in range(min(len(names), _MOST_NAMED))]
        example += ["…"] * (len(names) > _MOST_NAMED)
        raise ListError(
            f"{place}: the first {unit} must name the columns, but it holds the address {shown(name)}",
            hint=f"put a {unit} above it that names the columns: {between.join(example)}",
        )


def _refuse_bad_names(names: Sequence[str], *, place: Place) -> None:
    if len(names) > MOST_COLUMNS:
        raise ListError(f"{place}: the header has {len(names):,} columns; the most is {MOST_COLUMNS:,}")
    for number, name in enumerate(names, 1):
        fault = text_fault(name)
        if fault:
            raise ListError(f"{place}: the name of column {number} {fault}: {shown(name)}", hint=_hint(name))


def _distinct(names: Sequence[str], reading: Reading, *, place: Place) -> list[str]:
    """The names with a new one for each column that has none, or that is named as one before it."""
    taken = set(names)
    seen: set[str] = set()
    distinct: list[str] = []
    for number, name in enumerate(names, 1):
        if name and name not in seen:
            seen.add(name)
            distinct.append(name)
            continue
        new = _free(name, taken) if name else f"column{number}"
        if new in taken and not name:
            new = _free(new, taken)
        taken.add(new)
        distinct.append(new)
        if name:
            reading.repeated.setdefault(name, []).append(new)
    unnamed = [new for new, name in zip(distinct, names, strict=True) if not name]
    if unnamed:
        reading.notices.append(f"{place}: {count(len(unnamed), 'column')} without a name: read as {listed(unnamed)}")
    for name, others in reading.repeated.items():
        reading.notices.append(
            f"{place}: {len(others) + 1} columns are named {shown(name)}: the first keeps the name, "
            f"{'the other is' if len(others) == 1 else 'the others are'} read as {listed(others)}"
        )
    return distinct


def _free(name: str, taken: Container[str]) -> str:
    """`Town_2`, or the next number that no column has."""
    return next(new for number in itertools.count(2) if (new := f"{name}_{number}") not in taken)


def _hint(name: str) -> str:
    if len(name) > LONGEST_CELL:
        return "this is hardly a header; its first line must name the columns"
    if "\0" in name:
        return "this looks like UTF-16; say --encoding utf-16-le, or save the list as UTF-8"
    return "name the list's encoding with --encoding"
