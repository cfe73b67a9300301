"""What has become of a row, in one word."""

from __future__ import annotations

from enum import Enum


class Status(Enum):
    """What has become of a row.  The values are the words in reports and on the command line."""

    PENDING = "pending"
    DEFERRED = "deferred"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    EXPIRED = "expired"
    IN_DOUBT = "in_doubt"
    INVALID = "invalid"
    DUPLICATE = "duplicate"
    SUPPRESSED = "suppressed"
    FILTERED = "filtered"
    CANCELLED = "cancelled"

    @property
    def is_open(self) -> bool:
        """Whether sending goes on with it by itself."""
        return self in (Status.PENDING, Status.DEFERRED)

    @property
    def is_eligible(self) -> bool:
        """Whether the row was meant to get the message at all."""
        return self not in (Status.INVALID, Status.DUPLICATE, Status.SUPPRESSED, Status.FILTERED)
