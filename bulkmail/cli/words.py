"""The numbers of a run in words, the same in a bar, in a line and from another terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from collections.abc import Mapping
from typing import TextIO

from bulkmail.mailing.pulse import OUTCOMES, Pulse
from bulkmail.model.quantities import say_duration, say_rate
from bulkmail.model.schedule import say_until
from bulkmail.model.tally import Status
from bulkmail.model.timing import Hold
from bulkmail.report.slowdowns import name_of, treatment
from bulkmail.text import count, printable

SOON = 3600.0  # seconds
MOST_SLOWED = 4  # relays and providers that a line names

_STYLES = {
    Status.ACCEPTED: "green",
    Status.DEFERRED: "yellow",
    Status.REJECTED: "red",
    Status.EXPIRED: "red",
    Status.IN_DOUBT: "magenta",
}


def outcomes(pulse: Pulse) -> list[tuple[str, str]]:
    """`"1,200 accepted"` and what else there is, each with its colour."""
    return [
        (f"{pulse[status]:,} {status.value.replace('_', ' ')}", _STYLES[status])
        for status in OUTCOMES
        if pulse[status] or status is Status.ACCEPTED
    ]


def pace(pulse: Pulse, now: float) -> str:
    """`"240/s now, 235/s mean"`."""
    return f"{say_rate(pulse.rate(now))} now, {say_rate(pulse.mean_rate(now))} mean"


def about(seconds: float | None) -> str:
    """`"about 3 min 20 s left"`; empty when that is unknown, or nothing is left."""
    return f"about {say_duration(max(1.0, round(seconds)))} left" if seconds else ""


def sessions(pulse: Pulse) -> list[str]:
    """How many connections are open and, of several relays, what each has."""
    if len(pulse.connections) < 2:
        number = sum(pulse.connections.values())
        return [count(number, "connection")] if number else []
    return [
        f"{printable(relay, 40)} {pulse.through[relay]:,} by {count(number, 'connection')}"
        for relay, number in pulse.connections.items()
    ]


def slowed(pulse: Pulse) -> list[str]:
    """`"google paused until 14:05:10"`, `"the relay main 12/s, 3 connections"`: what is slowed down now."""
    now, has_several = time.time(), len(pulse.connections) > 1
    said = [
        f"{name_of(slowdown, has_several=has_several)} {treated}"
        for slowdown in pulse.slowdowns
        if (treated := treatment(slowdown, now))
    ]
    return said if len(said) <= MOST_SLOWED else [*said[:MOST_SLOWED], f"{len(said) - MOST_SLOWED} more"]


def say_waiting(event: Hold) -> str:
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


def screen_width() -> int:
    """Columns for what goes to standard output: the terminal's, from 40 to 100, or 80 where there is none."""
    return max(40, min(100, shutil.get_terminal_size().columns)) if sys.stdout.isatty() else 80


def wrapped(text: str, *, indent: int = 0, on: TextIO | None = None) -> str:
    """`text` for `on`, which is standard error: on a terminal broken between words, later lines `indent` columns in."""
    if not (on or sys.stderr).isatty():
        return text
    width = max(20, shutil.get_terminal_size().columns)
    return textwrap.fill(text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def step(what: str, command: str) -> list[str]:
    """What to do next, for standard output: a command that does not fit beside has a line of its own, to be copied."""
    line = f"{what}: {command}"
    if not sys.stdout.isatty() or len(line) <= shutil.get_terminal_size().columns:
        return [line]
    return [f"{what}:", f"  {command}"]
