"""The reading of an outbox: what a person, or a program in one line, wants to know of a run."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field, replace
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from bulkmail.model.feedback_event import FeedbackKind, ReturnedCounts
from bulkmail.model.lazy import dataclass
from bulkmail.model.recipient import Place
from bulkmail.model.tally import Status, Tally
from bulkmail.outbox.entries import PathRecord, RowRecord
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.report.row_words import Reasons, Variants, words
from bulkmail.report.run_source import Pass, RunFacts, Source

MOST_NAMED = 1_000  # rows in doubt that a report names; the CSV and JSON reports have all of them
MOST_SHOWN = 20  # rows of each other status that need attention

# In the order in which a person should look at them.
_ATTENTION = (Status.IN_DOUBT, Status.REJECTED, Status.EXPIRED, Status.INVALID, Status.DEFERRED)
_REFUSED = frozenset({Status.REJECTED, Status.EXPIRED})


@dataclass(frozen=True, slots=True)
class AttentionRow:
    """A recipient that needs a person's attention.  `words` are the server's, or ours if no server was asked.

    `copies` is 0 for the recipient of a row; for a copy (To, Cc, Bcc) it is how many rows it has that status for.
    """

    place: Place
    address: str
    status: Status
    words: str
    copies: int = 0


class AcceptedReply(NamedTuple):
    """The reply with which a relay took the message to one address.

    The code is 0 and the reply empty where no server answered: in a rehearsal, or for one taken out of doubt by hand.
    """

    address: str
    code: int
    reply: str
    relay: str
    message_id: str


class Troubles:
    """The recipients that a person should look at, by status and in input order, as many as are shown."""

    def __init__(self) -> None:
        self._found: dict[Status, list[AttentionRow]] = {status: [] for status in _ATTENTION}
        self._copies: dict[tuple[Status, str], int] = {}  # where in its list a copy's address is

    def add(self, record: RowRecord, path: PathRecord) -> None:
        """One that is not accepted: the recipient of `record`, or a copy of it, whose address is kept once."""
        status = path.status
        found = self._found.get(status)
        if found is None:
            return
        is_copy = path is not record
        key = (status, path.address.casefold())
        if is_copy and (number := self._copies.get(key)) is not None:
            found[number] = replace(found[number], copies=found[number].copies + 1)
        elif len(found) < (MOST_NAMED if status is Status.IN_DOUBT else MOST_SHOWN):
            if is_copy:
                self._copies[key] = len(found)
            found.append(AttentionRow(record.place, path.address, status, words(path), int(is_copy)))

    def of(self, status: Status, most: int) -> list[AttentionRow]:
        """The first of these."""
        return self._found[status][:most]


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """A reading at one moment; later changes of the outbox are in the next reading.

    `tally` counts rows, each by its own recipient, and their copies (To, Cc, Bcc) apart.  `messages` counts the same,
    but rows that share a message (`group_by`) once; each of them has the status of its message.  `failed` has
    `(address, code, reply)` of each recipient that was rejected or has expired, in input order; a copy's address is
    there once, however many rows it belongs to.  The code is 0 and the reply in our words where no server was asked.
    `invalid` has `(place, reason)` of each row that nothing could be sent for; `str(place)` is `"people.csv:3"`.
    `in_doubt` names the first thousand such recipients, `attention` the first few of each kind that a person should
    look at, the gravest kind first.  `reasons_of` counts why rows are not accepted, `accepted_by_relay` what each relay
    took, copies included.  `outcomes_by_variant` counts the rows of each variant of the message.

    `returned` counts what came back about recipients, `returned_by_variant` by variant; both are empty for a reading of
    an outbox alone.  `passes` are the runs of a campaign that was sent in several, oldest first.
    """

    run: RunFacts
    tally: Tally
    messages: Tally
    failed: list[tuple[str, int, str]]
    in_doubt: tuple[AttentionRow, ...]
    attention: tuple[AttentionRow, ...]
    reasons_of: Mapping[Status, Counter[str]]
    accepted_by_relay: Mapping[str, int] = field(default_factory=dict)
    outcomes_by_variant: Mapping[str, Counter[Status]] = field(default_factory=dict)
    invalid: list[tuple[Place, str]] = field(default_factory=list)
    returned: ReturnedCounts = field(default_factory=ReturnedCounts)
    returned_by_variant: Mapping[str, Counter[FeedbackKind]] = field(default_factory=dict)
    passes: tuple[Pass, ...] = ()
    _kept: tuple[RowRecord, ...] = field(default=(), repr=False)  # of an outbox in memory, which will be gone

    @classmethod
    def read(cls, outbox: Path | str | OutboxReader) -> Report:
        """Reads an outbox, also while a process sends from it.

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
        """Goes through the rows once.  Raises `BulkmailError` when they are not those that the tally counts."""
        reasons = Reasons()
        failed: dict[object, tuple[str, int, str]] = {}
        invalid: list[tuple[Place, str]] = []
        troubles = Troubles()
        kept: list[RowRecord] = []
        through: Counter[str] = Counter()
        variants = Variants(source.campaign)
        rows = source.rows()
        taken: Mapping[str, int] | None = None
        if source.messages is not None and source.reader is not None:
            taken = source.reader.accepted_by_relay()
        elif source.reader is not None and not variants.by_name:  # it counts what is accepted: no need to look at those
            rows, taken = source.unaccepted()
        for record in rows:
            if source.run.path is None:
                kept.append(record)
            for path in (record, *record.copies):
                if path.status is Status.ACCEPTED:
                    through[path.relay] += not record.shares
                    continue
                if record.shares:
                    continue
                troubles.add(record, path)
                if path.status in _REFUSED:
                    key = record.row if path is record else path.address.casefold()
                    said = path.reply or path.error or path.reason
                    failed.setdefault(key, (path.address, path.code or 0, said))
            reasons.add(record)
            variants.add(record)
            if record.status is Status.INVALID:
                invalid.append((record.place, words(record)))
        return cls(
            run=source.run,
            tally=source.tally,
            messages=source.messages or source.tally,
            failed=list(failed.values()),
            invalid=invalid,
            in_doubt=tuple(troubles.of(Status.IN_DOUBT, MOST_NAMED)),
            attention=tuple(chain.from_iterable(troubles.of(status, MOST_SHOWN) for status in _ATTENTION)),
            reasons_of=reasons.by_status,
            accepted_by_relay=through if taken is None else taken,
            outcomes_by_variant=variants.by_name,
            returned=source.returned,
            returned_by_variant=variants.returned,
            passes=source.passes,
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
        """Whether nothing was sent to recipients."""
        return self.run.is_rehearsal

    @property
    def accepted(self) -> int:
        """How many rows the relay took, each by its own recipient; of a ready-made message that is the first."""
        return self.tally[Status.ACCEPTED]

    @property
    def accepted_copies(self) -> int:
        """How many copies (further addresses in To, Cc, Bcc) the relay took; no row is among them."""
        return self.tally.copies.get(Status.ACCEPTED, 0)

    @property
    def exit_code(self) -> int:
        """What the program ends with, as `Tally.exit_code`."""
        return self.tally.exit_code

    @property
    def reasons(self) -> Counter[str]:
        """Why rows did not get the message that they were meant to get, or not yet: `"unknown user"` 31 times."""
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
        return self.messages[Status.ACCEPTED] / self.duration if self.duration else None

    def __str__(self) -> str:
        """What `bulkmail report` prints: totals, reasons and what to look at, in lines."""
        from bulkmail.report.text_report import summary

        return summary(self).rstrip()

    def as_json(self, *, rows: bool = True) -> str:
        """The JSON report, as `bulkmail report --format json` writes it; without `rows`, what holds for the whole run.

        Reads the outbox again.  With rows its length grows with the list.  Raises as `read()` does.
        """
        from bulkmail.report.json_report import head, write_json
        from bulkmail.report.row_words import as_json

        with self.source() as source:
            if not rows:
                return as_json(head(source)).decode()
            file = BytesIO()
            write_json(source, file)
            return file.getvalue().decode()

    def as_dict(self, *, rows: bool = True) -> dict[str, Any]:
        """The same as an object."""
        found: dict[str, Any] = json.loads(self.as_json(rows=rows))
        return found

    def accepted_replies(self) -> Iterator[AcceptedReply]:
        """What the relay said to each address that it took, copies too, in input order.  Most name the queue id.

        Read from the outbox again.  Raises as `read()` does.
        """
        for record in self.rows():
            for path in (record, *record.copies):
                if path.status is Status.ACCEPTED and not record.shares:
                    yield AcceptedReply(path.address, path.code or 0, path.reply, path.relay, path.message_id)

    def rows(self) -> Iterator[RowRecord]:
        """Every row as it is now, in input order, read from the outbox again.  Raises as `read()` does."""
        with self.source() as source:
            yield from source.rows()

    @contextmanager
    def source(self) -> Iterator[Source]:
        """What to write a table of this run from.  Raises `OutboxError` when the outbox has gone."""
        if self.outbox is None:
            is_grouped = self.messages is not self.tally
            yield Source(self.run, self.tally, lambda: iter(self._kept), messages=self.messages if is_grouped else None)
            return
        with OutboxReader.open(self.outbox) as reader:
            yield Source.of(reader, self.outbox)
