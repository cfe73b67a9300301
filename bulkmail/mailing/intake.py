"""Mail that came back: read, matched, stored, only then filed; and a campaign with what came back about it."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import field, replace
from pathlib import Path
from typing import Protocol

import anyio
from anyio import CapacityLimiter, to_thread

from bulkmail.feedback.feedback_report import read_report
from bulkmail.feedback.matching import Arrived, Matcher, VerifyUnsubscribe
from bulkmail.mailbox.mail_source import FetchedMail, MailSource, pause_after
from bulkmail.mailing.previous_run import passes_of
from bulkmail.mailing.suppression_list import is_there, open_used, scope_of
from bulkmail.model.errors import BulkmailError, OutboxError, SuppressionError
from bulkmail.model.feedback_event import (
    EventSink,
    FeedbackEvent,
    FeedbackKind,
    KnownRun,
    Proof,
    Returned,
    ReturnedEvent,
    RunRegister,
    SentPath,
    fold_returned,
)
from bulkmail.model.lazy import dataclass
from bulkmail.outbox.lookup import FoundDelivery
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.report.run_source import Source
from bulkmail.suppression.ports import SuppressionStore
from bulkmail.text import count, printable

# -- Mail that came back, from where it is kept to the suppression list: read, matched, stored, only then filed.


log = logging.getLogger("bulkmail.mailing")


class RunOutbox:
    """The outbox of `run`, opened for each look, so that none is held between two.

    `reported` gets a sentence when it cannot be read.
    """

    def __init__(self, run: KnownRun, reported: Callable[[str], None] = lambda sentence: None) -> None:
        self._run = run
        self._reported = reported

    def find(
        self,
        *,
        numbers: Collection[int] = (),
        rows: Collection[int] = (),
        message_ids: Collection[str] = (),
        paths: Collection[str] = (),
    ) -> list[FoundDelivery]:
        """The deliveries with one of these numbers, rows, Message-IDs or forward paths.

        No deliveries where the file cannot be read, or is another run by now: then its numbers mean other rows.
        """
        run = self._run
        try:
            with OutboxReader.open(Path(run.outbox)) as reader:
                if reader.run_id != run.run_id:
                    return []
                return reader.find(numbers=numbers, rows=rows, message_ids=message_ids, paths=paths)
        except OutboxError as error:
            log.warning("an outbox cannot be looked into", extra={"outbox": run.outbox, "why": str(error)})
            self._reported(f"what is about {printable(run.campaign or run.run_id)} cannot be matched: {error}")
            return []


def outbox_of(run: KnownRun, reported: Callable[[str], None] = lambda sentence: None) -> RunOutbox | None:
    """Where to look for the deliveries of `run`; None when its outbox is gone."""
    return RunOutbox(run, reported) if run.outbox and Path(run.outbox).is_file() else None


MOST_NOTICES = 20
AT_ONCE = 50  # events in one transaction


class IntakeStore(EventSink, RunRegister, Protocol):
    """Where events go, and what is known of the runs that they may be about."""

    def note_intake(self, source: str, *, is_pushed: bool) -> None:
        """All that was in `source` is durable."""
        ...


@dataclass(slots=True)
class IntakeSummary:
    """What was read: `new` counts events that were not stored before, `by_kind` those matched to a message of ours.

    `unproved` are events that only name an address that we wrote to; `unmatched` are mails that no message of ours
    was found for.  `notices` are sentences for people.
    """

    mails: int = 0
    new: int = 0
    unproved: int = 0
    unmatched: int = 0
    by_kind: Counter[FeedbackKind] = field(default_factory=Counter)
    notices: list[str] = field(default_factory=list)

    def note(self, notice: str) -> None:
        """Keeps a sentence once."""
        if notice not in self.notices and len(self.notices) < MOST_NOTICES:
            self.notices.append(notice)


class Intake:
    """Takes mail from sources to the store.

    `also` are runs that the store need not know.  `observe` receives each event after it is durable, or at once with
    `is_dry`, which stores and moves nothing.
    """

    def __init__(
        self,
        store: IntakeStore,
        *,
        also: Sequence[KnownRun] = (),
        verify_unsubscribe: VerifyUnsubscribe = lambda token: None,
        is_dry: bool = False,
        observe: Callable[[FeedbackEvent], None] = lambda event: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.summary = IntakeSummary()
        self._store = store
        self._also = tuple(also)
        self._verify = verify_unsubscribe
        self._is_dry = is_dry
        self._observe = observe
        self._clock = clock

    def take(self, source: MailSource) -> None:
        """All that is in `source` now.  Raises what it and the store raise; what was stored before stays."""
        for batch in source.batches():
            events = self._events(batch, source.name)
            if not self._is_dry:
                self.summary.new += self._record([event for found in events for event in found])
                understood = {
                    mail.key for mail, found in zip(batch, events, strict=True) if any(map(_is_matched, found))
                }
                source.done(batch, understood=frozenset(understood))
            self._count(events)
        if not self._is_dry:
            self._store.note_intake(source.name, is_pushed=source.is_pushed)

    def _record(self, events: Sequence[FeedbackEvent]) -> int:
        """Some at a time, so that clicks that a server takes meanwhile need not wait for all."""
        new = 0
        for start in range(0, len(events), AT_ONCE):
            new += self._store.record(events[start : start + AT_ONCE])
            time.sleep(0)  # or this thread has the store again before another comes to ask
        return new

    def _events(self, batch: Sequence[FetchedMail], name: str) -> list[list[FeedbackEvent]]:
        """The events of each mail."""
        now = self._clock()
        mails = [Arrived(mail.digest, read_report(mail.raw), mail.raw, name, now) for mail in batch]
        matcher = Matcher(
            self._runs(),
            self._store.token_key(),
            look_in=lambda run: outbox_of(run, self.summary.note),
            verify_unsubscribe=self._verify,
        )
        return matcher.match_each(mails)

    def _runs(self) -> list[KnownRun]:
        known = list(self._store.runs())
        ids = {run.run_id for run in known}
        return known + [run for run in self._also if run.run_id not in ids]

    def _count(self, events: Iterable[Sequence[FeedbackEvent]]) -> None:
        summary = self.summary
        for found in events:
            summary.mails += 1
            if not any(map(_is_matched, found)):
                summary.unmatched += 1
            for event in found:
                if event.proof is Proof.ADDRESS:
                    summary.unproved += 1
                elif event.proof.is_proved:
                    summary.by_kind[event.kind] += 1
                self._observe(event)


def _is_matched(event: FeedbackEvent) -> bool:
    return event.proof is not Proof.NONE


WAIT = 540.0  # seconds that one wait for mail lasts


@dataclass(slots=True)
class MailboxState:
    """How reading one mailbox goes: `read_at` is when all in it was last read (wall clock), None for never.

    `failures` counts all of them, `trouble` is the last one's reason, empty since it was read again.
    """

    name: str
    read_at: float | None = None
    failures: int = 0
    trouble: str = ""


class Mailboxes:
    """Reads `sources` as mail comes in, each with an intake from `make_intake`, until it is cancelled.

    A mailbox that fails is retried later, and never ends the others or the server.  `reported` gets a sentence when one
    begins to fail.
    """

    def __init__(
        self,
        sources: Sequence[MailSource],
        make_intake: Callable[[], Intake],
        *,
        reported: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.states = [MailboxState(source.name) for source in sources]
        self._sources = sources
        self._make_intake = make_intake
        self._reported = reported

    async def run(self) -> None:
        """Until it is cancelled; a batch of mails that is being stored is finished first."""
        async with anyio.create_task_group() as group:
            for source, state in zip(self._sources, self.states, strict=True):
                group.start_soon(self._keep_reading, source, state)
            try:
                await anyio.sleep_forever()
            finally:  # a thread that waits for mail would be waited for
                for source in self._sources:
                    source.interrupt()

    async def _keep_reading(self, source: MailSource, state: MailboxState) -> None:
        limiter = CapacityLimiter(1)  # threads of its own: a wait takes minutes
        intake = self._make_intake()
        failures = 0
        while True:
            try:
                await to_thread.run_sync(intake.take, source, limiter=limiter)
                state.read_at, state.trouble, failures = time.time(), "", 0
                await to_thread.run_sync(source.wait, WAIT, limiter=limiter)
                continue
            except BulkmailError as error:
                trouble = str(error)
            except Exception as error:  # whatever one mailbox brings, the server goes on
                log.exception("a mailbox cannot be read", extra={"mailbox": source.name})
                trouble = f"{source.name}: {type(error).__name__}"
            failures += 1
            state.failures += 1
            state.trouble = trouble
            if failures == 1:
                self._reported(f"{trouble}; bulkmail will retry, and everything else continues")
            await anyio.sleep(pause_after(failures))


# -- A campaign as reports show it: all its passes, each with what came back about it.


@contextmanager
def opened_campaign(outbox: Path, *, alone: bool) -> Iterator[tuple[Source, list[str]]]:
    """What to report of the campaign whose latest run is in `outbox`, and what could not be read, as sentences.

    Several passes are one source; `alone`: only this run.  Good as long as the context lasts.  Raises `OutboxError`.
    """
    paths, missing = ([outbox], 0) if alone else passes_of(outbox)
    notices = []
    if missing:
        notices.append(
            f"{count(missing, 'outbox', 'outboxes')} of earlier passes of {printable(str(outbox))} cannot be found:"
            " recipients reached by them are shown as suppressed"
        )
    with ExitStack() as stack:
        readers = [stack.enter_context(OutboxReader.open(path)) for path in paths]
        returned, unmatched = _returned(readers, notices)
        sources = [
            Source.of(reader, path, returned=each) for path, reader, each in zip(paths, readers, returned, strict=True)
        ]
        source = sources[0] if len(sources) == 1 else Source.joined(sources)
        yield replace(source, returned=replace(source.returned, unmatched=unmatched)), notices


def _returned(readers: Sequence[OutboxReader], notices: list[str]) -> tuple[list[Returned], int]:
    """What came back about each run, and how much is matched to none."""
    found, unmatched, lists = [], 0, set[str]()
    last_began = max(reader.started_at or reader.created_at for reader in readers)
    for reader in readers:
        used = reader.info.suppression_list
        if used is None or reader.is_rehearsal or not is_there(used):
            found.append(Returned())
            continue
        try:
            with open_used(used) as store:
                until = _next_of_list(store, readers, last_began)
                found.append(returned_of(reader, store, until=until))
                if used.name not in lists:
                    lists.add(used.name)
                    unmatched += store.count_unmatched()
        except SuppressionError as error:
            notices.append(f"what came back cannot be read: {error}")
            found.append(Returned())
    return found, unmatched


def _next_of_list(store: SuppressionStore, passes: Sequence[OutboxReader], after: float) -> float:
    """When another campaign of the same list was begun, so that opt-outs from then on are about that one."""
    list_id = scope_of(passes[-1].campaign)
    own = {reader.run_id for reader in passes}
    later = (run.began_at for run in store.runs() if run.list_id == list_id and run.run_id not in own)
    return min((began for began in later if began > after), default=math.inf)


def returned_of(reader: OutboxReader, store: SuppressionStore, *, until: float = math.inf) -> Returned:
    """What came back about the run of `reader`; opt-outs that name no run, up to `until` (wall clock)."""
    events = store.returned(reader.run_id)
    list_id = scope_of(reader.campaign)
    if list_id is not None and reader.started_at is not None and reader.started_at < until:
        events += _found(reader, store.opted_out(list_id, since=reader.started_at, to=until))
    rows = {event.row for event in events if event.row is not None}
    paths, seen = [], set[int]()
    for each in sorted(reader.find(rows=rows) if rows else [], key=lambda found: found.id):
        paths.append(SentPath(each.id, each.row, each.forward_path, is_copy=each.row in seen))
        seen.add(each.row)
    return fold_returned(events, paths)


def _found(reader: OutboxReader, events: Sequence[ReturnedEvent]) -> list[ReturnedEvent]:
    """The opt-outs of addresses that had got a message of the run by then, with its row and delivery."""
    keys = {event.key for event in events} - {""}
    by_path = {each.forward_path.lower(): each for each in (reader.find(paths=keys) if keys else []) if each.was_sent}
    found = []
    for event in events:
        sent = by_path.get(event.key)
        if sent is not None and sent.first_at is not None and sent.first_at <= event.at:
            found.append(event._replace(row=sent.row, delivery=sent.id))
    return found
