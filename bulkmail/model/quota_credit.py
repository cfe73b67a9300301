"""What is left of a reservation: recipients that may still be written to without asking the ledger."""

from __future__ import annotations


class QuotaCredit:
    """The recipients of one reservation after another, spent one message at a time.

    Times are those of the clock that set `until`.  It never gives out more than was put in, nor any after `until`.
    """

    __slots__ = ("_left", "_until", "used")

    def __init__(self) -> None:
        self._left = 0
        self._until = 0.0
        self.used = 0

    def fill(self, count: int, *, until: float) -> None:
        """The recipients of a new reservation; what was left of the one before is lost, so settle that first."""
        self._left, self._until, self.used = count, until, 0

    def holds(self, count: int, now: float) -> bool:
        """Whether `count` recipients could be spent at `now`."""
        return count <= self._left and now < self._until

    def take(self, count: int, now: float) -> bool:
        """Spends `count` recipients; False, and nothing is spent, when there are not enough, or it is too late."""
        if not self.holds(count, now):
            return False
        self._left -= count
        self.used += count
        return True

    def give_back(self, count: int) -> None:
        """`count` recipients of messages that were not attempted after all.

        Those of an earlier reservation were settled as used, and stay so.
        """
        count = min(count, self.used)
        self._left += count
        self.used -= count
