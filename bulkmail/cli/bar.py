"""The progress of a run on a terminal: a bar, what became of the messages, how fast and through what."""

from __future__ import annotations

import time
from collections.abc import Iterable
from threading import Lock
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from bulkmail.cli.words import about, outcomes, pace, say_waiting, sessions, slowed
from bulkmail.engine.contracts import Event, Notice
from bulkmail.mailing.pulse import Pulse
from bulkmail.model.schedule import Planned
from bulkmail.text import printable

PER_SECOND = 4  # pictures a second
_WIDEST_BAR = 40  # columns
_NARROWEST_BAR = 8


class ProgressBar:
    """A line for reading and checking, three to six while sending, none of them longer than the terminal is wide."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False, markup=False)
        self._live: Live | None = None
        self._steps: dict[str, tuple[int, int | None]] = {}
        self._pulse: Pulse | None = None
        self._lock = Lock()  # pictures are drawn by a thread of rich's

    def __enter__(self) -> ProgressBar:
        self._live = Live(
            console=self._console, refresh_per_second=PER_SECOND, get_renderable=self._picture, redirect_stdout=False
        )
        self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """What was shown stays on the screen; what comes next is shown below it."""
        if self._live is not None:
            self._live.stop()
        self._live = None
        self._steps.clear()
        self._pulse = None

    def step(self, what: str, *, done: int, total: int | None = None) -> None:
        self._steps[what] = (done, total)

    def planned(self, planned: Planned) -> None:
        return None

    def begin(self, total: int) -> None:
        self._pulse = Pulse()
        self._pulse.begin(total, time.monotonic())

    def observe(self, event: Event) -> None:
        if isinstance(event, Notice):
            self.note(event.text)
        elif self._pulse is not None:
            with self._lock:
                self._pulse.note(event, time.monotonic())

    def note(self, text: str) -> None:
        self._console.print(f"note: {printable(text, 2_000)}", markup=False, highlight=False)

    def _picture(self) -> Group:
        width = self._console.width
        lines = [
            Text(f"{what:<9} {done:,}" + (f" of {total:,}" if total is not None else ""))
            for what, (done, total) in list(self._steps.items())
        ]
        if self._pulse is not None:
            with self._lock:
                lines += sending(self._pulse, now=time.monotonic(), width=width)
        return Group(*fitted(lines, width))


def sending(pulse: Pulse, *, now: float, width: int) -> list[Text]:
    """The picture of a run that is under way."""
    said = f" {pulse.done:,} of {pulse.total:,}"
    share = min(1.0, pulse.done / pulse.total) if pulse.total else 1.0  # copies make it more messages than rows
    left = about(pulse.remaining(now))
    first = Text("sending   ")
    room = min(_WIDEST_BAR, width - len("sending   ") - len(said) - len(left) - 2)
    if room >= _NARROWEST_BAR:
        full = round(share * room)
        first.append("━" * full, style="green").append("━" * (room - full), style="bright_black")
        first.append(said)
    else:
        first.append(said.lstrip())
    if left and len(first) + len(left) + 2 <= width:
        first.append(f", {left}")
        left = ""
    second = Text("          " if width >= 60 else "")
    for number, (word, style) in enumerate(outcomes(pulse)):
        second.append(" · " if number else "").append(word, style=style)
    third = Text("          " if width >= 60 else "")
    third.append(" · ".join([pace(pulse, now), *sessions(pulse)]), style="bright_black")
    lines = [first, second, third] + ([Text(left)] if left else [])
    if given_less := slowed(pulse):
        lines.append(Text(("slowed    " if width >= 60 else "") + " · ".join(given_less), style="yellow"))
    if pulse.waiting is not None:
        lines.append(Text(("          " if width >= 60 else "") + say_waiting(pulse.waiting)))
    return lines


def fitted(lines: Iterable[Text], width: int) -> list[Text]:
    """Lines that no terminal of `width` columns wraps."""
    cut = []
    for line in lines:
        line.truncate(max(1, width), overflow="ellipsis")
        line.no_wrap = True
        cut.append(line)
    return cut
