"""The reading of an outbox: what a person, or a program in one line, wants to know of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from bulkmail.model.delivery import Status
from bulkmail.model.recipient import Place
from bulkmail.model.tally import Tally
from bulkmail.outbox.entries import RowRecord
from bulkmail.outbox.reader import OutboxReader
from bulkmail.report.rows import Reasons, words
from bulkmail.report.source import Run, Source

MOST_NAMED = 1_000  # rows in doubt that a report names; the CSV and JSON reports have all of them
MOST_SHOWN = 20  # rows of each other status that need attention

# In the order in which a person should look at them.
_ATTENTION = (Status.IN_DOUBT, Status.REJECTED, Status.EXPIRED, Status.INVALID, Status.DEFERRED)
_REFUSED = frozenset({Status.REJECTED, Status.EXPIRED})


@dataclass(frozen=True, slots=True)
class Trouble:
    """A row that needs a person's attention.  `words` are the server's, or ours if no server was asked."""

    place: Place
    address: str
    status: Status
    words: str


@dataclass(frozen=True, slots=True)
class Report:
    """A reading at one moment; later changes of the outbox are in the next reading.

    `refused` has `(address, code, reply)` of each row that was rejected or has expired, in input order; the code is 0
    and the reply in our words where no server was asked.  `invalid` has `(place, reason)` of each row that nothing
    could be sent for; `str(place)` is `"people.csv:3"`.  `in_doubt` names the first thousand such rows, `attention` the
    first few of each kind that a person should look at, the gravest kind first.  `reasons_of` counts why,
    `accepted_by_relay` what each relay took.
    """

    run: Run
    tally: Tally
    refused: list[tuple[str, int, str]]
    in_doubt: tuple[Trouble, ...]
    attention: tuple[Trouble, ...]
    reasons_of: Mapping[Status, Counter[str]]
    accepted_by_relay: Mapping[str, int] = field(default_factory=dict)
    invalid: list[tuple[Place, str]] = field(default_factory=list)
    _kept: tuple[RowRecord, ...] = field(default=(), repr=False)  # of an outbox in memory, which will be gone

    @classmethod
    def read(cls, outbox: Path | str | OutboxReader) -> Report:
        """Reads an outbox, also while somebody sends from it.

        Given a reader, which is how one in memory is read, the report keeps the rows, since it cannot open it again.
        Raises `OutboxError` when it cannot be read, `BulkmailError` when its rows are not those that it counts.
        """
        if isinstance(outbox, Path | str):
            path = Path(outbox)
            with OutboxReader.open(path) as reader:
                return cls.of(Source.of(reader, path))
        return cls.of(Source.of(outbox))

    @classmethod
    def of(cls, source: Source) -> Report:
        """Goes through all rows once.  Raises `BulkmailError` when they are not those that the tally counts."""
        reasons = Reasons()
        refused: list[tuple[str, int, str]] = []
        invalid: list[tuple[Place, str]] = []
        troubles: dict[Status, list[Trouble]] = {status: [] for status in _ATTENTION}
        most = dict.fromkeys(_ATTENTION, MOST_SHOWN) | {Status.IN_DOUBT: MOST_NAMED}
        kept: list[RowRecord] = []
        through: Counter[str] = Counter()
        for record in source.rows():
            if source.run.path is None:
                kept.append(record)
            status = record.status
            if status is Status.ACCEPTED:
                through[record.relay] += 1
                continue
            reasons.add(record)
            if status in troubles and len(troubles[status]) < most[status]:
                troubles[status].append(Trouble(record.place, record.address, status, words(record)))
            if status is Status.INVALID:
                invalid.append((record.place, words(record)))
            if status in _REFUSED:
                refused.append((record.address, record.code or 0, record.reply or record.error or record.reason))
        return cls(
            run=source.run,
            tally=source.tally,
            refused=refused,
            invalid=invalid,
            in_doubt=tuple(troubles[Status.IN_DOUBT]),
            attention=tuple(chain.from_iterable(found[:MOST_SHOWN] for found in troubles.values())),
            reasons_of=reasons.by_status,
            accepted_by_relay=through,
            _kept=tuple(kept),
        )

    @property
    def name(self) -> str:
        """The campaign's."""
        return self.run.name

    @property
    def relay(self) -> str:
        """What the mail went through, as a URL without password."""
        return self.run.relay

    @property
    def outbox(self) -> Path | None:
        """The file that was read; None is an outbox in memory."""
        return self.run.path

    @property
    def is_rehearsal(self) -> bool:
        """Whether nobody was written to."""
        return self.run.is_rehearsal

    @property
    def accepted(self) -> int:
        """How many rows the relay took."""
        return self.tally[Status.ACCEPTED]

    @property
    def exit_code(self) -> int:
        """What the program ends with, as `Tally.exit_code`."""
        return self.tally.exit_code

    @property
    def reasons(self) -> Counter[str]:
        """Why rows did not get the letter that they were meant to get, or not yet: `"unknown user"` 31 times."""
        return sum((self.reasons_of.get(status, Counter()) for status in _ATTENTION), Counter())

    @property
    def started_at(self) -> float | None:
        """When the first message went out, in wall-clock seconds."""
        return self.run.started_at

    @property
    def ended_at(self) -> float | None:
        """When nothing was left to do, in wall-clock seconds."""
        return self.run.ended_at

    @property
    def duration(self) -> float | None:
        """Seconds from the first message to the end, pauses included; None while there is no end."""
        if self.started_at is None or self.ended_at is None:
            return None
        return max(0.0, self.ended_at - self.started_at)

    @property
    def per_second(self) -> float | None:
        """Messages accepted a second over the whole duration; None without one."""
        return self.accepted / self.duration if self.duration else None

    def rows(self) -> Iterator[RowRecord]:
        """Every row as it is now, in input order, read from the outbox again.  Raises as `read()` does."""
        with self.source() as source:
            yield from source.rows()

    @contextmanager
    def source(self) -> Iterator[Source]:
        """What to write a table of this run from.  Raises `OutboxError` when the outbox has gone."""
        if self.outbox is None:
            yield Source(self.run, self.tally, lambda: iter(self._kept))
            return
        with OutboxReader.open(self.outbox) as reader:
            yield Source.of(reader, self.outbox)
