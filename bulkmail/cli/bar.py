"""The progress bar on a terminal."""

from __future__ import annotations

from collections import Counter
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from bulkmail.cli.progress import say_waiting
from bulkmail.engine.ports import Event, Notice, Sessions, Settled, Waiting
from bulkmail.model.delivery import Status
from bulkmail.model.units import count


class Bar:
    """One line a step; the sending line counts what was accepted, and says what was not."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream)
        self._progress = self._fresh()
        self._tasks: dict[str, TaskID] = {}
        self._counts: Counter[Status] = Counter()
        self._open: dict[str, int] = {}  # sessions with each relay

    def _fresh(self) -> Progress:
        return Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            refresh_per_second=4,
        )

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """What was shown stays on the screen; what comes next is shown below it."""
        for task in self._progress.tasks:
            if task.total is None:
                self._progress.update(task.id, total=task.completed)
        self._progress.stop()
        self._progress = self._fresh()
        self._tasks.clear()

    def _task(self, what: str, total: int | None) -> TaskID:
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total, note="")
        return self._tasks[what]

    def step(self, what: str, *, done: int, total: int | None = None) -> None:
        self._progress.update(self._task(what, total), completed=done, total=total)

    def begin(self, total: int) -> None:
        self._task("sending", total)

    def observe(self, event: Event) -> None:
        if isinstance(event, Notice):
            self.note(event.text)
            return
        task = self._tasks.get("sending")
        if task is None:
            return
        match event:
            case Settled(delivery=delivery):
                self._counts[delivery.status] += 1
                self._progress.update(task, advance=not delivery.status.is_open, note=self._note())
            case Sessions():
                self._open[event.relay] = event.open
                self._progress.update(task, note=self._note())
            case Waiting():
                self._progress.update(task, note=say_waiting(event))

    def note(self, text: str) -> None:
        self._progress.console.print(f"note: {text}", markup=False, highlight=False)

    def _note(self) -> str:
        troubles = [
            f"{self._counts[status]:,} {status.value.replace('_', ' ')}"
            for status in (Status.DEFERRED, Status.REJECTED, Status.EXPIRED, Status.IN_DOUBT)
            if self._counts[status]
        ]
        if troubles:
            return ", ".join(troubles)
        if len(self._open) > 1:
            return "connections: " + ", ".join(f"{relay} {number}" for relay, number in self._open.items())
        number = sum(self._open.values())
        return count(number, "connection") if number else ""
