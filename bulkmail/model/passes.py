"""A campaign as all its passes: which pass says what became of a recipient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from hashlib import blake2b
from typing import NamedTuple

from bulkmail.model.status import Status
from bulkmail.model.tally import Tally

_STATUS = tuple(Status)
_NUMBER = {status: number for number, status in enumerate(_STATUS)}
_STATUSES = len(_STATUS)
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


class Rows(Set[int]):
    """Numbers of rows, a bit for each."""

    def __init__(self) -> None:
        self._bits = bytearray()
        self._number = 0

    def add(self, row: int) -> None:
        """One that is not among them."""
        at = row >> 3
        if at >= len(self._bits):
            self._bits.extend(bytes(at + 1 - len(self._bits) + len(self._bits) // 8))
        self._bits[at] |= 1 << (row & 7)
        self._number += 1

    def __contains__(self, row: object) -> bool:
        if not isinstance(row, int):
            return False
        at = row >> 3
        return at < len(self._bits) and bool(self._bits[at] >> (row & 7) & 1)

    def __iter__(self) -> Iterator[int]:
        return (row for row in range(8 * len(self._bits)) if row in self)

    def __len__(self) -> int:
        return self._number


class Passes:
    """The passes of a campaign, oldest first, as one.

    A recipient is a key and the how-manieth row with it, so that each row of a list with duplicates is counted.  Rows
    of an earlier pass that no later one has count if they were sent to: an unusable row that was corrected since is
    not counted beside what it was corrected to.

    Of a recipient nothing is kept but two numbers: a digest of 64 bits, and the row that counts, packed.
    """

    def __init__(self, passes: Sequence[Iterable[RowStatus]]) -> None:
        """Goes through each pass once."""
        several = len(passes) + 1
        holder: dict[int, int] = {}  # by recipient: its row, the pass of that, the latest pass that has it, the status
        repeats: dict[tuple[int, int], int] = {}  # how many more rows a pass has with a key
        copies: dict[tuple[int, int], tuple[Status, ...]] = {}
        for number, rows in enumerate(passes):
            for row, key, status, others in rows:
                recipient = _digest(key or f"{number}\0{row}")
                held = holder.get(recipient)
                if held is not None and held // _STATUSES % several == number:
                    times = repeats[number, recipient] = repeats.get((number, recipient), 0) + 1
                    recipient = _digest(f"{key}\0{times}")
                    held = holder.get(recipient)
                if held is None or not stands(_STATUS[held % _STATUSES], status):
                    held = (row * several + number) * several * _STATUSES + _NUMBER[status]
                    if others:
                        copies[number, row] = others
                else:
                    held = held // (several * _STATUSES) * several * _STATUSES + held % _STATUSES
                holder[recipient] = held + number * _STATUSES
        last = len(passes) - 1
        self._rows = [Rows() for _ in passes]
        by_status: Counter[Status] = Counter()
        by_copies: Counter[Status] = Counter()
        for held in holder.values():
            status = _STATUS[held % _STATUSES]
            row, number = divmod(held // (several * _STATUSES), several)
            if number == last or status in _FINAL:
                self._rows[number].add(row)
                by_status[status] += 1
                by_copies.update(copies.get((number, row), ()))
        self.tally = Tally(by_status.total(), by_status, by_copies)

    def rows_of(self, number: int) -> Set[int]:
        """The rows that pass `number`, from 0, speaks for."""
        return self._rows[number]


def _digest(who: str) -> int:
    return int.from_bytes(blake2b(who.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
