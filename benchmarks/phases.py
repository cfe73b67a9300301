"""How much processor time each phase of a run takes a row: loading, duplicates, checks before sending, sending, report.

    python benchmarks/phases.py [--rows 100000] [--rounds 3] [--no-send] [OTHER_CHECKOUT ...]

A plain list of three columns in CSV, and a message of text and HTML whose templates print cells.  The relay is `null:`,
so that sending costs what bulkmail alone takes for it; `--no-send` leaves it out and marks all rows as accepted with
one SQL statement.  Each round is a process of its own, and with other checkouts they take turns.  Told is the median.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import gc
import inspect
import json
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
TOWNS = ("Graz", "Linz", "Wels", "Enns")
NAMES = ("Ann Example", "Bob Example", "Carol Example", "Dave Example")
SUBJECT = "{{ name }}, the tulips are here"
TEXT = "Dear {{ name }},\n\n" + "this is one of the lines that every recipient in {{ town }} gets.\n" * 8 + "\nBye\n"
HTML = "<!doctype html>\n<html><body><p>Dear {{ name }},</p>\n" + '<p style="color: #333">Some lines.</p>\n' * 30
HTML += "<p>To {{ town }}</p></body></html>\n"
_ACCEPT = (
    "INSERT INTO attempt SELECT id, id, 1.7e9 + id * 1e-3, 0.01, 'null:', 'end', 250, '2.0.0', 'Ok: queued', NULL,"
    " 'accepted', 'message', '', 1 FROM delivery",
    "UPDATE delivery SET status = 'accepted', due_at = NULL, attempts = 1, tries = 1, first_at = 1.7e9 + id * 1e-3,"
    " message_id = '<' || hex(id) || '@example.com>', last_attempt = id",
)


def write_list(path: Path, rows: int) -> None:
    """The list of every round."""
    lines = ["email,name,town\n"]
    lines += [f"person{n}@provider{n % 50}.example,{NAMES[n % 4]},{TOWNS[n % 4]}\n" for n in range(rows)]
    path.write_text("".join(lines), encoding="utf-8")


class Clock:
    """Seconds of processor time by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def add(self, phase: str, begun: float) -> None:
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.process_time() - begun

    def watch(self, owner: Any, name: str, phase: str) -> None:
        """Counts what each call of a function takes to a phase."""
        original: Callable[..., Any] = getattr(owner, name)

        if inspect.iscoroutinefunction(original):

            @functools.wraps(original)
            async def timed(*args: Any, **keywords: Any) -> Any:
                begun = time.process_time()
                try:
                    return await original(*args, **keywords)
                finally:
                    self.add(phase, begun)
        else:

            @functools.wraps(original)
            def timed(*args: Any, **keywords: Any) -> Any:
                begun = time.process_time()
                try:
                    return original(*args, **keywords)
                finally:
                    self.add(phase, begun)

        setattr(owner, name, timed)


async def measure(folder: Path, *, sends: bool) -> dict[str, float]:
    """Seconds by phase of one run over the list in `folder`; the imports are those of the checkout on the path."""
    import bulkmail
    from bulkmail.cli.program import COLLECTED_AFTER
    from bulkmail.engine.engine import Engine
    from bulkmail.mailing import mailing as mailings
    from bulkmail.outbox.outbox import Outbox
    from bulkmail.report.report import Report
    from bulkmail.report.saving import save_report

    gc.set_threshold(COLLECTED_AFTER)  # as the command does
    clock = Clock()
    clock.watch(mailings, "record", "load")
    clock.watch(Outbox, "finish_loading", "duplicates, indices")
    clock.watch(mailings, "gather", "checks")
    clock.watch(mailings, "judge", "checks")
    clock.watch(Engine, "run", "send")
    campaign = bulkmail.compose(from_="Shop <shop@example.com>", subject=SUBJECT, text=TEXT, html=HTML)
    outbox = folder / "run.outbox"
    if not sends:

        async def accept_all(self: Engine) -> object:
            return mailings.Ending()

        mailings.Engine.run = accept_all  # type: ignore[method-assign,assignment]
    await bulkmail.send(campaign, folder / "list.csv", relay="null:", outbox=outbox)
    if not sends:
        with closing(sqlite3.connect(outbox)) as connection, connection:
            for statement in _ACCEPT:
                connection.execute(statement)
    begun = time.process_time()
    report = Report.read(outbox)
    clock.add("report, counts", begun)
    begun = time.process_time()
    save_report(report, folder / "run.csv")
    clock.add("report, CSV", begun)
    return clock.seconds


def child(checkout: Path, folder: Path, *, sends: bool) -> dict[str, float]:
    """One round in a process of its own."""
    for leftover in folder.glob("run.*"):
        leftover.unlink()
    command = [sys.executable, str(Path(__file__).resolve()), "--child", str(folder)]
    environment = dict(os.environ, PYTHONPATH=str(checkout))
    command += [] if sends else ["--no-send"]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Prints the medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-send", action="store_true")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("checkouts", nargs="*", type=Path)
    options = parser.parse_args()
    if options.child is not None:
        print(json.dumps(asyncio.run(measure(options.child, sends=not options.no_send))))
        return
    checkouts = [checkout.resolve() for checkout in options.checkouts] + [HERE]
    found: dict[Path, list[dict[str, float]]] = {checkout: [] for checkout in checkouts}
    with tempfile.TemporaryDirectory() as name:
        write_list(Path(name) / "list.csv", options.rows)
        for _ in range(options.rounds):
            for checkout in random.sample(checkouts, len(checkouts)):
                found[checkout].append(child(checkout, Path(name), sends=not options.no_send))
    print(f"{options.rows:,} rows, µs of processor time a row, median of {options.rounds}")
    for checkout, rounds in found.items():
        print(checkout)
        for phase in rounds[0]:
            print(f"  {phase:20} {statistics.median(each[phase] for each in rounds) / options.rows * 1e6:7.1f}")


if __name__ == "__main__":
    main()
