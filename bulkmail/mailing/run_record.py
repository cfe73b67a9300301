"""What an outbox remembers of its run: relays and pace, why it waits, what slows it down, the files it writes."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Protocol

import msgspec

from bulkmail.engine.contracts import Ending, Event, ResultBatch, Slowed
from bulkmail.model.campaign import Campaign
from bulkmail.model.errors import ConfigError, OutboxError, SendingPaused
from bulkmail.model.lazy import dataclass
from bulkmail.model.pace import Pace
from bulkmail.model.route import Route
from bulkmail.model.shaper import MOST_KEPT, Slowdown, Slowdowns
from bulkmail.model.timing import Hold
from bulkmail.outbox.outbox_reader import OutboxReader, is_outbox
from bulkmail.report.recognising import is_report
from bulkmail.report.report_files import check_folder
from bulkmail.report.rest import SETTING as REST
from bulkmail.report.rest import recorded as recorded_hold
from bulkmail.report.saving import check_target
from bulkmail.report.slowdowns import SETTING as SLOWDOWNS
from bulkmail.report.slowdowns import recorded as recorded_slowdowns
from bulkmail.report.slowdowns import slowdowns_of
from bulkmail.settings.parsers import find_zone
from bulkmail.smtp.trace import is_trace
from bulkmail.text import printable

# -- What an outbox remembers of its run: relays and pace to resume it with, why it waits, and what slows it down.


_FOR_EVER = 1e12  # seconds; JSON has no infinity


def to_settings(routes: Sequence[Route], pace: Pace) -> dict[str, str]:
    """What an outbox remembers of both.  A relay holds no secret, only where its password comes from."""
    return {
        "relay": " and ".join(route.label for route in routes) if len(routes) > 1 else str(routes[0].relay),
        "relay_kind": routes[0].relay.kind.value,
        "relays": msgspec.json.encode([route.label for route in routes]).decode(),
        "routes_record": msgspec.json.encode(list(routes)).decode(),
        "pace_record": pace_to_setting(pace),
    }


def recorded(path: Path) -> tuple[tuple[Route, ...], Pace]:
    """The relays and the pace that the run in `path` was begun with.  Raises `OutboxError`."""
    with OutboxReader.open(path) as reader:
        return from_settings(reader.settings, path)


def recorded_settings(path: Path) -> Mapping[str, str]:
    """The settings of the run in `path`.  Raises `OutboxError`."""
    with OutboxReader.open(path) as reader:
        return reader.settings


def recorded_campaign(path: Path) -> Campaign | None:
    """The message of the run in `path`; None where a program brought its messages.  Raises `OutboxError`."""
    with OutboxReader.open(path) as reader:
        return reader.campaign


def from_settings(settings: Mapping[str, str], path: Path) -> tuple[tuple[Route, ...], Pace]:
    """The reverse of `to_settings()`.  Raises `OutboxError` naming `path`."""
    try:
        return (
            msgspec.json.decode(settings["routes_record"], type=tuple[Route, ...]),
            msgspec.json.decode(settings["pace_record"], type=Pace, dec_hook=_read_other),
        )
    except (KeyError, ValueError, RecursionError, ConfigError, msgspec.MsgspecError) as error:
        raise OutboxError(f"{path} does not say how it was to be sent: {error}", hint="add --relay URL") from None


def pace_to_setting(pace: Pace) -> str:
    """The pace as it is kept: without a limit, which is for one start."""
    kept = replace(pace, limit=None, wait=min(pace.wait, _FOR_EVER))
    return msgspec.json.encode(kept, enc_hook=_write_other).decode()


def _write_other(value: object) -> str:
    """A time zone by its name, or, as a program may give one that has none, by its distance from UTC."""
    if not isinstance(value, tzinfo):
        raise TypeError(f"a pace with a {type(value).__name__}")
    if value is UTC:
        return "UTC"
    return getattr(value, "key", None) or datetime.fromtimestamp(0, value).strftime("%z")


def _read_other(kind: type, text: object) -> tzinfo:
    if not issubclass(kind, tzinfo):
        raise TypeError(f"a pace with a {kind.__name__}")
    if str(text)[:1] in ("+", "-"):
        zone = datetime.strptime(str(text), "%z").tzinfo
        assert zone is not None  # noqa: S101
        return zone
    return find_zone(str(text))


class Notes(Protocol):
    """Where a run keeps its settings."""

    @property
    def settings(self) -> Mapping[str, str]: ...

    def set_setting(self, key: str, value: str) -> None:
        """Keeps a note of the caller's."""


class RestNote:
    """Records why the run is paused, and passes events on to observers."""

    def __init__(self, outbox: Notes, observe: Callable[[Event], None]) -> None:
        self._outbox = outbox
        self._observe = observe
        self._is_noted = bool(outbox.settings.get(REST))

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
        self._outbox.set_setting(REST, recorded_hold(hold))

    def _clear(self) -> None:
        self._is_noted = False
        self._outbox.set_setting(REST, "")


log = logging.getLogger("bulkmail.mailing")

EVERY = 2.0  # seconds between two entries, unless another relay or provider throttles or is paused


class SlowdownNote:
    """Records what is slowed down, and passes events on to observers."""

    def __init__(self, outbox: Notes, observe: Callable[[Event], None]) -> None:
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
            self._outbox.set_setting(SLOWDOWNS, recorded_slowdowns(self._slowdowns))
        except OutboxError as error:  # the journal meets the same, and ends the run with it
            log.warning("what slowed the run down was not noted", extra={"why": str(error)})


def lift_rests(outbox: Notes) -> None:
    """Ends all pauses of earlier runs, because the user says so."""
    known = slowdowns_of(outbox.settings)
    if any(slowdown.until for slowdown in known):
        outbox.set_setting(SLOWDOWNS, recorded_slowdowns(replace(slowdown, until=0.0) for slowdown in known))


# -- The files that a run writes: what a target is, is looked at before anything is sent.
#
# A run replaces its own kind of file only: an outbox, a report, a trace or the mail folder of a rehearsal that bulkmail
# has made.  Nothing else is overwritten, nor is what the campaign is made of, nor the other end of a link.


FILES = "files"  # of the outbox: what the campaign is made of, as JSON


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


def inputs_to_setting(files: Iterable[str | os.PathLike[str]]) -> str:
    """What an outbox remembers of the campaign's files."""
    return msgspec.json.encode(list(dict.fromkeys(os.path.abspath(file) for file in files))).decode()


def recorded_inputs(settings: Mapping[str, str]) -> tuple[str, ...]:
    """The campaign's files, as an outbox remembers them."""
    try:
        return msgspec.json.decode(settings.get(FILES) or "[]", type=tuple[str, ...])
    except (msgspec.MsgspecError, RecursionError):
        return ()


def _say(path: Path) -> str:
    return printable(str(path), 4_000)
