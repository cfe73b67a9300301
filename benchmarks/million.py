"""A list that is interrupted again and again: does memory stay flat, and is everyone written to once?

    python benchmarks/million.py --recipients 1000000 --interruptions 5

`bulkmail send` runs as a process against Postfix' smtp-sink.  Each time the sink has taken another share of the list,
the process is killed (SIGKILL and Ctrl-C by turns), and the same command goes on.  Then the same with --beside
recipients.  From outside, in /proc, are seen: the peak of memory, file descriptors and threads.  Tasks of the event
loop no one can see from outside; a `sitecustomize` of this script's counts them from inside each process.

The sink keeps nothing but a count; that it was everyone, and once, is read from outbox and report.  Linux only.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import blast

from bulkmail.model.tally import Status
from bulkmail.outbox.outbox_reader import OutboxReader
from tests.servers.sinks import Sink, run_sink

LARGEST_GROWTH = 20e6  # bytes that the long list may take more than the short one
DEPTH = 2  # messages of a connection that can be without an answer: the sink offers PIPELINING and no CHUNKING
KINDS = (signal.SIGKILL, signal.SIGINT)
STEP = 0.1  # seconds between two looks

# Counts the tasks that are not done, in a thread, as long as the process lives.
WATCH = """
import os, sys, threading, time
def look():
    while True:
        time.sleep(1.0)
        tasks = sys.modules.get("asyncio.tasks")
        known = getattr(tasks, "_scheduled_tasks", None) or getattr(tasks, "_all_tasks", None)
        if known is not None:
            try:
                number = sum(not task.done() for task in list(known))
            except RuntimeError:  # it changed meanwhile
                continue
            with open(os.environ["TASKS_SEEN"], "a") as file:
                file.write(f"{number}\\n")
threading.Thread(target=look, daemon=True).start()
"""


@dataclass
class Life:
    """One process from its start to its end.  Lists hold a value for each look."""

    begun: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    ended_by: str = ""
    peak_bytes: int = 0
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    tasks: list[int] = field(default_factory=list)
    first: int | None = None  # the look that saw the first message gone
    marks: int = 0  # messages whose end was on its way when it was killed

    def look(self, pid: int) -> None:
        """Notes how the process stands; nothing once it has ended."""
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return
        values = dict(line.split(":", 1) for line in status.splitlines())
        if "VmHWM" in values:  # a process that has just ended has none
            self.peak_bytes = max(self.peak_bytes, int(values["VmHWM"].split()[0]) * 1024)
            self.descriptors.append(descriptors)
            self.threads.append(int(values["Threads"]))


@dataclass(frozen=True)
class Course:
    """All processes of one list, and what came of it.

    `lost` counts recipients who are neither accepted nor in doubt, or not exactly once in the report; `surplus` the
    messages that the sink took beyond those.
    """

    recipients: int
    lives: Sequence[Life]
    accepted: int
    in_doubt: int
    lost: int
    surplus: int
    most_in_doubt: int

    @property
    def peak_bytes(self) -> int:
        return max(life.peak_bytes for life in self.lives)


def command_of(sink: Sink, connections: int) -> list[str]:
    command = [sys.executable, "-m", "bulkmail", "send", "--recipients", "list.csv", "--yes", "--progress", "none"]
    command += ["--from", "Shop <shop@example.org>", "--subject", "Hello {{ name }}"]
    command += ["--text", "message.txt", "--html", "message.html", "--outbox", "run.outbox"]
    # Named, because a short list would get a page as well, and the two shall do the same.
    command += ["--report", "run.csv", "--report", "run.json"]
    return [*command, "--relay", sink.url, "--connections", str(connections)]


def live(command: Sequence[str], folder: Path, sink: Sink, *, until: float, kind: signal.Signals | None) -> Life:
    """One process, which gets `kind` as soon as the sink has taken `until` messages."""
    life, seen, before = Life(), folder / "tasks", sink.count()
    seen.write_text("")
    environment = dict(os.environ, PYTHONPATH=f"{folder / 'watch'}:{blast.HERE.parent}", TASKS_SEEN=str(seen))
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            life.look(process.pid)
            taken = sink.count()
            if life.first is None and taken > before:
                life.first = len(life.descriptors)
            if kind is not None and taken >= until:
                process.send_signal(kind)
                life.ended_by, kind = kind.name, None
            time.sleep(STEP)
    life.seconds = time.monotonic() - life.begun
    life.tasks = [int(line) for line in seen.read_text().split()]
    expected = {"SIGKILL": {-9}, "SIGINT": {3}, "": {0, 4}}[life.ended_by]
    if process.returncode not in expected:
        words = (folder / "output").read_text(errors="replace")[-4000:]
        sys.exit(f"bulkmail send ended with {process.returncode} and not {expected}:\n{words}")
    if life.ended_by == "SIGKILL":
        life.marks = count_marks(folder / "run.outbox")
    return life


def count_marks(outbox: Path) -> int:
    with closing(sqlite3.connect(f"file:{outbox}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM delivery WHERE ending_at IS NOT NULL").fetchone()[0])


def run(recipients: int, *, interruptions: int, connections: int, within: Path) -> Course:
    """A list of this many, interrupted so often."""
    folder = within / str(recipients)
    (folder / "watch").mkdir(parents=True)
    (folder / "watch/sitecustomize.py").write_text(WATCH)
    blast.write_files(folder, recipients, enclose=False)
    lives = []
    with run_sink() as sink:
        command = command_of(sink, connections)
        for number in range(interruptions + 1):
            kind = KINDS[number % len(KINDS)] if number < interruptions else None
            until = recipients * (number + 1) / (interruptions + 1)
            lives.append(live(command, folder, sink, until=until, kind=kind))
            print(line_of(f"{recipients:,}, process {number + 1}", lives[-1]), flush=True)
        return judge(folder, recipients, lives, sink, connections=connections)


def judge(folder: Path, recipients: int, lives: Sequence[Life], sink: Sink, *, connections: int) -> Course:
    """What outbox, report and sink say."""
    with OutboxReader.open(folder / "run.outbox") as reader:
        tally = reader.tally()
    accepted, in_doubt = tally[Status.ACCEPTED], tally[Status.IN_DOUBT]
    reported: Counter[str] = Counter()
    missing = recipients
    for number, (address, status) in enumerate(rows_of(folder / "run.csv")):
        missing -= address == f"person{number}@provider{number % 50}.example"  # in the order of the list, each once
        reported[status] += 1
    if reported != {status.value: number for status, number in tally.by_status.items() if number}:
        sys.exit(f"the report says {dict(reported)}, and the outbox {tally}")
    kills = sum(life.ended_by == "SIGKILL" for life in lives)
    return Course(
        recipients,
        lives,
        accepted,
        in_doubt,
        lost=missing + recipients - accepted - in_doubt + max(0, accepted - sink.count()),
        surplus=max(0, sink.count() - accepted - in_doubt),
        most_in_doubt=kills * connections * DEPTH,
    )


def rows_of(report: Path) -> Iterator[tuple[str, str]]:
    with report.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            yield row["email"], row["delivery_status"]


def line_of(name: str, life: Life) -> str:
    end = f"{life.ended_by}, {life.marks} under way" if life.ended_by == "SIGKILL" else life.ended_by or "the end"
    # The watch looks at tasks once a second, from the start of the loop on.
    columns = {
        "descriptors": life.descriptors[life.first :],
        "threads": life.threads[life.first :],
        "tasks": life.tasks,
    }
    figures = "   ".join(f"{title} {early_late(values)}" for title, values in columns.items())
    return f"{name:24}{life.seconds:8.1f} s {life.peak_bytes / 1e6:7.1f} MB peak   {figures}   until {end}"


def early_late(values: Sequence[int]) -> str:
    """The median of the second and of the fourth fifth: neither the opening of sessions nor their end."""
    if not values:
        return "–"
    part = max(1, len(values) // 5)
    early, late = values[part : 2 * part] or values, values[3 * part : 4 * part] or values
    return f"{statistics.median(early):.0f} → {statistics.median(late):.0f}, at most {max(values)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipients", type=int, default=1_000_000)
    parser.add_argument("--beside", type=int, default=10_000, help="recipients of the short list")
    parser.add_argument("--interruptions", type=int, default=5)
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="where list and outbox are made; a million take 2 GB")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bulkmail-million-", dir=arguments.folder) as name:
        short, long = (
            run(
                recipients,
                interruptions=arguments.interruptions,
                connections=arguments.connections,
                within=Path(name),
            )
            for recipients in (arguments.beside, arguments.recipients)
        )
    print(f"\n{'recipients':24}{short.recipients:>16,}{long.recipients:>16,}")
    figures = {
        "time, s": lambda course: f"{sum(life.seconds for life in course.lives):,.1f}",
        "peak memory, MB": lambda course: f"{course.peak_bytes / 1e6:.1f}",
        "descriptors, at most": lambda course: f"{max(max(life.descriptors) for life in course.lives)}",
        "threads, at most": lambda course: f"{max(max(life.threads) for life in course.lives)}",
        "tasks, at most": lambda course: f"{max(max(life.tasks, default=0) for life in course.lives)}",
        "accepted": lambda course: f"{course.accepted:,}",
        "in doubt": lambda course: f"{course.in_doubt} (of {course.most_in_doubt})",
        "lost": lambda course: f"{course.lost}",
        "twice": lambda course: f"{course.surplus}",
    }
    for title, figure in figures.items():
        print(f"{title:24}{figure(short):>16}{figure(long):>16}")
    growth = long.peak_bytes - short.peak_bytes
    print(f"peak memory grew by {growth / 1e6:.1f} MB; {LARGEST_GROWTH / 1e6:.0f} are allowed")
    faults = [f"{course.recipients:,}: {fault}" for course in (short, long) for fault in faults_of(course)]
    if growth > LARGEST_GROWTH:
        faults.append("memory is not flat")
    sys.exit("\n".join(faults) if faults else 0)


def faults_of(course: Course) -> Iterator[str]:
    """What must not be."""
    if course.lost:
        yield f"{course.lost} lost"
    if course.surplus:
        yield f"{course.surplus} twice"
    if course.in_doubt > course.most_in_doubt:
        yield f"{course.in_doubt} in doubt"


if __name__ == "__main__":
    main()
