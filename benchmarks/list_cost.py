"""What the suppression list costs a message, in instructions: python benchmarks/list_cost.py [--rows 2000]

Sends to smtp-sink (of Postfix) under valgrind, which counts the same on a busy machine: with a list of 100,000 entries
of others, and without one; small and large runs are subtracted, so that starting does not count.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bulkmail.suppression.file import SqliteSuppressions
from bulkmail.suppression.ports import Addition

LEAST = 200  # rows of the small run
BAR = 2.0  # percent
SEND = """
import sys
from pathlib import Path
import anyio
import bulkmail
rows = [{"email": f"person.{n}@mail{n % 50}.example.org", "name": f"Person {n}"} for n in range(int(sys.argv[1]))]
campaign = bulkmail.compose(from_="shop@shop.example", subject="Hello {{ name }}", text="Dear {{ name }},\\n")
mailer = bulkmail.Mailer(sys.argv[2], suppressions=Path(sys.argv[3]) if sys.argv[3] else None)
report = anyio.run(lambda: mailer.send(campaign, rows, outbox=Path(sys.argv[4])))
assert report.accepted == len(rows), report
"""


def instructions(rows: int, relay: str, file: Path | None, folder: Path) -> int:
    """How many a run of `rows` messages takes."""
    counted = subprocess.run(
        [
            *("valgrind", "--tool=callgrind", f"--callgrind-out-file={folder / 'out'}", sys.executable, "-c", SEND),
            *(str(rows), relay, str(file or ""), str(folder / f"{rows}-{bool(file)}.outbox")),
        ],
        check=True,
        env={**os.environ, "BULKMAIL_STATE_DIR": str(folder / "state"), "PYTHONHASHSEED": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    found = re.search(r"Collected : (\d+)", counted.stderr)
    assert found is not None, counted.stderr
    return int(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--rows", type=int, default=2_000)
    asked = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="bulkmail-list-") as name:
        folder = Path(name)
        file = folder / "suppressions.db"
        with SqliteSuppressions(file) as store:
            store.import_((Addition(f"gone.{n}@example.net") for n in range(100_000)), why="benchmark")
        with subprocess.Popen(["smtp-sink", "-u", "nobody", f"127.0.0.1:{port}", "100"]) as sink:
            time.sleep(1)
            relay = f"smtp://127.0.0.1:{port}?tls=off"
            by_list = {
                chosen: (instructions(asked.rows, relay, chosen, folder) - instructions(LEAST, relay, chosen, folder))
                / (asked.rows - LEAST)
                for chosen in (None, file)
            }
            sink.terminate()
    without, with_list = by_list[None], by_list[file]
    more = 100 * (with_list / without - 1)
    print(
        f"{without:,.0f} instructions a message without a list, {with_list:,.0f} with one: {more:+.1f} % (bar {BAR:+})"
    )


if __name__ == "__main__":
    main()
