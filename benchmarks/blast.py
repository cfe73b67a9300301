"""How fast a list goes out: bulkmail beside its peers, the same message to the same smtp-sink.

    python benchmarks/blast.py --rows 100000 --runs 5
    python benchmarks/blast.py --rows 100000 --runs 3 --sides bulkmail go nodemailer recipe smtp-source
    python benchmarks/blast.py --rows 1000 --enclose
    python benchmarks/blast.py --rows 20000 --names ascii
    python benchmarks/blast.py --rows 20000 --message heavy --sides bulkmail-1 bulkmail-2

bulkmail-1 composes in the sending process alone, bulkmail-2 has a process that composes.  --message heavy is a page
with a loop, conditions and filters.

With --enclose each message brings one file of 5 MB that all have, and one of 50 KB that is the row's own.

Each run is a whole process: start, read the list, send, report, end.  The sides alternate, so that a busy machine is as
unfair to one as to the other; the medians count, and the processor time more than the wall.  Needs Postfix' smtp-sink;
nodemailer needs Node.js with npm, go needs a Go compiler.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
NAMES = (
    "Ann",
    "Bob",
    "Carla",
    "Jörg Müller",
    "Dan",
    "Eva",
    "Frank",
    "Зоя",
    "Gita",
    "Hugo",
    "Ines",
    "美咲",
    "Jan",
    "Kim",
)
NAMES_OF = {
    "mixed": NAMES,
    "ascii": tuple(name for name in NAMES if name.isascii()),
    "foreign": tuple(name for name in NAMES if not name.isascii()),
    "quoted": ("O'Neil, Ann", 'Bob "Bo" Lee', "Dr. Eva (Graz)"),
}
TOWNS = ("Bern", "Graz", "Köln", "Lyon", "Oslo", "Porto", "Riga")
PARAGRAPH = "The workshop in {{ town }} has moved to the other side of the river, where there is room for all of us. "
TEXT = "Dear {{ name }},\n\n" + "\n\n".join([PARAGRAPH * 3] * 3) + "\n\nYours,\nthe shop\n"
HTML = (
    "<!doctype html><html><body><h1>Dear {{ name }},</h1>\n"
    + f"<p>{PARAGRAPH * 3}</p>\n" * 3
    + "<p>Yours,<br>the shop</p></body></html>\n"
)


HEAVY_HTML = (
    "<!doctype html><html><body><h1>Dear {{ name }},</h1>\n"
    + "{% for number in range(40) %}{% if number is odd %}<p>{{ name | upper }}: {{ number * 3 }} of {{ town }}</p>"
    + "{% else %}<p>{{ town | title }}</p>{% endif %}\n{% endfor %}</body></html>\n"
)


@dataclass(frozen=True)
class Run:
    """One whole process.  `peak_bytes` is its largest resident size, `cpu` its user and system time in seconds."""

    seconds: float
    cpu: float
    peak_bytes: int
    accepted: int


SHARED, OWN = 5_000_000, 50_000  # bytes of the files enclosed


def write_files(folder: Path, rows: int, *, enclose: bool, names: Sequence[str] = NAMES, html: str = HTML) -> None:
    if enclose:
        (folder / "own").mkdir()
        (folder / "shared.pdf").write_bytes(os.urandom(SHARED))
        for row in range(rows):
            (folder / f"own/person{row}.pdf").write_bytes(os.urandom(OWN))
    (folder / "message.txt").write_text(TEXT, encoding="utf-8")
    (folder / "message.html").write_text(html, encoding="utf-8")
    with (folder / "list.csv").open("w", encoding="utf-8", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(["email", "name", "town"])
        for row in range(rows):
            name, town = names[row % len(names)], TOWNS[row % len(TOWNS)]
            writer.writerow([f"person{row}@provider{row % 50}.example", name, town])


@contextmanager
def sink(port: int) -> Iterator[None]:
    program = shutil.which("smtp-sink", path=f"{os.environ['PATH']}:/usr/sbin")
    if not program:
        sys.exit("smtp-sink is missing; it comes with Debian's package postfix")
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen([program, *user, f"127.0.0.1:{port}", "1000"])
    try:
        for _ in range(100):
            if process.poll() is not None:
                sys.exit(f"smtp-sink cannot listen at port {port}: is another one running?")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


def measure(command: Sequence[str], folder: Path, accepted: Callable[[str], int]) -> Run:
    """Runs `command` in `folder`; `accepted` finds in its output (or in the folder) how many were accepted."""
    output = folder / "output"
    with output.open("wb") as target:
        begun = time.perf_counter()
        # bulkmail need not be installed: this checkout's is measured.
        environment = dict(os.environ, PYTHONPATH=str(HERE.parent))
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # as installed: not compiled again at every start
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=target, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    words = output.read_text(encoding="utf-8", errors="replace")
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)}\nended with {process.returncode}:\n{words[-4000:]}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Run(seconds, usage.ru_utime + usage.ru_stime, peak, accepted(words))


def run_bulkmail(
    folder: Path, *, port: int, connections: int, enclose: bool, depth: int = 0, relay: str = "", processes: int = 0
) -> Run:
    for leftover in folder.glob("run.*"):
        leftover.unlink()
    command = [sys.executable, "-m", "bulkmail", "send", "--recipients", "list.csv", "--yes", "--progress", "none"]
    command += ["--from", "Shop <shop@example.org>", "--subject", "Hello {{ name }}"]
    command += ["--text", "message.txt", "--html", "message.html", "--outbox", "run.outbox", "--report", "run.csv"]
    if processes:
        command += ["--processes", str(processes)]
    if enclose:
        command += ["--attach", "shared.pdf", "--attach", "own/{{ email.partition('@')[0] }}.pdf"]
    command += [
        "--relay",
        relay or f"smtp://127.0.0.1:{port}?tls=off{f'&depth={depth}' if depth else ''}",
        "--connections",
        str(connections),
    ]

    def accepted(_: str) -> int:
        with (folder / "run.csv").open(encoding="utf-8-sig", newline="") as report:
            return sum(row["delivery_status"] == "accepted" for row in csv.DictReader(report))

    return measure(command, folder, accepted)


def run_nodemailer(folder: Path, *, port: int, connections: int, enclose: bool) -> Run:
    node = shutil.which("node") or sys.exit("node is missing; without it: --only bulkmail")
    install("nodemailer")
    command = [
        node,
        str(HERE / "nodemailer.js"),
        "list.csv",
        "message.txt",
        "message.html",
        str(port),
        str(connections),
    ]
    command += ["enclose"] if enclose else []
    return measure(command, folder, lambda words: int(json.loads(words.splitlines()[-1])["accepted"]))


def install(package: str) -> Path:
    """The folder of a package, which npm gets as package.json pins it."""
    folder = HERE / "node_modules" / package
    if not folder.exists():
        subprocess.run(["npm", "install", "--silent", "--no-package-lock"], cwd=HERE, check=True)
    return folder


def run_recipe(folder: Path, *, port: int, connections: int, enclose: bool) -> Run:
    command = [sys.executable, str(HERE / "recipe.py"), "list.csv", "message.txt", "message.html"]
    return measure(
        [*command, str(port), str(connections)],
        folder,
        lambda words: int(json.loads(words.splitlines()[-1])["accepted"]),
    )


def run_go(folder: Path, *, port: int, connections: int, enclose: bool) -> Run:
    program = folder / "go_loop"
    if not program.exists():
        go = shutil.which("go") or sys.exit("go is missing; leave it out of --sides")
        subprocess.run([go, "build", "-o", str(program), str(HERE / "go_loop.go")], check=True)
    command = [str(program), "list.csv", "message.txt", "message.html", str(port), str(connections)]
    return measure(command, folder, lambda words: int(json.loads(words.splitlines()[-1])["accepted"]))


def run_smtp_source(folder: Path, *, port: int, connections: int, enclose: bool) -> Run:
    """Postfix' own load generator: one constant message of the same size."""
    source = shutil.which("smtp-source", path=f"{os.environ['PATH']}:/usr/sbin") or sys.exit("smtp-source is missing")
    rows = sum(1 for _ in (folder / "list.csv").open(encoding="utf-8")) - 1
    command = [source, "-d", "-s", str(connections), "-m", str(rows), "-l", "2500", f"127.0.0.1:{port}"]
    return measure(command, folder, lambda _: rows)


SIDES = {
    "bulkmail": run_bulkmail,
    "bulkmail-1": partial(run_bulkmail, processes=1),
    "bulkmail-2": partial(run_bulkmail, processes=2),
    "nodemailer": run_nodemailer,
    "go": run_go,
    "recipe": run_recipe,
    "smtp-source": run_smtp_source,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=1, help="of each side")
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--port", type=int, default=2525, help="where smtp-sink is started")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=["bulkmail", "nodemailer"], help="in this order")
    parser.add_argument(
        "--names", choices=NAMES_OF, default="mixed", help="the recipients' names (quoted: bulkmail alone)"
    )
    parser.add_argument("--message", choices=["plain", "heavy"], default="plain", help="heavy: bulkmail alone")
    parser.add_argument("--enclose", action="store_true", help="files in every message")
    arguments = parser.parse_args()
    names = list(arguments.sides)
    if arguments.enclose and set(names) - {"bulkmail", "bulkmail-1", "bulkmail-2", "nodemailer"}:
        parser.error("only bulkmail and nodemailer know --enclose")
    is_ours = all(side.startswith("bulkmail") for side in names)
    if (arguments.names == "quoted" or arguments.message == "heavy") and not is_ours:
        parser.error("the other sides know neither names with quotes nor the heavy message: --sides bulkmail")
    runs: dict[str, list[Run]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="bulkmail-blast-") as name, sink(arguments.port):
        folder = Path(name)
        html = HEAVY_HTML if arguments.message == "heavy" else HTML
        write_files(folder, arguments.rows, enclose=arguments.enclose, names=NAMES_OF[arguments.names], html=html)
        for _ in range(arguments.runs):
            for side in names:
                run = SIDES[side](
                    folder, port=arguments.port, connections=arguments.connections, enclose=arguments.enclose
                )
                print(line(side, run, rows=arguments.rows), flush=True)
                if run.accepted != arguments.rows:
                    sys.exit(f"{side} had {run.accepted:,} of {arguments.rows:,} messages accepted")
                runs[side].append(run)
    if arguments.runs > 1:
        for side in names:
            print(line(f"{side}, median", median(runs[side]), rows=arguments.rows))
    first = next((side for side in names if side.startswith("bulkmail")), "")
    ours = median(runs[first]) if first else None
    for side in names if ours else ():
        if side != first:
            other = median(runs[side])
            print(
                f"{first} beside {side}: {other.seconds / ours.seconds:.2f} times as fast, "
                f"{other.cpu / ours.cpu:.2f} times less processor time"
            )


def median(runs: Sequence[Run]) -> Run:
    return Run(
        statistics.median(run.seconds for run in runs),
        statistics.median(run.cpu for run in runs),
        int(statistics.median(run.peak_bytes for run in runs)),
        runs[0].accepted,
    )


def line(name: str, run: Run, *, rows: int) -> str:
    speed, cpu, peak = rows / run.seconds, run.cpu / rows * 1e6, run.peak_bytes / 1e6
    return (
        f"{name:20} {run.accepted:>9,} accepted {run.seconds:8.1f} s {speed:8,.0f} messages/s"
        f" {cpu:7.0f} µs of processor a message {peak:6.0f} MB peak"
    )


if __name__ == "__main__":
    main()
