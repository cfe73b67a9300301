"""What is noticed while rows are read: how many there are, and which repeat others."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import field

from bulkmail.model.lazy import dataclass
from bulkmail.model.recipient import BadRow

SHOWN = 10  # rows named one by one


@dataclass(slots=True)
class RowCheck:
    """Remembers the first bad rows, and how many there were."""

    bad: int = 0
    first: list[BadRow] = field(default_factory=list)
    file: str = ""

    def note(self, row: object) -> None:
        """Takes a look at a row as it is loaded."""
        if isinstance(row, BadRow):
            self.bad += 1
            if len(self.first) < SHOWN:
                self.first.append(row)


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
