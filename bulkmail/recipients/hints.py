"""What would work instead: the column that holds addresses, the row that names the columns."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping, Sequence

from bulkmail.model.errors import AddressError, ListError
from bulkmail.model.recipient import parse_mailbox
from bulkmail.recipients.columns import has_address_column, listed
from bulkmail.recipients.fields import shown
from bulkmail.recipients.list_reading import Reading

LOOKED_AT = 100  # rows below the header
_MOST_TITLES = 20  # rows above the header
_NEARLY_ALL = 0.9
_MOST_FIELDS = 1_000
_DEEPEST_FIELD = 3

Row = tuple[int, Sequence[str]]
"""The line or row that it begins at, and its cells."""


def is_mailbox(cell: object) -> bool:
    """Whether the cell is an address, with or without a name."""
    if not isinstance(cell, str) or "@" not in cell:
        return False
    try:
        parse_mailbox(cell)
    except AddressError:
        return False
    return True


def address_columns(columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> list[str]:
    """The columns most of whose cells are addresses, the one with the most of them first."""
    found: dict[str, int] = {}
    for column in columns:
        cells = [cell for row in rows if (cell := row.get(column)) not in (None, "")]
        addresses = sum(map(is_mailbox, cells))
        if addresses and addresses * 2 >= len(cells):
            found[column] = addresses
    return sorted(found, key=lambda column: -found[column])


def any_address(record: Mapping[str, object]) -> bool:
    """Whether any field of an object is an address, also within objects in it."""
    return any(map(is_mailbox, flat(record).values()))


def flat(record: Mapping[str, object], *, above: str = "", depth: int = 0) -> dict[str, object]:
    """The fields of an object, and those of the objects and lists in it by their paths: `contact.email`, `emails.0`."""
    found: dict[str, object] = {}
    for key, value in itertools.islice(record.items(), _MOST_FIELDS):
        path = f"{above}{key}"
        found[path] = value
        if depth < _DEEPEST_FIELD and isinstance(value, list) and value:
            value = {"0": value[0]}
        if depth < _DEEPEST_FIELD and isinstance(value, dict):
            found |= flat(value, above=f"{path}.", depth=depth + 1)
    return found


def by_column(columns: Sequence[str], rows: Sequence[Row]) -> list[dict[str, object]]:
    """The rows of a table as mappings, to look for `address_columns` in."""
    return [
        {column: cell.strip() for column, cell in zip(columns, cells, strict=False)} for _, cells in rows[:LOOKED_AT]
    ]


def say_column(found: Sequence[str], reading: Reading) -> str:
    """The hint that names the column to take; empty when there is none to name."""
    if not found:
        return ""
    holding = f"{listed(found)} {'holds' if len(found) == 1 else 'hold'} addresses"
    if reading.is_suppression:
        return f'{holding}; rename that column to "email"'
    return (
        f"{holding}; add --address-column {shlex.quote(found[0])}, "
        f"or {setting('address_column', found[0])} below [recipients]"
    )


def check_addresses(
    column: str, columns: Sequence[str], rows: Sequence[Mapping[str, object]], reading: Reading
) -> None:
    """Raises `ListError` if nearly no cell of `column` is an address while those of another column are."""
    wrong = [row for row in rows if not is_mailbox(row.get(column))]
    if not rows or len(wrong) < len(rows) * _NEARLY_ALL:
        return
    others = [each for each in address_columns(columns, rows) if each != column]
    if not others:
        return
    example = next((cell for row in wrong if isinstance(cell := row.get(column), str) and cell), "")
    says = f"for example {shown(example)}" if example else "its cells are empty"
    raise ListError(
        f"{reading.name}: the column {shown(column)} holds no addresses: {says}", hint=say_column(others, reading)
    )


def header_below(header: Row, rows: Sequence[Row], *, wanted: str) -> tuple[int, str] | None:
    """The line of the row below `header` that looks like the real one, and the unusual column of addresses in it."""
    if has_address_column(_names(header), wanted):
        return None
    for line, cells in rows[:_MOST_TITLES]:
        if has_address_column(_names((line, cells)), wanted):
            return line, ""
    for number, (line, cells) in enumerate(rows[:_MOST_TITLES]):
        names = _names((line, cells))
        if sum(map(bool, names)) <= sum(map(bool, _names(header))) or any(map(is_mailbox, names)):
            continue
        named = [name for name in names if name]
        found = address_columns(named, by_column(names, rows[number + 1 :]))
        if found:
            return line, found[0]
    return None


def say_header(line: int, column: str, *, unit: str) -> str:
    """The hint that names the row to take for the header."""
    also = f" --address-column {shlex.quote(column)}" if column else ""
    settings = f"header_row = {line}" + (f" and {setting('address_column', column)}" if column else "")
    return f"{unit} {line} looks like the header; add --header-row {line}{also}, or {settings} below [recipients]"


def no_header_at(line: int, reading: Reading, *, unit: str, found: str) -> ListError:
    """The error for a header that is not where it was said to be."""
    return ListError(
        f"{reading.place(line)}: {unit} {line:,} should name the columns, but {found}",
        hint=f"name the {unit} of the header: --header-row N, or header_row below [recipients]",
    )


def setting(key: str, value: str) -> str:
    """A setting as campaign.toml has it."""
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{key} = "{quoted}"'


def _names(row: Row) -> list[str]:
    return [cell.strip().strip("\ufeff").strip() for cell in row[1]]
