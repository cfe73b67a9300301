"""What has become of rows: in one word, counted in one pass, and over all passes of a campaign."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import field
from enum import Enum
from hashlib import blake2b
from typing import NamedTuple

from bulkmail.model.lazy import dataclass

# -- What has become of a row, in one word.


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


# -- How many rows have come to what, and what the program's exit code says of it.


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


# -- A campaign as all its passes: which pass says what became of a recipient.


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


class RowSet(Set[int]):
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
        self._rows = [RowSet() for _ in passes]
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
