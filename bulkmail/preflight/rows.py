"""Rows of the list that nobody can be written to from."""

from __future__ import annotations

from dataclasses import dataclass, field

from bulkmail.model.recipient import BadRow
from bulkmail.model.units import count
from bulkmail.preflight.finding import Finding, Severity

SHOWN = 10  # rows named one by one


@dataclass(slots=True)
class RowCheck:
    """Remembers the first bad rows, and how many there were."""

    bad: int = 0
    _first: list[BadRow] = field(default_factory=list)

    def note(self, row: object) -> None:
        """Takes a look at a row as it is loaded."""
        if isinstance(row, BadRow):
            self.bad += 1
            if len(self._first) < SHOWN:
                self._first.append(row)

    def findings(self) -> list[Finding]:
        """The first bad rows one by one, the others as a number."""
        found = [
            Finding("bad-row", Severity.WARNING, f"nobody is written to: {row.reason}", where=str(row.place))
            for row in self._first
        ]
        if self.bad > len(self._first):
            more = count(self.bad - len(self._first), "more row")
            found.append(Finding("bad-row", Severity.WARNING, f"{more} cannot be used; the report names them all"))
        return found
