"""What a run notes in its outbox while it is sent (why it waits, what slows it down), and the files that it writes."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from bulkmail.engine.contracts import Ending, Event, ResultBatch, Slowed
from bulkmail.model.errors import ConfigError, OutboxError, SendingPaused
from bulkmail.model.lazy import dataclass
from bulkmail.model.shaper import MOST_KEPT, Slowdown, Slowdowns
from bulkmail.model.timing import Hold
from bulkmail.outbox.outbox_reader import is_outbox
from bulkmail.outbox.run_info import Pause, RunInfo
from bulkmail.report.recognising import is_report
from bulkmail.report.report_files import check_folder
from bulkmail.report.rest import LONGEST
from bulkmail.report.saving import check_target
from bulkmail.report.slowdowns import slowdowns_of
from bulkmail.smtp.trace import is_trace
from bulkmail.text import printable

# -- What an outbox remembers of its run: relays and pace to resume it with, why it waits, and what slows it down.


class RunNotes(Protocol):
    """Where a run keeps its notes."""

    @property
    def info(self) -> RunInfo: ...

    def note(self, **changes: object) -> None:
        """Changes what `info` says."""


class RestNote:
    """Records why the run is paused, and passes events on to observers."""

    def __init__(self, outbox: RunNotes, observe: Callable[[Event], None]) -> None:
        self._outbox = outbox
        self._observe = observe
        self._is_noted = outbox.info.rest is not None

    def observe(self, event: Event) -> None:
        """An event from the engine."""
        if isinstance(event, Hold):
            self._note(event)
        elif self._is_noted and isinstance(event, ResultBatch):
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

    def __init__(self, outbox: RunNotes, observe: Callable[[Event], None]) -> None:
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


def lift_rests(outbox: RunNotes) -> None:
    """Ends all pauses of earlier runs, because the user says so."""
    known = slowdowns_of(outbox.info)
    if any(slowdown.until for slowdown in known):
        outbox.note(slowdowns=tuple(replace(slowdown, until=0.0) for slowdown in known))


# -- The files that a run writes: what a target is, is looked at before anything is sent.
#
# A run replaces its own kind of file only: an outbox, a report, a trace or the mail folder of a rehearsal that bulkmail
# has made.  Nothing else is overwritten, nor is what the campaign is made of, nor the other end of a link.


@dataclass(frozen=True, slots=True)
class Targets:
    """Where a run writes.  `trace` is None for none and for standard error; `inputs` are the campaign's files.

    Unless it `takes_any_format`, the name of a report says its format.
    """

    outbox: Path | None = None
    reports: tuple[Path, ...] = ()
    trace: Path | None = None
    inputs: tuple[str, ...] = ()
    takes_any_format: bool = False

    def check(self) -> None:
        """Raises `ConfigError` for a target that would cost a file that is not of its kind.  Reads a little of each."""
        for report in self.reports:
            if self.outbox is not None and report.parent == self.outbox.parent and not report.parent.exists():
                continue  # that folder is made for the outbox
            (check_folder if self.takes_any_format else check_target)(report)
        kinds = [("--outbox", self.outbox, is_outbox, "an outbox"), ("--trace", self.trace, is_trace, "a trace")]
        kinds += [("the report", report, is_report, "a report of bulkmail") for report in self.reports]
        taken: dict[str, str] = {}
        for what, path, is_ours, expected in kinds:
            if path is None:
                continue
            self._refuse_input(what, path)
            if path.is_symlink() and not path.exists():
                raise ConfigError(f"{what} {_say(path)}: is a link that leads nowhere", hint="name the file itself")
            if path.exists() and _is_filled(path) and not is_ours(path):
                raise ConfigError(
                    f"{what} {_say(path)}: this file is not {expected}, and would be overwritten",
                    hint="name another file, or move this one away",
                )
            if (other := taken.setdefault(os.path.realpath(path), what)) != what:
                raise ConfigError(f"{what} {_say(path)}: is the file of {other}, too", hint="name another file")

    def _refuse_input(self, what: str, path: Path) -> None:
        for file in self.inputs:
            if path.exists() and os.path.exists(file) and os.path.samefile(path, file):
                raise ConfigError(
                    f"{what} {_say(path)}: the campaign itself is made of this file, and it would be overwritten",
                    hint="name another file",
                )


def _is_filled(path: Path) -> bool:
    """Whether there is something to lose; a device takes what it is given.  The other end of a link may be empty."""
    return path.is_dir() or (path.is_file() and (path.is_symlink() or path.stat().st_size > 0))


def _say(path: Path) -> str:
    return printable(str(path), 4_000)
