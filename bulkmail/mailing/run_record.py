"""Why a run waits and what slows it down, as its outbox notes it while it is sent."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from bulkmail.engine.contracts import DeliveryResult, Ending, Event, Slowed
from bulkmail.model.errors import OutboxError, SendingPaused
from bulkmail.model.shaper import MOST_KEPT, Slowdown, Slowdowns
from bulkmail.model.timing import Hold
from bulkmail.outbox.run_info import Pause, RunInfo
from bulkmail.report.rest import LONGEST
from bulkmail.report.slowdowns import slowdowns_of
from bulkmail.text import printable


class Notes(Protocol):
    """Where a run keeps its notes."""

    @property
    def info(self) -> RunInfo: ...

    def note(self, **changes: object) -> None:
        """Changes what `info` says."""


class RestNote:
    """Records why the run is paused, and passes events on to observers."""

    def __init__(self, outbox: Notes, observe: Callable[[Event], None]) -> None:
        self._outbox = outbox
        self._observe = observe
        self._is_noted = outbox.info.rest is not None

    def observe(self, event: Event) -> None:
        """An event from the engine."""
        if isinstance(event, Hold):
            self._note(event)
        elif self._is_noted and isinstance(event, DeliveryResult):
            self._clear()
        self._observe(event)

    def ended(self, ending: Ending) -> None:
        """The run is over; what it was waiting for no longer matters, unless that is why it ended."""
        error = ending.error
        if isinstance(error, SendingPaused):
            self._note(error.hold)
        elif self._is_noted:
            self._clear()

    def _note(self, hold: Hold) -> None:
        self._is_noted = True
        self._outbox.note(rest=Pause.of(replace(hold, why=printable(hold.why, LONGEST))))

    def _clear(self) -> None:
        self._is_noted = False
        self._outbox.note(rest=None)


log = logging.getLogger("bulkmail.mailing")

EVERY = 2.0  # seconds between two entries, unless another relay or provider throttles or is paused


class SlowdownNote:
    """Records what is slowed down, and passes events on to observers."""

    def __init__(self, outbox: Notes, observe: Callable[[Event], None]) -> None:
        self._outbox = outbox
        self._observe = observe
        self._slowdowns = Slowdowns(slowdowns_of(outbox.info))
        self._is_changed = False
        self._written_at = time.monotonic()

    def known(self) -> list[Slowdown]:
        """What is known, by the monotonic clock."""
        ahead = time.monotonic() - time.time()
        return [slowdown.shifted(ahead) for slowdown in self._slowdowns]

    def observe(self, event: Event) -> None:
        """An event from the engine."""
        if isinstance(event, Slowed):
            before = self._slowdowns.note(event.slowdown)
            self._is_changed = True
            is_news = before is None or bool(event.slowdown.until and not before.until)
            # Where hundreds of domains complain, each is news, and writing all of them for each would take its time.
            if is_news and len(self._slowdowns) < MOST_KEPT:
                self._write()
        if self._is_changed and (isinstance(event, Hold) or time.monotonic() - self._written_at >= EVERY):
            self._write()
        self._observe(event)

    def ended(self) -> None:
        """The run is over."""
        if self._is_changed:
            self._write()

    def _write(self) -> None:
        self._is_changed = False
        self._written_at = time.monotonic()
        try:
            self._outbox.note(slowdowns=tuple(self._slowdowns))
        except OutboxError as error:  # the journal meets the same, and ends the run with it
            log.warning("what slowed the run down was not noted", extra={"why": str(error)})


def lift_rests(outbox: Notes) -> None:
    """Ends all pauses of earlier runs, because the user says so."""
    known = slowdowns_of(outbox.info)
    if any(slowdown.until for slowdown in known):
        outbox.note(slowdowns=tuple(replace(slowdown, until=0.0) for slowdown in known))
