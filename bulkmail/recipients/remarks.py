"""What is to be said of a list that its rows do not show, kept for the checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from bulkmail.model.lazy import dataclass

_MOST_LINES = 5
_MOST_COLUMNS = 1_000


@dataclass(slots=True)
class SeenLines:
    """The lines that something is true of: the first few, and how many; `example` is what is found in the first."""

    example: str
    count: int = 0
    first: list[int] = field(default_factory=list)


Columns = dict[int, SeenLines]
"""By the number of the column, from 0."""


@dataclass(slots=True)
class Remarks:
    """What a sheet shows otherwise than its rows say.  `hidden` are rows that it hides, the others are cells.

    `formats` are cells in a format that cannot be followed, `inexact` numbers with more digits than a sheet keeps,
    `blank` formulas without a result.  `names` are those of the columns.
    """

    hidden: set[int] = field(default_factory=set)
    formats: Columns = field(default_factory=dict)
    inexact: Columns = field(default_factory=dict)
    blank: Columns = field(default_factory=dict)
    names: Sequence[str] = ()

    def add(self, found: Columns, column: int, line: int, example: str) -> None:
        """One more line for a column."""
        if column in found or len(found) < _MOST_COLUMNS:
            lines = found.setdefault(column, SeenLines(example))
            lines.count += 1
            if len(lines.first) < _MOST_LINES:
                lines.first.append(line)

    def name(self, column: int) -> str:
        """What the header calls a column, or its number where it has no name."""
        return (self.names[column] if column < len(self.names) else "") or f"column{column + 1}"
