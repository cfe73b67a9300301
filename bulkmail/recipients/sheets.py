"""Which list is a workbook, and which sheet of it is the list."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from bulkmail.model.errors import ListError
from bulkmail.recipients.columns import has_address_column, listed
from bulkmail.recipients.fields import shown
from bulkmail.recipients.hints import setting
from bulkmail.recipients.reading import Reading
from bulkmail.text import closest

SUFFIXES = (".xlsx", ".xlsm", ".ods")
MAGIC = b"PK\x03\x04"


def choose_sheet(visible: Sequence[str], names: Sequence[str], reading: Reading) -> str:
    """The sheet that was asked for, by its name or its number among the visible ones, or else the first visible one.

    A hidden sheet (it is in `names` alone) is taken only by its name.  Raises `ListError` if there is no such sheet.
    """
    wanted = reading.options.sheet
    if wanted != "":
        return _wanted(str(wanted), visible, names, reading)
    if not visible:
        raise ListError(
            f"{reading.name}: the workbook has no visible sheet",
            hint=f"name the one to read: {say_flag(names[0])}" if names else "",
        )
    if len(visible) > 1:
        reading.notices.append(
            f"{reading.name} has {len(visible)} sheets; only the first, {listed(visible[:1])}, was read; "
            "--sheet names another"
        )
    return visible[0]


def _wanted(wanted: str, visible: Sequence[str], names: Sequence[str], reading: Reading) -> str:
    if wanted in names:
        return wanted
    alike = [name for name in names if name.strip().casefold() == wanted.strip().casefold()]
    if len(alike) == 1:
        return alike[0]
    if wanted.isdecimal() and 0 < int(wanted) <= len(visible):
        return visible[int(wanted) - 1]
    near = closest(wanted, names)
    raise ListError(
        f"{reading.name}: there is no sheet {shown(wanted)}; found {listed(names)}",
        hint=f"did you mean {say_flag(near)}?" if near else "name one of these, or its number: --sheet 1",
    )


def say_flag(name: str) -> str:
    """The flag that names a sheet, as it is typed."""
    return f"--sheet {shlex.quote(name)}"


def say_sheet(name: str, header: Sequence[str] = (), wanted: str = "") -> str:
    """The hint that names the sheet to read, with the column of addresses that its `header` has."""
    found = next((cell.strip() for cell in header if has_address_column([cell.strip()], wanted)), "")
    what = f"the sheet {shown(name)} has a column {shown(found)}" if found else f"the sheet {shown(name)} has addresses"
    return f"{what}; add {say_flag(name)}, or {setting('sheet', name)} below [recipients]"
