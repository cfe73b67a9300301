"""The header of a table: the names of its columns, or why they cannot be."""

from __future__ import annotations

from collections.abc import Sequence

from bulkmail.model.address import parse_mailbox
from bulkmail.model.errors import AddressError, ListError
from bulkmail.model.recipient import Place
from bulkmail.recipients.columns import MOST_COLUMNS, listed
from bulkmail.recipients.fields import LONGEST_CELL, shown, text_fault
from bulkmail.recipients.reading import Reading

_MOST_NAMED = 20  # columns in an example


def column_names(cells: Sequence[str], reading: Reading, *, place: Place, unit: str, delimiter: str) -> list[str]:
    """The names without the space around them and without empty ones at the end.

    `unit` is what the rows are counted in, `delimiter` is empty for a sheet.  Raises `ListError` for a header that is
    none, or that leaves a column without a name of its own.
    """
    names = _trimmed(cells, reading, place=place)
    if reading.options.address_column not in names:
        between = {"": ", ", "\t": "<tab>"}.get(delimiter, delimiter)
        _refuse_addresses(names, place=place, between=between, unit=unit)
    _refuse_bad_names(names, place=place)
    return names


def _trimmed(header: Sequence[str], reading: Reading, *, place: Place) -> list[str]:
    names = [cell.strip().strip("\ufeff").strip() for cell in header]
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
    seen: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if not name:
            raise ListError(f"{place}: column {number} has no name", hint="name it in the header, or delete the column")
        fault = text_fault(name)
        if fault:
            raise ListError(f"{place}: the name of column {number} {fault}: {shown(name)}", hint=_hint(name))
        if name in seen:
            raise ListError(
                f"{place}: two columns are named {shown(name)}: columns {seen[name]} and {number}",
                hint="rename one of them in the header",
            )
        seen[name] = number


def _hint(name: str) -> str:
    if len(name) > LONGEST_CELL:
        return "this is hardly a header; its first line must name the columns"
    if "\0" in name:
        return "this looks like UTF-16; say --encoding utf-16-le, or save the list as UTF-8"
    return "name the list's encoding with --encoding"
