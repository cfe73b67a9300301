"""The numbers of a run in words, the same in a bar, in a line and from another terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from collections.abc import Mapping

from bulkmail.cli.pulse import OUTCOMES, Pulse
from bulkmail.engine.ports import Waiting
from bulkmail.model.delivery import Status
from bulkmail.model.reply import printable
from bulkmail.model.units import count, say_duration
from bulkmail.model.window import say_until

SOON = 3600.0  # seconds

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
    return f"{per_second(pulse.rate(now))} now, {per_second(pulse.mean_rate(now))} mean"


def per_second(rate: float) -> str:
    """`"240/s"`, `"2.5/s"`, `"30/min"`: at least one figure that is not 0, where there is any."""
    if rate >= 10 or not rate:
        return f"{rate:,.0f}/s"
    return f"{rate:.1f}/s" if rate >= 1 else f"{rate * 60:.2g}/min"


def about(seconds: float | None) -> str:
    """`"about 3 min 20 s left"`; empty when that cannot be told, or nothing is left."""
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


def screen_width() -> int:
    """Columns for what goes to standard output: the terminal's, from 40 to 100, or 80 where there is none."""
    return max(40, min(100, shutil.get_terminal_size().columns)) if sys.stdout.isatty() else 80


def wrapped(text: str, *, indent: int = 0) -> str:
    """`text` for standard error: on a terminal broken between words, with later lines `indent` columns in."""
    if not sys.stderr.isatty():
        return text
    width = max(20, shutil.get_terminal_size().columns)
    return textwrap.fill(text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
