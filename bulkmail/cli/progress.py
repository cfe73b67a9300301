"""Telling how a run goes: a bar on a terminal, lines in a pipe, JSON lines for machines, or nothing."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Protocol, TextIO

from bulkmail.cli.machine import JsonErrors, put
from bulkmail.cli.words import about, by_relay, pace, say_waiting, slowed
from bulkmail.engine.contracts import DeliveryResult, Event, Notice, ResultBatch, Sessions, Slowed
from bulkmail.mailing.pulse import OUTCOMES, Pulse
from bulkmail.model.schedule import Planned
from bulkmail.model.tally import Status
from bulkmail.model.timing import Hold
from bulkmail.report.planned import as_object as planned_object
from bulkmail.report.slowdowns import as_object
from bulkmail.text import count

MODES = ("auto", "bar", "plain", "json", "none")
EVERY = 5.0  # seconds between two plain lines


class Progress(Protocol):
    """Shown while something long is under way; a context manager."""

    def __enter__(self) -> Progress: ...
    def __exit__(self, *exc_info: object) -> None: ...
    def step(self, what: str, *, done: int, total: int | None = None) -> None:
        """`done` rows of `what` ("reading", "checking") are done."""

    def begin(self, total: int) -> None:
        """Sending begins, with `total` open deliveries."""

    def planned(self, planned: Planned) -> None:
        """When the rows of a run with planned times are due."""

    def observe(self, event: Event) -> None:
        """An event from the engine."""

    def note(self, text: str) -> None:
        """Something that should be read."""


def make_progress(mode: str, stream: TextIO | None = None) -> Progress:
    """The progress for `mode`, one of `MODES`; `auto` is a bar on a terminal that can draw one, else plain lines."""
    stream = stream or sys.stderr
    if mode == "auto":
        mode = "bar" if stream.isatty() and os.environ.get("TERM") != "dumb" else "plain"
    if isinstance(stream, JsonErrors) and mode == "json":
        stream = stream.events
    if mode == "bar":
        from bulkmail.cli.bar import ProgressBar

        return ProgressBar(stream)
    return {"plain": Plain, "json": JsonLines, "none": Silent}[mode](stream)


class Silent:
    """Says nothing."""

    def __init__(self, stream: TextIO) -> None:
        self.stream: TextIO | None = stream

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *exc_info: object) -> None:
        return None

    def step(self, what: str, *, done: int, total: int | None = None) -> None:
        return None

    def begin(self, total: int) -> None:
        return None

    def planned(self, planned: Planned) -> None:
        return None

    def observe(self, event: Event) -> None:
        if isinstance(event, Notice):
            self.note(event.text)

    def note(self, text: str) -> None:
        self.say(f"note: {text}")

    def say(self, line: str) -> None:
        """One line on the stream; a reader that has gone away is no reason to stop sending."""
        try:
            if self.stream is not None:
                self.stream.write(line + "\n")
                self.stream.flush()
        except (OSError, ValueError):
            self.stream = None


class Plain(Silent):
    """A line now and then, for logs and to be read aloud: `sent 1,200 of 5,000 (24 %), 2 rejected, 240/s, …`."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.pulse = Pulse()
        self._said = time.monotonic()
        self._waiting = Hold(0.0, "")

    def begin(self, total: int) -> None:
        self._said = time.monotonic()
        self.pulse = Pulse()
        self.pulse.begin(total, self._said)

    def observe(self, event: Event) -> None:
        now = time.monotonic()
        self.pulse.note(event, now)
        match event:
            case ResultBatch() if now - self._said >= EVERY:
                self._said = now
                self.say(sentence(self.pulse, now))
            case Hold(until=until, why=why):
                # Each connection that runs dry says so, and what is due next moves by fractions of a second.
                if why != self._waiting.why or until - self._waiting.until >= EVERY:
                    self._waiting = event
                    self.say(say_waiting(event))
            case Notice():
                self.note(event.text)


def sentence(pulse: Pulse, now: float) -> str:
    """Where it stands, in a line."""
    share = f" ({pulse[Status.ACCEPTED] * 100 // pulse.total} %)" if pulse.total else ""
    others = "".join(f", {number:,} {status.value.replace('_', ' ')}" for status, number in pulse.troubles)
    left = about(pulse.remaining(now))
    open_now = sum(pulse.connections.values())
    return (
        f"sent {pulse[Status.ACCEPTED]:,} of {pulse.total:,}{share}{others}, {pace(pulse, now)}"
        + (f", {count(open_now, 'connection')}" if open_now else "")
        + (f", {left}" if left else "")
        + by_relay(pulse.through)
        + "".join(f"; {one}" for one in slowed(pulse))
    )


class JsonLines(Plain):
    """An object a line: `{"event": "settled", "at": "2026-…Z", "row": 7, "status": "accepted", "code": 250, …}`."""

    def note(self, text: str) -> None:
        self._put({"event": "note", "text": text})

    def step(self, what: str, *, done: int, total: int | None = None) -> None:
        self._put({"event": what, "done": done, "total": total})

    def begin(self, total: int) -> None:
        super().begin(total)
        self._put({"event": "sending", "total": total})

    def planned(self, planned: Planned) -> None:
        self._put({"event": "planned", **planned_object(planned)})

    def _put(self, event: Mapping[str, object]) -> None:
        try:
            if self.stream is not None:
                put(self.stream, event)
        except (OSError, ValueError):
            self.stream = None

    def observe(self, event: Event) -> None:
        now = time.monotonic()
        self.pulse.note(event, now)
        match event:
            case ResultBatch(results=results):
                for result in results:
                    self._put(_settled(result))
                if now - self._said >= EVERY:
                    self._said = now
                    self._put(figures(self.pulse, now))
            case Hold():
                self._put({"event": "waiting", "until": event.until, "why": event.why})
            case Sessions():
                self._put({"event": "sessions", "open": event.open, "relay": event.relay})
            case Notice():
                self._put({"event": "note", "text": event.text, "relay": event.relay})
            case Slowed():
                self._put({"event": "slowed", **as_object(event.slowdown, time.time())})


def _settled(result: DeliveryResult) -> dict[str, object]:
    delivery, attempt = result.delivery, result.attempt
    return {
        "event": "settled",
        "row": delivery.row,
        "address": delivery.forward_path,
        "is_copy": delivery.is_copy,
        "status": delivery.status.value,
        "attempt": delivery.tries,
        "relay": attempt.relay,
        "stage": attempt.event.stage.value,
        "code": getattr(attempt.event, "code", None),
        "reply": str(attempt.event),
    }


def figures(pulse: Pulse, now: float) -> dict[str, object]:
    """Where it stands, for machines; `left_seconds` is None while that is unknown."""
    left, wall = pulse.remaining(now), time.time()
    return {
        "event": "progress",
        "total": pulse.total,
        "done": pulse.done,
        **{status.value: pulse[status] for status in OUTCOMES},
        "rate": round(pulse.rate(now), 2),
        "mean_rate": round(pulse.mean_rate(now), 2),
        "left_seconds": None if left is None else round(left, 1),
        "connections": dict(pulse.connections),
        "slowed": [as_object(each, wall) for each in pulse.slowdowns if not each.is_over(wall)],
    }
