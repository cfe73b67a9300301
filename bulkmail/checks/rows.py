"""Rows of the list without a usable address."""

from __future__ import annotations

from dataclasses import field

from bulkmail.model.lazy_dataclass import dataclass
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
