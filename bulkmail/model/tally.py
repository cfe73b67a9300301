"""How many rows have come to what, and what the program's exit code says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.model.status import Status

MOST_INVALID = 0.1  # of the rows, unless the user says otherwise

EXIT_OK = 0
EXIT_SOME_FAILED = 1
EXIT_NOTHING_SENT = 2
EXIT_STOPPED = 3
EXIT_IN_DOUBT = 4
EXIT_BUG = 70


@dataclass(frozen=True, slots=True)
class Tally:
    """Rows by status.  `rows` are the input's: always the sum over all statuses, or something was lost.

    The status of a row is that of its own recipient.  `copies` are the deliveries to the other addresses of the rows
    (To, Cc, Bcc) by status; they are no rows and are not part of that sum.

    Where several rows share a message, `by_status` counts each message once, and `sharing` are the other rows, which
    have the status of their message: they are part of the sum.
    """

    rows: int
    by_status: Mapping[Status, int] = field(default_factory=dict)
    copies: Mapping[Status, int] = field(default_factory=dict)
    sharing: int = 0

    def __getitem__(self, status: Status) -> int:
        return self.by_status.get(status, 0)

    @property
    def adds_up(self) -> bool:
        """The invariant: every input row is in exactly one status."""
        return self.rows == sum(self.by_status.values()) + self.sharing

    @property
    def messages(self) -> int:
        """Rows, those that share a message counted once."""
        return self.rows - self.sharing

    @property
    def open(self) -> int:
        """Deliveries that sending goes on with: rows and copies."""
        return self.open_rows + sum(n for status, n in self.copies.items() if status.is_open)

    @property
    def open_rows(self) -> int:
        """Rows whose own recipient sending goes on with."""
        return sum(n for status, n in self.by_status.items() if status.is_open)

    def with_copies(self, status: Status) -> int:
        """Rows and copies in `status`."""
        return self[status] + self.copies.get(status, 0)

    @property
    def eligible(self) -> int:
        """Rows that were meant to get the message."""
        return sum(n for status, n in self.by_status.items() if status.is_eligible)

    @property
    def is_untouched(self) -> bool:
        """Whether sending has come to nothing yet: all rows and copies that are to be sent are pending."""
        copies = sum(n for status, n in self.copies.items() if status.is_eligible)
        return self[Status.PENDING] == self.eligible and self.copies.get(Status.PENDING, 0) == copies

    @property
    def exit_code(self) -> int:
        """3 some left · 4 some in doubt · 1 some refused, expired or invalid · 0 all that are eligible accepted.

        Copies count like rows: one that was refused is 1, one that is still open is 3.
        """
        if self.open or self.with_copies(Status.CANCELLED):
            return EXIT_STOPPED
        if self.with_copies(Status.IN_DOUBT):
            return EXIT_IN_DOUBT
        if any(self.with_copies(status) for status in (Status.REJECTED, Status.EXPIRED, Status.INVALID)):
            return EXIT_SOME_FAILED
        return EXIT_OK
