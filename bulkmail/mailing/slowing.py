"""Remembers in the outbox which relays and providers slow a run down, for whoever looks on and for the next run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from bulkmail.engine.contracts import Event, Slowed, Waiting
from bulkmail.model.errors import OutboxError
from bulkmail.model.slowdown import MOST_KEPT, Slowdown, Slowdowns
from bulkmail.outbox.outbox import Outbox
from bulkmail.report.slowdowns import SETTING, recorded, slowdowns_of

log = logging.getLogger("bulkmail.mailing")

EVERY = 2.0  # seconds between two entries, unless somebody new complains or has to be left alone


class SlowdownNote:
    """Stands between the engine and whoever watches it."""

    def __init__(self, outbox: Outbox, observe: Callable[[Event], None]) -> None:
        self._outbox = outbox
        self._observe = observe
        self._slowdowns = Slowdowns(slowdowns_of(outbox.settings))
        self._is_changed = False
        self._written_at = time.monotonic()

    def known(self) -> list[Slowdown]:
        """What is known, by the monotonic clock."""
        ahead = time.monotonic() - time.time()
        return [slowdown.shifted(ahead) for slowdown in self._slowdowns]

    def observe(self, event: Event) -> None:
        """The engine tells."""
        if isinstance(event, Slowed):
            before = self._slowdowns.note(event.slowdown)
            self._is_changed = True
            is_news = before is None or bool(event.slowdown.until and not before.until)
            # Where hundreds of domains complain, each is news, and writing all of them for each would take its time.
            if is_news and len(self._slowdowns) < MOST_KEPT:
                self._write()
        if self._is_changed and (isinstance(event, Waiting) or time.monotonic() - self._written_at >= EVERY):
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
            self._outbox.set_setting(SETTING, recorded(self._slowdowns))
        except OutboxError as error:  # the journal meets the same, and ends the run with it
            log.warning("what slowed the run down was not noted", extra={"why": str(error)})


def lift_rests(outbox: Outbox) -> None:
    """Nobody who wanted to be left alone in an earlier run is any longer, by the user's word."""
    known = slowdowns_of(outbox.settings)
    if any(slowdown.until for slowdown in known):
        outbox.set_setting(SETTING, recorded(replace(slowdown, until=0.0) for slowdown in known))
