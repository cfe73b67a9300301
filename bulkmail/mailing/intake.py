"""Mail that came back, from where it lies to the suppression list: read, matched, stored, and only then put away."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import field
from typing import Protocol

from bulkmail.feedback.matching import Arrived, Matcher, VerifyUnsubscribe
from bulkmail.feedback.report import read_report
from bulkmail.mailbox.ports import FetchedMail, MailSource
from bulkmail.mailing.looking_up import outbox_of
from bulkmail.model.feedback_event import EventSink, FeedbackEvent, FeedbackKind, KnownRun, Proof, RunRegister
from bulkmail.model.lazy_dataclass import dataclass

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

    `also` are runs that the store need not know.  `observe` is told each event after it is durable, or at once with
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
