"""How many rows have come to what, and what the program's exit code says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bulkmail.model.delivery import Status

MOST_INVALID = 0.1  # of the rows, unless the user says otherwise

EXIT_OK = 0
EXIT_SOME_FAILED = 1
EXIT_NOTHING_SENT = 2
EXIT_STOPPED = 3
EXIT_IN_DOUBT = 4
EXIT_BUG = 70


@dataclass(frozen=True, slots=True)
class Tally:
    """Rows by status.  `rows` are the input's: always the sum over all statuses, or something was lost."""

    rows: int
    by_status: Mapping[Status, int] = field(default_factory=dict)

    def __getitem__(self, status: Status) -> int:
        return self.by_status.get(status, 0)

    @property
    def adds_up(self) -> bool:
        """The invariant: every input row is in exactly one status."""
        return self.rows == sum(self.by_status.values())

    @property
    def open(self) -> int:
        """Rows that sending goes on with."""
        return sum(n for status, n in self.by_status.items() if status.is_open)

    @property
    def eligible(self) -> int:
        """Rows that were meant to get the letter."""
        return sum(n for status, n in self.by_status.items() if status.is_eligible)

    @property
    def is_untouched(self) -> bool:
        """Whether sending has come to nothing yet: all rows that were meant to get the letter are pending."""
        return self[Status.PENDING] == self.eligible

    @property
    def exit_code(self) -> int:
        """3 rows left · 4 rows in doubt · 1 rows refused, expired or invalid · 0 every eligible row accepted."""
        if self.open or self[Status.CANCELLED]:
            return EXIT_STOPPED
        if self[Status.IN_DOUBT]:
            return EXIT_IN_DOUBT
        if self[Status.REJECTED] or self[Status.EXPIRED] or self[Status.INVALID]:
            return EXIT_SOME_FAILED
        return EXIT_OK
