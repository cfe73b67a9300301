"""Rows that are left out because their address stood above, and that say something else than the one that is sent."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import field

from bulkmail.model.lazy_dataclass import dataclass

SHOWN = 10  # addresses named one by one
_MOST_LINES = 5  # of one address

Row = tuple[int, Mapping[str, object]]
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Repeat:
    """One address: the line that is sent, the first of the `count` others that differ from it, and where they do."""

    address: str
    kept: int
    left_out: list[int]
    count: int
    columns: list[str]


@dataclass(slots=True)
class Repeats:
    """`rows` that differ from the first one of their address, of `addresses` addresses; the first of these in full."""

    first: list[Repeat] = field(default_factory=list)
    addresses: int = 0
    rows: int = 0

    def look(self, repeats: Iterable[tuple[str, list[Row]]], used: Collection[str] | None) -> None:
        """Compares the rows of each address in the fields that are `used`; None stands for all."""
        for address, rows in repeats:
            kept, first = rows[0]
            names = list(first) if used is None else [name for name in first if name in used]
            columns: dict[str, None] = {}
            lines: list[int] = []
            for line, fields in rows[1:]:
                differing = [name for name in names if _differs(first[name], fields.get(name, _MISSING))]
                if differing:
                    columns.update(dict.fromkeys(differing))
                    lines.append(line)
            if lines:
                self.addresses += 1
                self.rows += len(lines)
                if len(self.first) < SHOWN:
                    self.first.append(Repeat(address, kept, lines[:_MOST_LINES], len(lines), list(columns)))


def _differs(one: object, other: object) -> bool:
    """Whether two values are read as different; the case of an address is not."""
    if isinstance(one, str) and isinstance(other, str) and "@" in one:
        return one.casefold() != other.casefold()
    return one != other
