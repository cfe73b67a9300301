"""A campaign as all its passes: which pass says what became of a recipient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence, Set
from typing import NamedTuple

from bulkmail.model.status import Status
from bulkmail.model.tally import Tally

_FINAL = frozenset({Status.ACCEPTED, Status.IN_DOUBT, Status.REJECTED, Status.EXPIRED})


class RowStatus(NamedTuple):
    """One row of a pass: its number, what its recipient is known by, the status of its own delivery, of the copies."""

    row: int
    key: str
    status: Status
    copies: tuple[Status, ...] = ()


def stands(earlier: Status, later: Status) -> bool:
    """Whether what an earlier pass says of a recipient holds beside what the next one says.

    Accepted is accepted, and a recipient in doubt is not written to again.  What ended otherwise holds until another
    pass sends to them; what was never sent, or left out, does not.
    """
    if earlier in (Status.ACCEPTED, Status.IN_DOUBT):
        return later is not Status.ACCEPTED
    return earlier in _FINAL and not later.is_eligible


class Passes:
    """The passes of a campaign, oldest first, as one.

    A recipient is a key and the how-manieth row with it, so that each row of a list with duplicates is counted.  Rows
    of an earlier pass that no later one has count if they were sent to: an unusable row that was corrected since is
    not counted beside what it was corrected to.
    """

    def __init__(self, passes: Sequence[Iterable[RowStatus]]) -> None:
        """Goes through each pass once."""
        holder: dict[tuple[str, int], tuple[int, int, Status]] = {}
        copies: dict[tuple[int, int], tuple[Status, ...]] = {}
        for number, rows in enumerate(passes):
            seen: Counter[str] = Counter()
            for row, key, status, others in rows:
                who = key if key else f"{number}\0{row}"
                recipient = (who, seen[who])
                seen[who] += 1
                held = holder.get(recipient)
                if held is None or not stands(held[2], status):
                    holder[recipient] = (number, row, status)
                    if others:
                        copies[number, row] = others
        last = len(passes) - 1
        self._rows = [set[int]() for _ in passes]
        by_status: Counter[Status] = Counter()
        by_copies: Counter[Status] = Counter()
        for number, row, status in holder.values():
            if number == last or status in _FINAL:
                self._rows[number].add(row)
                by_status[status] += 1
                by_copies.update(copies.get((number, row), ()))
        self.tally = Tally(by_status.total(), by_status, by_copies)

    def rows_of(self, number: int) -> Set[int]:
        """The rows that pass `number`, from 0, speaks for."""
        return self._rows[number]
