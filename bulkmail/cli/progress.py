"""Telling how a run goes: a bar on a terminal, lines in a pipe, JSON lines for machines, or nothing."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Protocol, TextIO

from bulkmail.engine.ports import Event, Notice, Sessions, Settled, Waiting
from bulkmail.model.delivery import Status
from bulkmail.model.reply import printable
from bulkmail.model.window import say_until

MODES = ("auto", "bar", "plain", "json", "none")
SOON = 3600.0  # seconds
EVERY = 5.0  # seconds between two plain lines


class Progress(Protocol):
    """Shown while something long is under way; a context manager."""

    def __enter__(self) -> Progress: ...
    def __exit__(self, *exc_info: object) -> None: ...
    def step(self, what: str, *, done: int, total: int | None = None) -> None:
        """So many rows of `what` ("reading", "checking") are done."""

    def begin(self, total: int) -> None:
        """Sending begins: so many deliveries are open."""

    def observe(self, event: Event) -> None:
        """The engine tells."""

    def note(self, text: str) -> None:
        """Something that should be read."""


def make_progress(mode: str, stream: TextIO | None = None) -> Progress:
    """The progress for `mode`, one of `MODES`; `auto` is a bar on a terminal and plain lines elsewhere."""
    stream = stream or sys.stderr
    if mode == "auto":
        mode = "bar" if stream.isatty() else "plain"
    if mode == "bar":
        from bulkmail.cli.bar import Bar

        return Bar(stream)
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
    """A line now and then: `sent 1,200 of 5,000 (24 %), 2 rejected, 240/s`."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.counts: Counter[Status] = Counter()
        self.relays: Counter[str] = Counter()  # accepted through each
        self.total = 0
        self.began = self._said = time.monotonic()

    def begin(self, total: int) -> None:
        self.total = total
        self.began = self._said = time.monotonic()

    def observe(self, event: Event) -> None:
        match event:
            case Settled():
                self.counts[event.delivery.status] += 1
                if event.delivery.status is Status.ACCEPTED:
                    self.relays[event.attempt.relay] += 1
                if time.monotonic() - self._said >= EVERY:
                    self._said = time.monotonic()
                    self.say(self.sentence())
            case Waiting():
                self.say(say_waiting(event))
            case Notice():
                self.note(event.text)

    def sentence(self) -> str:
        """Where it stands, in a line."""
        accepted = self.counts[Status.ACCEPTED]
        rate = sum(self.counts.values()) / max(0.001, time.monotonic() - self.began)
        others = "".join(
            f", {self.counts[status]:,} {status.value.replace('_', ' ')}"
            for status in (Status.DEFERRED, Status.REJECTED, Status.EXPIRED, Status.IN_DOUBT)
            if self.counts[status]
        )
        share = f" ({accepted * 100 // self.total} %)" if self.total else ""
        return f"sent {accepted:,} of {self.total:,}{share}{others}, {rate:,.0f}/s{by_relay(self.relays)}"


def say_waiting(event: Waiting) -> str:
    """Until when and why, to the second where it is soon."""
    now = time.time()
    soon = event.until - now < SOON
    until = time.strftime("%H:%M:%S", time.localtime(event.until)) if soon else say_until(event.until, now)
    return f"waiting until {until}: {printable(event.why)}"


def by_relay(accepted: Mapping[str, int]) -> str:
    """`"; through main 1,200, spare 40"`, if there are several."""
    if len(accepted) < 2:
        return ""
    return "; through " + ", ".join(f"{printable(relay, 60)} {number:,}" for relay, number in accepted.items())


class JsonLines(Plain):
    """An object a line: `{"event": "settled", "row": 7, "status": "accepted", "code": 250, …}`."""

    def note(self, text: str) -> None:
        self.say(json.dumps({"event": "note", "text": text}))

    def step(self, what: str, *, done: int, total: int | None = None) -> None:
        self.say(json.dumps({"event": what, "done": done, "total": total}))

    def begin(self, total: int) -> None:
        self.say(json.dumps({"event": "sending", "total": total}))

    def observe(self, event: Event) -> None:
        match event:
            case Settled(delivery=delivery, attempt=attempt):
                line = {
                    "event": "settled",
                    "row": delivery.row,
                    "address": delivery.forward_path,
                    "status": delivery.status.value,
                    "attempt": delivery.tries,
                    "relay": attempt.relay,
                    "stage": attempt.event.stage.value,
                    "code": getattr(attempt.event, "code", None),
                    "reply": str(attempt.event),
                }
            case Waiting():
                line = {"event": "waiting", "until": event.until, "why": event.why}
            case Sessions():
                line = {"event": "sessions", "open": event.open, "relay": event.relay}
            case Notice():
                line = {"event": "note", "text": event.text, "relay": event.relay}
        self.say(json.dumps(line))
