"""An outbox against a plain dictionary: whatever is done to it, in whatever order, both say the same."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from bulkmail.model.delivery import Delivery, Release
from bulkmail.model.errors import OutboxError
from bulkmail.model.outcome import Reply, Stage
from bulkmail.model.recipient import Address
from bulkmail.model.retry import RetryPolicy
from bulkmail.model.tally import Status
from bulkmail.outbox.outbox import Entry, Outbox
from bulkmail.outbox.outbox_reader import OutboxReader
from tests.outbox.making import BUSY, LOST, OK, UNKNOWN, make_bad_row, make_mark, make_recipient, make_settlement

pytestmark = pytest.mark.slow

STOPS = Reply(Stage.MAIL, 550, "", "sender refused")
POLICY = RetryPolicy(schedule=(100.0, 100.0))
EVENTS = st.sampled_from([OK, OK, UNKNOWN, BUSY, BUSY, LOST, STOPS])


@dataclass
class Expected:
    """What the model thinks of one delivery."""

    delivery: Delivery
    is_marked: bool = False
    digest: bytes | None = None
    in_doubt_before: bool = False

    @property
    def is_open(self) -> bool:
        return self.delivery.status.is_open


class OutboxMachine(RuleBasedStateMachine):
    @initialize(
        people=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2), st.booleans()), max_size=8),
        size=st.integers(1, 8),
    )
    def load(self, people: list[tuple[int, int, bool]], size: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "x.outbox"
        self.outbox = Outbox.create(self.path, campaign=None)
        self.now = 1000.0
        self.expected: dict[int, Expected] = {}
        self.rows = len(people)
        entries, seen = [], set()
        for row, (person, copies, is_bad) in enumerate(people, 1):
            recipient = make_recipient(row, address=Address(f"user{person}", "example.org"))
            paths = (recipient.address.wire, *(f"copy{n}@example.org" for n in range(copies)))
            entry = Entry(make_bad_row(), Status.INVALID) if is_bad else Entry(recipient, forward_paths=paths)
            status = Status.INVALID if is_bad else Status.DUPLICATE if person in seen else Status.PENDING
            seen |= set() if is_bad else {person}
            entries.append(entry)
            for path in ("",) if is_bad else paths:
                number = len(self.expected) + 1
                self.expected[number] = Expected(
                    Delivery(number, row, path, status, is_copy=path not in ("", paths[0]))
                )
        for start in range(0, len(entries), size):
            self.outbox.record(entries[start : start + size])
        self.outbox.finish_loading()

    def teardown(self) -> None:
        if hasattr(self, "outbox"):
            self.outbox.close()
            self.folder.cleanup()

    def some(self, data: st.DataObject, **wanted: bool) -> Expected | None:
        found = [e for e in self.expected.values() if all(getattr(e, name) is value for name, value in wanted.items())]
        return data.draw(st.sampled_from(found)) if found else None

    @rule(data=st.data(), digest=st.sampled_from([b"A" * 16, b"B" * 16]))
    def mark(self, data: st.DataObject, digest: bytes) -> None:
        if expected := self.some(data):
            number = expected.delivery.id
            entry = make_mark(number, digest=digest, first_at=self.now)
            # What was never marked had no end that could have been sent: there is nothing to be the same as.
            is_same = not expected.in_doubt_before or expected.digest in (None, digest)
            if expected.is_open and not expected.is_marked and is_same:
                self.outbox.write([entry])
                expected.is_marked, expected.digest = True, digest
                expected.delivery = replace(expected.delivery, first_at=self.now)
            else:
                with pytest.raises(OutboxError):
                    self.outbox.write([entry])

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if expected := self.some(data, is_marked=True):
            self.outbox.write([Release(expected.delivery.id)])
            expected.is_marked = False

    @rule(data=st.data(), event=EVENTS)
    def settle(self, data: st.DataObject, event: Reply) -> None:
        if expected := self.some(data, is_open=True):
            settlement = make_settlement(expected.delivery, event, at=self.now, policy=POLICY)
            self.outbox.write([settlement])
            expected.delivery, expected.is_marked = settlement.delivery, False
            expected.in_doubt_before |= settlement.delivery.status is Status.IN_DOUBT

    @rule(data=st.data(), event=EVENTS)
    def settle_what_is_settled(self, data: st.DataObject, event: Reply) -> None:
        if expected := self.some(data, is_open=False):
            settlement = make_settlement(replace(expected.delivery, status=Status.PENDING), event, policy=POLICY)
            with pytest.raises(OutboxError):
                self.outbox.write([settlement])

    @rule(seconds=st.sampled_from([50.0, 150.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def reopen_file(self) -> None:
        self.outbox.close()
        self.outbox = Outbox.open(self.path)
        marked = [expected for expected in self.expected.values() if expected.is_marked]
        assert self.outbox.newly_in_doubt == len(marked)
        for expected in marked:
            was = expected.delivery
            expected.delivery = replace(was, status=Status.IN_DOUBT, attempts=was.attempts + 1, tries=was.tries + 1)
            expected.is_marked, expected.in_doubt_before = False, True

    @rule(to=st.sampled_from([Status.PENDING, Status.ACCEPTED, Status.REJECTED]))
    def settle_in_doubt(self, to: Status) -> None:
        assert self.outbox.settle_in_doubt(to) == self.moved(Status.IN_DOUBT, to)

    @rule(status=st.sampled_from([Status.REJECTED, Status.EXPIRED]))
    def reopen(self, status: Status) -> None:
        assert self.outbox.reopen(status) == self.moved(status, Status.PENDING)

    @precondition(lambda self: self.now > 1200)
    @rule()
    def cancel(self) -> None:
        cancelled = self.moved(Status.PENDING, Status.CANCELLED) + self.moved(Status.DEFERRED, Status.CANCELLED)
        assert self.outbox.cancel() == cancelled

    def moved(self, before: Status, after: Status) -> int:
        found = [e for e in self.expected.values() if e.delivery.status is before and not e.is_marked]
        for expected in found:
            expected.delivery = replace(expected.delivery, status=after)
            if after is Status.PENDING:
                first_at = expected.delivery.first_at if expected.in_doubt_before else None
                expected.digest = expected.digest if expected.in_doubt_before else None
                expected.delivery = replace(expected.delivery, attempts=0, due_at=0.0, first_at=first_at)
        return len(found)

    @rule(data=st.data())
    def due(self, data: st.DataObject) -> None:
        excluded = data.draw(st.sets(st.sampled_from(sorted(self.expected) or [0])))
        limit = data.draw(st.integers(0, 10))
        wanted = [
            expected
            for number, expected in self.expected.items()
            if expected.is_open and not expected.is_marked and expected.delivery.due_at <= self.now
            if number not in excluded
        ]
        wanted.sort(key=lambda expected: (expected.delivery.due_at or math.inf, expected.delivery.id))
        everything = self.outbox.due(self.now, limit=1000, excluding=excluded)
        assert [job.delivery for job in everything] == [expected.delivery for expected in wanted]
        assert [(job.digest, job.in_doubt_before) for job in everything] == [
            (expected.digest, expected.in_doubt_before) for expected in wanted
        ]
        assert len(self.outbox.due(self.now, limit=limit, excluding=excluded)) <= limit

    @invariant()
    def rows_are_the_sum_over_statuses(self) -> None:
        if not hasattr(self, "outbox"):
            return
        deliveries = [expected.delivery for expected in self.expected.values()]
        shown = [delivery.status for delivery in deliveries if not delivery.is_copy]
        copies = [delivery.status for delivery in deliveries if delivery.is_copy]
        tally = self.outbox.tally()
        assert tally.adds_up
        assert tally.rows == self.rows == len(shown)
        assert all(tally[status] == shown.count(status) for status in Status)
        assert all(tally.copies.get(status, 0) == copies.count(status) for status in Status)
        with OutboxReader.open(self.path) as reader:
            rows = list(reader.rows())
            assert [row.status for row in rows] == shown
            assert [copy.status for row in rows for copy in row.copies] == [
                status for status in copies if status is not Status.DUPLICATE
            ]
            assert reader.tally() == tally


OutboxMachine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestOutboxMachine = OutboxMachine.TestCase
