"""What a report is made from: the run as a whole, its tally, and its rows, which must be those that it counts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from itertools import chain
from pathlib import Path

import msgspec

from bulkmail.model.breaker import StopRequest
from bulkmail.model.campaign import Campaign
from bulkmail.model.errors import BulkmailError, ConfigError
from bulkmail.model.feedback_event import CameBack, Returned, ReturnedCounts
from bulkmail.model.lazy import dataclass
from bulkmail.model.relay import Kind, Relay
from bulkmail.model.schedule import Planned
from bulkmail.model.shaper import Slowdown
from bulkmail.model.tally import Passes, Status, Tally
from bulkmail.model.timing import Hold
from bulkmail.outbox.entries import AcceptedRow, AttemptRecord, RowRecord, decode_fields
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.outbox.sqlite_file import noticing_damage
from bulkmail.report.planned import planned_in
from bulkmail.report.rest import rest_of
from bulkmail.report.slowdowns import slowdowns_of

_REHEARSALS = frozenset(kind.value for kind in Kind if kind.is_rehearsal)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What holds for the run as a whole.  Times are wall-clock seconds; `columns` are the list's, if it was one list.

    `list_name` and `maildir`, where a rehearsal kept its mail, may be empty.  `process` is the pid and the host of who
    sends just now.  `path` is the outbox; None is one in memory.
    """

    name: str
    run_id: str
    relay: str
    list_name: str
    is_rehearsal: bool
    maildir: str
    columns: tuple[str, ...]
    created_at: float
    started_at: float | None
    ended_at: float | None
    process: tuple[int, str] | None
    path: Path | None
    relays: tuple[str, ...] = ()  # their names
    redirected_to: str = ""  # who got all the messages of a rehearsal over a real relay
    rest: Hold | None = None  # why nothing is sent just now
    stopped: StopRequest | None = None  # who stopped it, if it has not gone on since
    slowdowns: tuple[Slowdown, ...] = ()  # relays and providers that asked for less
    number: int = 1  # which run under its name it is
    next_try_at: float | None = None  # when the first of the deferred deliveries may be tried again
    planned: Planned | None = None  # what is left of planned times; None for a run without
    named: str = ""  # what commands call it, where that is not the path of its outbox
    follows: tuple[str, str] | None = None  # the id and the outbox of the run that it follows up

    @classmethod
    def of(cls, reader: OutboxReader, path: Path | None) -> RunFacts:
        """As the outbox has it."""
        with noticing_damage(reader.name):
            info = reader.info
            campaign = reader.campaign.name if reader.campaign else ""
            return cls(
                name=info.name or campaign or (path.stem if path else "mailing"),
                run_id=reader.run_id,
                relay=info.relay,
                relays=info.relays,
                list_name=info.list_name,
                is_rehearsal=reader.is_rehearsal,
                # Through a rehearsal's relay, or none, no recipient got anything.
                redirected_to="" if info.relay_kind in _REHEARSALS else info.redirect_to,
                maildir=info.maildir or _maildir(info.relay),
                columns=info.columns,
                created_at=reader.created_at,
                started_at=reader.started_at,
                ended_at=reader.ended_at,
                process=reader.is_running,
                path=path,
                rest=rest_of(info, time.time()),
                stopped=info.stopped,
                slowdowns=slowdowns_of(info),
                number=info.number,
                next_try_at=reader.next_try_at(),
                planned=planned_in(reader),
                follows=(reader.campaign.follows, info.follows)
                if reader.campaign and reader.campaign.follows
                else None,
            )


def _no_attempts() -> Iterator[AttemptRecord]:
    return iter(())


@dataclass(frozen=True, slots=True)
class Pass:
    """One run of a campaign that was sent in several, with its tries."""

    run: RunFacts
    tally: Tally
    returned: ReturnedCounts
    attempts: Callable[[], Iterator[AttemptRecord]] = _no_attempts


@dataclass(frozen=True, slots=True)
class Source:
    """A run with its rows and tries, which can be gone through more than once.

    `tally` counts rows, `messages` those that share a message once; None where each row has its own.

    `campaign` is None for ready-made messages; of an outbox that was in memory there are no tries either.  `reader`
    is the open outbox that the rows come from, if they come from one file.

    `returned` counts what came back about the rows, each of which has its own part of it; `passes` are the runs that a
    joined source is made of, oldest first.
    """

    run: RunFacts
    tally: Tally
    unproven_rows: Callable[[], Iterator[RowRecord]]
    attempts: Callable[[], Iterator[AttemptRecord]] = _no_attempts
    campaign: Campaign | None = None
    reader: OutboxReader | None = None
    returned: ReturnedCounts = field(default_factory=ReturnedCounts)
    passes: tuple[Pass, ...] = ()
    messages: Tally | None = None
    _returned: Returned = field(default_factory=Returned, repr=False)

    @classmethod
    def of(cls, reader: OutboxReader, path: Path | None = None, *, returned: Returned | None = None) -> Source:
        """Good as long as the reader, which `path` was opened with, is open."""
        returned = returned or Returned()
        tally = reader.tally()
        return cls(
            RunFacts.of(reader, path),
            reader.tally_by_row() if reader.is_grouped else tally,
            lambda: _with_returned(reader.rows(), returned),
            reader.attempts,
            reader.campaign,
            reader if path is not None else None,
            returned.counts(),
            messages=tally if reader.is_grouped else None,
            _returned=returned,
        )

    @classmethod
    def joined(cls, sources: Sequence[Source]) -> Source:
        """The passes of one campaign, oldest first and each with a reader, as one: a recipient is there once, by the
        pass that says what became of them.
        """
        readers = [source.reader for source in sources if source.reader is not None]
        passes = Passes([reader.statuses() for reader in readers])

        def rows() -> Iterator[RowRecord]:
            for number, source in enumerate(sources):
                spoken_for = passes.rows_of(number)
                for record in source.unproven_rows():
                    if record.row in spoken_for:
                        yield msgspec.structs.replace(record, run_number=source.run.number)

        first, last = sources[0].run, sources[-1].run
        columns = dict.fromkeys(column for source in sources for column in source.run.columns)
        return cls(
            replace(
                last,
                columns=tuple(columns) if all(source.run.columns for source in sources) else (),
                created_at=first.created_at,
                started_at=first.started_at,
                relays=tuple(dict.fromkeys(relay for source in sources for relay in source.run.relays)),
            ),
            passes.tally,
            rows,
            lambda: chain.from_iterable(source.attempts() for source in sources),
            sources[-1].campaign,
            None,
            sum(
                (source._returned.counts(passes.rows_of(number)) for number, source in enumerate(sources)),
                ReturnedCounts(),
            ),
            passes=tuple(Pass(source.run, source.tally, source.returned, source.attempts) for source in sources),
        )

    def rows(self) -> Iterator[RowRecord]:
        """In input order.  At their end raises `BulkmailError` unless they are those that the tally counts."""
        counted = _Counted(self.tally)
        for record in self.unproven_rows():
            counted.add(record)
            yield record
        counted.prove()

    def batches(self) -> Iterator[Iterable[RowRecord | AcceptedRow]]:
        """As `rows()`, some at a time; a row with one delivery, which a server took, comes as an `AcceptedRow`."""
        if self.reader is None:
            yield self.rows()
            return
        counted = _Counted(self.tally)
        for batch in self.reader.batches():
            if isinstance(batch, list):
                counted.accepted += len(batch)
                yield batch
            else:
                yield counted.passed(batch)
        counted.prove()

    def came_back(self, row: AcceptedRow) -> CameBack | None:
        """What came back about a row from `batches()`."""
        return self._returned.rows.get(row[1])

    def fields_of(self, row: AcceptedRow) -> dict[str, object]:
        """The cells of a row from `batches()`.  Raises `OutboxError` where the outbox is damaged."""
        try:
            return decode_fields(row[3])
        except Exception:
            with noticing_damage(self.reader.name if self.reader else self.run.name):
                raise

    def unaccepted(self) -> tuple[Iterator[RowRecord], Mapping[str, int]]:
        """The rows that are not accepted or have a copy that is not, and how many deliveries each relay took.

        The rows are in input order.  At their end raises `BulkmailError` unless both are what the tally counts.  Only
        with a `reader`.
        """
        if self.reader is None:
            raise ValueError("this source has no reader")
        taken = self.reader.accepted_by_relay()
        return self._unaccepted(self.reader, sum(taken.values())), taken

    def _unaccepted(self, reader: OutboxReader, accepted: int) -> Iterator[RowRecord]:
        counted = _Counted(self.tally)
        for record in reader.unaccepted():
            counted.add(record)
            yield record
        counted.add_accepted(accepted)
        counted.prove()


class _Counted:
    """The rows of one pass by status, and their copies, held against the tally at the end.

    `accepted` counts rows not passed to `add`.
    """

    def __init__(self, tally: Tally) -> None:
        self.accepted = 0
        self._tally = tally
        self._seen = dict.fromkeys(Status, 0)
        self._copies = Counter[Status]()
        self._last, self._times = Status.PENDING, 0

    def add(self, record: RowRecord) -> None:
        if record.status is not self._last:  # rare: saves looking the status up for every row
            self._seen[self._last] += self._times
            self._last, self._times = record.status, 0
        self._times += 1
        if record.copies:
            self._copies.update(copy.status for copy in record.copies)

    def passed(self, rows: Iterable[RowRecord | AcceptedRow]) -> Iterator[RowRecord | AcceptedRow]:
        """The same rows, counted as they are taken."""
        for row in rows:
            if isinstance(row, RowRecord):
                self.add(row)
            else:
                self.accepted += 1
            yield row

    def add_accepted(self, deliveries: int) -> None:
        """Adds the rows and copies that are accepted, some of them passed to `add`, known by their number alone."""
        self._settle()
        copies = self._tally.copies.get(Status.ACCEPTED, 0)
        self._seen[Status.ACCEPTED], self._copies[Status.ACCEPTED] = deliveries - copies, copies

    def prove(self) -> None:
        """Raises `BulkmailError` unless they are those that the tally counts."""
        self._settle()
        seen, copies, tally = self._seen, self._copies, self._tally
        odd = [
            f"{status.value} {number} of {tally[status]}" for status, number in seen.items() if number != tally[status]
        ]
        odd += [
            f"{status.value} copies {copies[status]} of {tally.copies.get(status, 0)}"
            for status in Status
            if status.is_eligible and copies[status] != tally.copies.get(status, 0)
        ]
        if odd or not tally.adds_up:
            raise BulkmailError(
                f"the report does not add up: the outbox counts {tally.rows} rows and holds {sum(seen.values())}"
                + (f" ({', '.join(odd)})" if odd else ""),
                hint="this is a bug in bulkmail; nothing was written. Keep the outbox file and please report it",
            )

    def _settle(self) -> None:
        self._seen[self._last] += self._times
        self._seen[Status.ACCEPTED] += self.accepted
        self._times = self.accepted = 0


def _with_returned(rows: Iterable[RowRecord], returned: Returned) -> Iterator[RowRecord]:
    """The same rows, each with what came back about it and its copies."""
    with_copies = {row for row, _ in returned.copies}
    for record in rows:
        if record.row in with_copies:
            copies = tuple(
                msgspec.structs.replace(copy, came_back=returned.copies.get((record.row, copy.address.lower())))
                for copy in record.copies
            )
            record = msgspec.structs.replace(record, copies=copies)
        came_back = returned.rows.get(record.row)
        yield record if came_back is None else msgspec.structs.replace(record, came_back=came_back)


def _maildir(relay: str) -> str:
    """The folder that a sandbox: or maildir: relay names."""
    try:
        parsed = Relay.parse(relay)
    except ConfigError:
        return ""
    return parsed.directory
