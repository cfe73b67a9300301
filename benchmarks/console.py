"""What the console costs and withstands: python benchmarks/console.py kills|stops|tabs|pages|polls|hostile

`kills`: the console ends (SIGKILL and Ctrl-C by turns) at random while a rehearsal goes on that it started, --times
times; each run must end with each recipient written to once.  `stops`: how soon a run of a terminal is seen, and how
soon the Stop button is obeyed.  `tabs`: what a message costs in a send with and without ten open pages of its run, by
turns.  `pages`: the time of each page over a run of --rows rows.  `polls`: the memory of the console over 20,000 looks
at a run.  `hostile`: uploads of 10 GB, a slow form, 10,000 streams.  Linux only.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPException
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bulkmail.cli.init import make_campaign
from bulkmail.model.delivery import AttemptResult, Mark, Settlement, Status, settle
from bulkmail.model.retry import RetryPolicy
from bulkmail.model.verdict import judge
from bulkmail.outbox.entries import Entry
from bulkmail.outbox.outbox import Outbox
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.outbox.run_info import RunInfo
from tests.console.processes import Console, run_console, write_list
from tests.outbox.making import OK, UNKNOWN, make_recipient
from tests.report.making import STARTED
from tests.servers.sinks import run_sink


def campaign_in(root: Path, rows: int) -> Path:
    """A campaign named spring with a short message and this many recipients; the folder."""
    folder = root / "spring"
    make_campaign("newsletter", folder)
    (folder / "message.html").unlink()
    (folder / "message.txt").write_text("Dear {{ name }},\n\nspring is here.\n")
    settings = (folder / "campaign.toml").read_text().replace('html = "message.html"\n', "")
    (folder / "campaign.toml").write_text(settings.replace('rate = "20/s"\n', ""))
    write_list(folder / "people.csv", rows)
    return folder


def wait_for(is_so: Callable[[], object], what: str, seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise SystemExit(f"not in {seconds:.0f} s: {what}")
        time.sleep(0.02)


def is_over(outbox: Path) -> bool:
    with OutboxReader.open(outbox) as reader:
        return reader.is_running is None and reader.is_loaded and not reader.tally().open


def begin(console: Console) -> None:
    """Starts a rehearsal of the only campaign."""
    campaign = re.findall(r'href="(/c/[^"/]+)"', console.ask("GET", "/")[2])[0]
    status, target, text = console.ask("POST", f"{campaign}/rehearse")
    if status != 303:
        raise SystemExit(f"the rehearsal was not started: {status} {target} {text[:300]}")


# -- kills


def kills(asked: argparse.Namespace) -> None:
    exact, seed = 0, random.randrange(10**6)
    rng = random.Random(seed)
    for number in range(asked.times):
        with tempfile.TemporaryDirectory(prefix="bulkmail-console-", ignore_cleanup_errors=True) as name:
            root = Path(name) / "mail"
            folder = campaign_in(root, asked.rows)
            outbox = folder / "runs" / "spring.rehearsal.outbox"
            if asked.full_disk:  # what the command prints has no room
                outbox.parent.mkdir()
                (outbox.parent / "spring.console.log").symlink_to("/dev/full")
            with run_console(root, Path(name) / "state") as console:
                stop = threading.Thread(
                    target=_end_soon, args=(console, outbox, rng.uniform(0, asked.within), number % 2)
                )
                stop.start()
                with suppress(OSError, HTTPException, SystemExit):  # it may be gone before it answers
                    begin(console)
                stop.join()
            wait_for(outbox.exists, "the outbox")
            wait_for(partial(is_over, outbox), "the end of the run")
            with OutboxReader.open(outbox) as reader:
                tally = reader.tally()
            kept = list((outbox.parent / "spring.inbox" / "new").iterdir())
            recipients = {re.search(rb"^To: .*?<(.*)>", path.read_bytes(), re.M)[1] for path in kept}  # type: ignore[index]
            is_exact = tally.by_status == {Status.ACCEPTED: asked.rows} and len(kept) == len(recipients) == asked.rows
            exact += is_exact
            print(f"{number + 1}: {'exact' if is_exact else tally.by_status}", flush=True)
    print(f"{exact} of {asked.times} exact, {asked.rows:,} messages each; seed {seed}")


def _end_soon(console: Console, outbox: Path, seconds: float, is_kill: int) -> None:
    """Ends the console some time after the run has begun."""
    wait_for(outbox.exists, "the outbox")
    time.sleep(seconds)
    console.kill() if is_kill else console.interrupt()


# -- stops


def stops(asked: argparse.Namespace) -> None:
    """Seconds until a run that a terminal began is on the page, and from the button to the last try and the end."""
    seen, last, over = [], [], []
    for _ in range(asked.times):
        with tempfile.TemporaryDirectory(prefix="bulkmail-console-", ignore_cleanup_errors=True) as name:
            root, state = Path(name) / "mail", Path(name) / "state"
            folder = campaign_in(root, 20_000)
            outbox = folder / "runs" / "spring.rehearsal.outbox"
            with run_console(root, state) as console:
                process = subprocess.Popen(
                    [sys.executable, "-m", "bulkmail", "send", "spring", "--progress", "none"],
                    cwd=root, env=os.environ | {"BULKMAIL_STATE_DIR": str(state)},
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )  # fmt: skip
                wait_for(outbox.exists, "the outbox")
                began, links = time.monotonic(), []
                while not links:
                    links = re.findall(r'href="(/r/[^"/]+)"', console.ask("GET", "/")[2])
                seen.append(time.monotonic() - began)
                wait_for(lambda: "-1-" in _state_of(console, links[0]) and _started(outbox), "the first message")  # noqa: B023
                pressed = time.time()
                console.ask("POST", f"{links[0]}/stop")
                process.wait(60)
                over.append(time.time() - pressed)
            with OutboxReader.open(outbox) as reader:
                ends = [each.at + each.took for each in reader.tries_after(0, 30_000)]
            last.append(max(ends) - pressed)
    for word, values in (("seen", seen), ("last try", last), ("process over", over)):
        print(f"{word}: median {statistics.median(values):.2f} s, longest {max(values):.2f} s")


def _started(outbox: Path) -> bool:
    with OutboxReader.open(outbox) as reader:
        return bool(reader.tally()[Status.ACCEPTED])


# -- tabs


@contextmanager
def streams(console: Console, run: str, number: int) -> Iterator[list[int]]:
    """So many open pages of a run, read, and loaded again, as a browser does it; yields the bytes that each got."""
    got, ends = [0] * number, []

    def read(at: int) -> None:
        while not ends:
            with suppress(OSError, HTTPException), socket.create_connection(("127.0.0.1", console.port), 1) as line:
                line.sendall(_request(console, "GET", f"{run}/events?state={_state_of(console, run)}"))
                while not ends:
                    with suppress(TimeoutError):
                        piece = line.recv(65_536)
                        got[at] += len(piece)
                        if not piece or b"event: reload" in piece:
                            break

    readers = [threading.Thread(target=read, args=(at,)) for at in range(number)]
    for reader in readers:
        reader.start()
    try:
        yield got
    finally:
        ends.append(True)
        for reader in readers:
            reader.join()


def _request(console: Console, method: str, path: str, *lines: str) -> bytes:
    head = [
        f"{method} {path} HTTP/1.1",
        f"Host: 127.0.0.1:{console.port}",
        f"Cookie: bulkmail-{console.port}={console.token}",
        "Sec-Fetch-Site: same-origin",
        *lines,
    ]
    return ("\r\n".join(head) + "\r\n\r\n").encode()


def tabs(asked: argparse.Namespace) -> None:
    """The cost of a message in a send that ten pages look at, by turns with one that none looks at."""
    found: dict[int, list[float]] = {0: [], 10: []}
    for _ in range(asked.times):
        for number in found:
            cost, got = _sent(asked.rows, number, counts=asked.instructions)
            found[number].append(cost)
            print(f"{number} tabs: {cost / asked.rows:,.6g} a message, {got:,} bytes shown", flush=True)
    alone, watched = (statistics.median(found[number]) for number in (0, 10))
    unit = "instructions" if asked.instructions else "seconds of CPU"
    print(
        f"median {alone / asked.rows:,.6g} and {watched / asked.rows:,.6g} {unit} a message: {watched / alone - 1:+.2%}"
    )


def _sent(rows: int, pages: int, *, counts: bool) -> tuple[float, int]:
    """What a send cost its process, and how many bytes the pages got meanwhile."""
    with (
        tempfile.TemporaryDirectory(prefix="bulkmail-console-", ignore_cleanup_errors=True) as name,
        run_sink() as sink,
    ):
        root, state = Path(name) / "mail", Path(name) / "state"
        folder = campaign_in(root, rows)
        settings = (folder / "campaign.toml").read_text().replace('"sandbox:"', f'"{sink.url}"')
        (folder / "campaign.toml").write_text(settings)
        counted = Path(name) / "counted"
        valgrind = ["valgrind", "--tool=cachegrind", "--cache-sim=no", f"--cachegrind-out-file={counted}"]
        command = [sys.executable, "-m", "bulkmail", "send", "spring", "--yes", "--progress", "none"]
        environment = os.environ | {"BULKMAIL_STATE_DIR": str(state), "PYTHONHASHSEED": "0"}
        with run_console(root, state) as console:
            process = subprocess.Popen(
                [*(valgrind if counts else []), *command], cwd=root, env=environment,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            wait_for((folder / "runs" / "spring.outbox").exists, "the outbox")
            run = ""
            while not run:
                links = re.findall(r'href="(/r/[^"/]+)"', console.ask("GET", "/")[2])
                run = links[0] if links else ""
            with streams(console, run, pages) as got:
                _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode or sink.count() != rows:
                raise SystemExit(f"the send ended with {process.returncode}, the server has {sink.count()}")
        cost = usage.ru_utime + usage.ru_stime
        if counts:
            cost = float(re.findall(r"summary: (\d+)", counted.read_text())[0])
        return cost, sum(got)


# -- pages


def pages(asked: argparse.Namespace) -> None:
    """Wall and CPU time of each page over a run of many rows, the first time and later."""
    with tempfile.TemporaryDirectory(prefix="bulkmail-console-", ignore_cleanup_errors=True) as name:
        root = Path(name) / "mail"
        folder = campaign_in(root, 1_000)
        (folder / "runs").mkdir()
        began = time.perf_counter()
        make_run(folder / "runs" / "spring.outbox", asked.rows)
        print(f"{asked.rows:,} rows made in {time.perf_counter() - began:.0f} s", flush=True)
        began = time.perf_counter()
        with run_console(root, Path(name) / "state") as console:
            print(f"start: {time.perf_counter() - began:.2f} s, of which CPU {_cpu(console.process.pid):.2f} s")
            run = _timed(console, "/", find=r'href="(/r/[^"/]+)"')
            campaign = _timed(console, "/", find=r'href="(/c/[^"/]+)"')
            last = asked.rows - 3
            for path in (
                run, run, f"{run}/rows", f"{run}/rows?q=user{last}@", f"{run}/rows?q={last}", f"{run}/rows?q=nobody@",
                f"{run}/rows?status=rejected", f"{run}/rows?status=rejected&q=user{asked.rows - 49}@",
                f"{run}/rows/{last}",
                f"{run}/doubt", f"{run}/cancel", f"{run}/report", campaign, campaign, f"{campaign}/check",
                f"{campaign}/start", f"{campaign}/test", f"{campaign}/settings", "/returns", "/suppressions", "/log",
            ):  # fmt: skip
                _timed(console, path)
            print(f"memory {_memory(console.process.pid) / 1e6:.0f} MB")


def make_run(path: Path, rows: int) -> None:
    """A run of which nearly all was tried, in groups: a commit for each message would take hours."""
    with Outbox.create(path, campaign=None, info=RunInfo(name="spring", list_name="people.csv")) as outbox:
        outbox.record(Entry(make_recipient(number)) for number in range(1, rows + 1))
        outbox.finish_loading()
        tried = 0
        while tried < rows * 0.99:
            jobs = outbox.due(STARTED, limit=1_000, excluding=())
            marks, settlements = [], []
            for job in jobs:
                marks.append(Mark(job.delivery.id, f"<{job.delivery.id}@example.com>", STARTED, bytes(16)))
                event = UNKNOWN if job.delivery.id % 50 == 0 else OK
                attempt = AttemptResult(STARTED + tried / 100, 0.25, "smtp://mail.example.com:587", event, judge(event))
                settlements.append(Settlement(settle(job.delivery, attempt, RetryPolicy(), jitter=0.5), attempt))
                tried += 1
            outbox.write(marks)
            outbox.write(settlements)


def _timed(console: Console, path: str, find: str = "") -> str:
    cpu, began = _cpu(console.process.pid), time.perf_counter()
    status, _, text = console.ask("GET", path)
    took, cpu = time.perf_counter() - began, _cpu(console.process.pid) - cpu
    print(f"{status} {path:45} {1000 * took:6.0f} ms, CPU {1000 * cpu:4.0f} ms, {len(text) / 1000:5.1f} kB", flush=True)
    return re.findall(find, text)[0] if find else ""


def _cpu(pid: int) -> float:
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


# -- polls

# The console with its pauses left out, which writes its memory down after each 500 looks.
HURRIED = """
import os, sys
from bulkmail.console import live, run_pages
live.EVERY = run_pages.EVERY = run_pages.HEARTBEAT = 0.01
live.SHARE = 0
run_pages._EARLY = 0.0
look, looks = live.LiveFigures.look, 0
def counted(self, views):
    global looks
    looks += 1
    if looks % 500 == 0:
        with open("/proc/self/statm") as statm, open(os.environ["LOOKS_SEEN"], "a") as seen:
            seen.write(f"{looks} {int(statm.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')}\\n")
    return look(self, views)
live.LiveFigures.look = counted
from bulkmail.cli import main
sys.exit(main())
"""


def polls(asked: argparse.Namespace) -> None:
    """The memory of a console whose pages look 20,000 times at a run that goes on."""
    with tempfile.TemporaryDirectory(prefix="bulkmail-console-", ignore_cleanup_errors=True) as name:
        root, seen = Path(name) / "mail", Path(name) / "seen"
        folder = campaign_in(root, 20_000)
        settings = (folder / "campaign.toml").read_text()
        (folder / "campaign.toml").write_text(settings.replace("[sending]", f'[sending]\nrate = "{asked.rate}/s"'))
        hurried = Path(name) / "hurried.py"
        hurried.write_text(HURRIED)
        os.environ["LOOKS_SEEN"] = str(seen)
        seen.touch()
        with run_console(root, Path(name) / "state", [sys.executable, str(hurried)]) as console:
            begin(console)
            run = re.findall(r'href="(/r/[^"/]+)"', console.ask("GET", "/")[2])[0]
            began = time.perf_counter()
            with streams(console, run, 10) as got:
                wait_for(lambda: _looks(seen) >= asked.times or console.process.poll() is not None, "the looks", 3_600)
            console.ask("POST", f"{run}/stop", {"now": "1"})
        sizes = [int(line.split()[1]) for line in seen.read_text().split("\n") if line]
        quarter = len(sizes) // 4
        print(
            f"{500 * len(sizes):,} looks in {time.perf_counter() - began:.0f} s, {sum(got):,} bytes shown; memory "
            f"{sizes[0] / 1e6:.1f} MB at the beginning, {max(sizes) / 1e6:.1f} at the most, last quarter "
            f"{min(sizes[-quarter:]) / 1e6:.1f} to {max(sizes[-quarter:]) / 1e6:.1f}"
        )


def _state_of(console: Console, run: str) -> str:
    return re.findall(r'data-events="[^"]*state=([^"]*)"', console.ask("GET", run)[2])[0]


def _looks(seen: Path) -> int:
    lines = seen.read_text().split("\n")
    return int(lines[-2].split()[0]) if len(lines) > 1 else 0


# -- hostile


def hostile(asked: argparse.Namespace) -> None:
    """Uploads without an end, slow ones, and more streams than anything can hold."""
    with tempfile.TemporaryDirectory(prefix="bulkmail-console-", ignore_cleanup_errors=True) as name:
        root = Path(name) / "mail"
        folder = campaign_in(root, 3_000)
        with run_console(root, Path(name) / "state") as console:
            campaign = re.findall(r'href="(/c/[^"/]+)"', console.ask("GET", "/")[2])[0]
            before = sorted(path.name for path in folder.iterdir())
            _upload(console, f"{campaign}/list", 10_000_000_000)
            _upload(console, f"{campaign}/attachments", 10_000_000_000)
            _slow(console, f"{campaign}/save", asked.patience)
            left = sorted(path.name for path in folder.iterdir())
            print(f"files left behind: {sorted(set(left) - set(before)) or 'none'}")
            begin(console)
            run = re.findall(r'href="(/r/[^"/]+)"', console.ask("GET", "/")[2])[0]
            _many(console, f"{run}/events", asked.streams)
            _timed(console, "/")
            print(f"alive: {console.process.poll() is None}, memory {_memory(console.process.pid) / 1e6:.0f} MB")


def _upload(console: Console, path: str, size: int) -> None:
    """A file of this length, sent until the console hangs up or answers."""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="people.csv"\r\n\r\n'
    piece, sent, began, peak = b"x" * 1_000_000, 0, time.perf_counter(), 0
    with socket.create_connection(("127.0.0.1", console.port), timeout=60) as line:
        line.sendall(
            _request(console, "POST", path, "Content-Type: multipart/form-data; boundary=x", f"Content-Length: {size}")
        )
        line.sendall(head)
        answer = b""
        with suppress(OSError):
            while sent < size:
                if select.select([line], [], [], 0)[0]:
                    break
                line.sendall(piece)
                sent += len(piece)
                peak = max(peak, _memory(console.process.pid))
        with suppress(OSError):
            answer = line.recv(65_536)
    said = answer.split(b"\r\n")[0].decode() or "hung up"
    print(
        f"{path}: {said} after {sent / 1e6:,.0f} MB in {time.perf_counter() - began:.1f} s; memory {peak / 1e6:.0f} MB"
    )


def _slow(console: Console, path: str, patience: float) -> None:
    """A form of which one byte comes a second."""
    began, answer = time.perf_counter(), b""
    with socket.create_connection(("127.0.0.1", console.port), timeout=1) as line:
        form = "Content-Type: application/x-www-form-urlencoded"
        line.sendall(_request(console, "POST", path, form, "Content-Length: 100000"))
        while not answer and time.perf_counter() - began < patience:
            with suppress(TimeoutError):
                answer = line.recv(65_536)
            with suppress(OSError):
                line.sendall(b"x")
    said = answer.split(b"\r\n")[0].decode() or "no answer"
    print(f"slow form: {said} after {time.perf_counter() - began:.0f} s")


def _many(console: Console, path: str, number: int) -> None:
    """So many streams at once; what became of them."""
    lines, refused = [], 0
    for _ in range(number):
        line = socket.socket()
        line.settimeout(2)
        try:
            line.connect(("127.0.0.1", console.port))
            line.sendall(_request(console, "GET", path))
            lines.append(line)
        except OSError:
            refused += 1
            line.close()
    time.sleep(2)
    answers: Counter[str] = Counter()
    for line in lines:
        line.setblocking(False)
        with suppress(OSError):
            answer = line.recv(4096).decode("utf-8", "replace")
            answers["full" if "event: full" in answer else answer[9:12] or "closed"] += 1
            continue
        answers["waiting"] += 1
    peak = _memory(console.process.pid)
    for line in lines:
        line.close()
    print(f"{number:,} streams: {dict(answers)}, {refused:,} not connected; memory {peak / 1e6:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    kinds = parser.add_subparsers(required=True)

    def kind(run: Callable[[argparse.Namespace], None], **options: float) -> argparse.ArgumentParser:
        one = kinds.add_parser(run.__name__)
        one.set_defaults(run=run)
        for name, value in options.items():
            one.add_argument(f"--{name}", type=type(value), default=value)
        return one

    kind(kills, times=50, rows=5_000, within=3.0).add_argument("--full-disk", action="store_true")
    kind(tabs, times=7, rows=5_000).add_argument("--instructions", action="store_true")
    kind(stops, times=5)
    kind(pages, rows=1_000_000)
    kind(polls, times=20_000, rate=20)
    kind(hostile, streams=10_000, patience=70.0)
    asked = parser.parse_args()
    asked.run(asked)


if __name__ == "__main__":
    main()
