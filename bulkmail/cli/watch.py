"""`status --watch`: a run looked at again and again, from another terminal than the one that sends."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bulkmail.cli.words import about
from bulkmail.model.quantities import say_rate
from bulkmail.model.tally import Tally
from bulkmail.outbox.outbox_reader import OutboxReader

if TYPE_CHECKING:
    from rich.console import Group

EVERY = 1.0  # seconds between two looks
EVERY_PLAIN = 5.0  # where each look is a line of its own
_WINDOW = 15  # looks that the rate is taken from

Lines = Callable[[OutboxReader, Tally], list[str]]
"""What is said of one look."""


class Watch:
    """The looks so far; each opens the outbox, reads and closes it again."""

    def __init__(self, path: Path, lines: Lines) -> None:
        self._path = path
        self._lines = lines
        self._seen: deque[tuple[float, int]] = deque(maxlen=_WINDOW)
        self.is_over = False

    def look(self, now: float) -> list[str]:
        """What there is to say now.  `now` is in seconds of a clock that never goes back."""
        with OutboxReader.open(self._path) as reader:
            tally = reader.tally()
            said = self._lines(reader, tally)
            is_running = reader.is_running is not None
        self._seen.append((now, -tally.open))
        if is_running and (speed := self._speed()):
            left = about(tally.open / speed)
            said.append(f"{say_rate(speed)} now" + (f", {left}" if left else ""))
        # A run that no process sends may be resumed: that is worth waiting for.
        self.is_over = not is_running and not tally.open
        return said

    def _speed(self) -> float:
        """Messages settled a second, over the last looks."""
        (began, before), (ended, after) = self._seen[0], self._seen[-1]
        return (after - before) / (ended - began) if ended > began else 0.0


def watch(path: Path, lines: Lines) -> None:
    """Shows the run until it is over, or Ctrl-C: on a terminal in place, elsewhere a line for each change."""
    seen = Watch(path, lines)
    try:
        if sys.stdout.isatty():
            _in_place(seen)
        else:
            _line_by_line(seen)
    except KeyboardInterrupt:
        return  # that is how looking ends


def watch_json(path: Path, said: Callable[[OutboxReader, Tally], str]) -> None:
    """A line of JSON at once and for each change, until the run is over, or Ctrl-C."""
    last = ""
    try:
        while True:
            with OutboxReader.open(path) as reader:
                tally = reader.tally()
                now = said(reader, tally)
                is_over = reader.is_running is None and not tally.open
            if now != last:
                click.echo(now)
                sys.stdout.flush()
            last = now
            if is_over:
                return
            time.sleep(EVERY)
    except KeyboardInterrupt:
        return  # that is how looking ends


def _in_place(seen: Watch) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, markup=False)
    shown: tuple[list[str], int] | None = None
    with Live(console=console, auto_refresh=False) as live:
        while not seen.is_over:
            picture = seen.look(time.monotonic()), console.width
            if picture != shown:
                live.update(_picture(*picture), refresh=True)
            shown = picture
            if not seen.is_over:
                time.sleep(EVERY)


def _picture(lines: list[str], width: int) -> Group:
    from rich.console import Group
    from rich.text import Text

    from bulkmail.cli.bar import fitted

    return Group(*fitted([Text(line) for line in lines], width))


def _line_by_line(seen: Watch) -> None:
    last = ""
    while not seen.is_over:
        said = "; ".join(" ".join(line.split()) for line in seen.look(time.monotonic()))
        if said != last:
            click.echo(said)
            sys.stdout.flush()
        last = said
        if not seen.is_over:
            time.sleep(EVERY_PLAIN)
