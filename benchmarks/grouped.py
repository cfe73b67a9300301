"""Several rows of one recipient in one message: does memory stay flat however many rows there are?

    python benchmarks/grouped.py --rows 1000000 --messages 300000

A list of this many rows, sorted by address or shuffled (--shuffled), is sent by `bulkmail send` as a process with
`group_by = "email"` to a rehearsal that throws the mail away.  Seen from outside, in /proc: the peak of memory.  With
--kill the process is killed once half of the messages are accepted, and the same command goes on; each message must be
accepted once, and the report must count every row.  Linux only.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bulkmail.model.tally import Status
from bulkmail.outbox.outbox_reader import OutboxReader

MOST_BYTES = 120e6
STEP = 0.1  # seconds between two looks
TEXT = """Dear {{ name }},
your order:
{% for item in rows %}
- {{ item.item }}, {{ item.price }}
{% endfor %}
Total: {{ rows | sum(attribute="price") }} EUR
"""
CAMPAIGN = """relay = "null:"
[recipients]
file = "orders.csv"
group_by = "email"
[message]
from = "Shop <shop@shop.example>"
subject = "Your order, {{ name }}"
text = "order.txt"
"""


def write_campaign(folder: Path, *, rows: int, messages: int, is_shuffled: bool) -> None:
    """A campaign with a list of `rows` rows for `messages` addresses."""
    people = [number * messages // rows for number in range(rows)]
    if is_shuffled:
        random.Random(7).shuffle(people)
    with (folder / "orders.csv").open("w", encoding="utf-8") as file:
        file.write("email,name,item,price\n")
        for number, person in enumerate(people):
            file.write(f"p{person}@example{person % 50}.com,Person {person},Item {number},{number % 90 + 10}.50\n")
    (folder / "order.txt").write_text(TEXT, encoding="utf-8")
    (folder / "campaign.toml").write_text(CAMPAIGN, encoding="utf-8")


def accepted(outbox: Path) -> int:
    """How many messages are accepted by now; 0 where that cannot be seen."""
    try:
        with OutboxReader.open(outbox) as reader:
            return reader.tally()[Status.ACCEPTED] if reader.is_loaded else 0
    except Exception:
        return 0


def live(folder: Path, *, kill_at: int = 0) -> tuple[float, float]:
    """One process: its peak of memory in bytes, and its seconds."""
    command = [sys.executable, "-m", "bulkmail", "send", ".", "--yes", "--progress", "none", "--outbox", "run.outbox"]
    command += ["--report", "run.csv"]
    begun, peak, looked = time.monotonic(), 0.0, 0.0
    process = subprocess.Popen(command, cwd=folder, env={"PYTHONPATH": str(Path(__file__).parents[1])})
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        values = dict(line.split(":", 1) for line in status.splitlines())
        peak = max(peak, int(values.get("VmHWM", "0 kB").split()[0]) * 1024)
        if kill_at and time.monotonic() - looked > 2.0:
            looked = time.monotonic()
            if accepted(folder / "run.outbox") >= kill_at:
                process.send_signal(signal.SIGKILL)
                kill_at = 0
        time.sleep(STEP)
    if process.wait() not in (0, -9):
        sys.exit(f"bulkmail send ended with {process.returncode}")
    return peak, time.monotonic() - begun


def main() -> None:
    """Prints what was seen; ends with 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--messages", type=int, default=30_000)
    parser.add_argument("--shuffled", action="store_true")
    parser.add_argument("--kill", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bulkmail-") as name:
        folder = Path(name)
        write_campaign(folder, rows=options.rows, messages=options.messages, is_shuffled=options.shuffled)
        lives = [live(folder, kill_at=options.messages // 2)] if options.kill else []
        lives.append(live(folder))
        with OutboxReader.open(folder / "run.outbox") as reader:
            by_row, by_message = reader.tally_by_row(), reader.tally()
        with (folder / "run.csv").open(encoding="utf-8") as report:
            lines = sum(1 for _ in report) - 1
    peak = max(each[0] for each in lives)
    print(
        f"{options.rows:,} rows ({'shuffled' if options.shuffled else 'sorted'}) in {by_message.messages:,} messages:"
    )
    print(f"  peak {peak / 1e6:.0f} MB (at most {MOST_BYTES / 1e6:.0f}), {sum(each[1] for each in lives):.0f} s")
    print(
        f"  accepted {by_row[Status.ACCEPTED]:,} rows, {by_message[Status.ACCEPTED]:,} messages; report {lines:,} rows"
    )
    is_whole = by_row[Status.ACCEPTED] == lines == options.rows and by_message[Status.ACCEPTED] == options.messages
    sys.exit(0 if is_whole and peak <= MOST_BYTES else 1)


if __name__ == "__main__":
    main()
