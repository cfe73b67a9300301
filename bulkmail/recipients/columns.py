"""The columns of a list: which holds the address, which the name, and which a header may not have."""

from __future__ import annotations

from collections.abc import Sequence

from bulkmail.model.errors import ListError
from bulkmail.model.lazy import lazy_pattern
from bulkmail.model.recipient import Place
from bulkmail.text import did_you_mean, printable

MOST_COLUMNS = 10_000

DELIVERY_COLUMNS = (
    "delivery_status",
    "delivery_code",
    "delivery_enhanced_code",
    "delivery_reply",
    "delivery_attempts",
    "delivery_relay",
    "delivery_message_id",
    "delivery_first_at",
    "delivery_last_at",
    "delivery_error",
    "delivery_copies",
    "delivery_rehearsal",
    "delivery_feedback",
    "delivery_feedback_at",
    "delivery_feedback_reason",
    "delivery_pass",
)
"""What a report adds to its list.  One that is fed back as a list loses them, or the next would have them twice."""

FORMULA_STARTS = frozenset("=+-@\t\r\n\0\uff0b\uff0d\uff1d\uff20")
"""A report puts a `'` before a cell that begins so, because a spreadsheet would take it for a formula (CWE-1236)."""

# A spreadsheet that takes `;` for the separator, as many in Europe do, splits a cell of a file with commas there.  A
# number that then stands alone does no harm; a call or a DDE link does.
_FORMULA = r"[=@\uff1d\uff20]|[+\-\uff0b\uff0d](?![0-9 ().-]*(?:[;,]|\Z))(?=[^;]*[(|!])"
_SPLIT = lazy_pattern(rf"""; *"* *(?='*(?:{_FORMULA}))""")
_GUARDED = lazy_pattern(rf"""(; *"* *)'(?='*(?:{_FORMULA}))""")

# Compared without case, spaces, hyphens and underscores; the first that is there is taken.
_ADDRESS_NAMES = ("email", "emailaddress", "mail", "mailaddress", "address")
_NAME_NAMES = ("name", "fullname", "displayname")
_PLAIN = str.maketrans("", "", " -_")

_SAY_ADDRESS = "say which one it is: --address-column NAME, or address_column in campaign.toml"
_SAY_NAME = "say which one it is with name_column in campaign.toml, or leave it out"


def address_column(columns: Sequence[str], wanted: str, *, place: Place, hint: str = "") -> str:
    """The column that holds the addresses: the `wanted` one or, if that is empty, the one that is named so.

    Raises `ListError` with `hint`, if there is one, if there is none, or if there are two equally good ones.
    """
    hint = hint or _SAY_ADDRESS
    if wanted:
        return _named(columns, wanted, place=place, hint=hint)
    found = _best(columns, _ADDRESS_NAMES)
    if not found:
        raise ListError(f"{place}: no column is named email, mail or address; found {listed(columns)}", hint=hint)
    if len(found) > 1:
        raise ListError(f"{place}: the address may be in the columns {listed(found)}", hint=hint)
    return found[0]


def has_address_column(columns: Sequence[str], wanted: str) -> bool:
    """Whether `address_column` finds at least one."""
    return wanted in columns if wanted else bool(_best(columns, _ADDRESS_NAMES))


def name_column(columns: Sequence[str], wanted: str | None, *, place: Place) -> str:
    """The column that holds the display names: the `wanted` one, or the one that is named so, or ""."""
    if wanted is None:
        return ""
    if wanted:
        return _named(columns, wanted, place=place, hint=_SAY_NAME)
    found = _best(columns, _NAME_NAMES)
    return found[0] if len(found) == 1 else ""


def own_columns(columns: Sequence[str]) -> frozenset[str]:
    """The columns that hold address or display name by what they are called."""
    return frozenset([*_best(columns, _ADDRESS_NAMES), *_best(columns, _NAME_NAMES)])


def is_report(header: Sequence[str]) -> bool:
    """Whether this is the header of a report of ours rather than of a list that has its own `delivery_status`."""
    return "delivery_status" in header and "delivery_message_id" in header


def guarded_inside(cell: str) -> str:
    """The cell with a `'` before what would be a formula if the cell were split: see `_SPLIT`."""
    return _SPLIT.sub(r"\g<0>'", cell)


def unguarded(cell: str) -> str:
    """The cell of a report as it was in the list."""
    if "'" not in cell:
        return cell
    bare = cell[1:] if cell[:1] == "'" and cell[1:2] in FORMULA_STARTS else cell
    return _GUARDED.sub(r"\1", bare)


def listed(columns: Sequence[str], most: int = 20) -> str:
    """The columns by name for a message: `'name', 'town' and 3 more`."""
    shown = [f"'{printable(column, 40)}'" for column in columns[:most]]
    if len(columns) > most:
        return f"{', '.join(shown)} and {len(columns) - most:,} more"
    if len(shown) > 1:
        return f"{', '.join(shown[:-1])} and {shown[-1]}"
    return "".join(shown) or "none"


def _best(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    plain = [(column.casefold().translate(_PLAIN), column) for column in columns]
    for name in names:
        found = [column for each, column in plain if each == name]
        if found:
            return found
    return []


def _named(columns: Sequence[str], wanted: str, *, place: Place, hint: str) -> str:
    if wanted in columns:
        return wanted
    alike = [column for column in columns if column.casefold() == wanted.strip().casefold()]
    if len(alike) == 1:
        return alike[0]
    raise ListError(
        f"{place}: there is no column '{printable(wanted, 40)}'; found {listed(columns)}",
        hint=did_you_mean(wanted, columns, quote="'") or hint,
    )
