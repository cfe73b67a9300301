"""How many machine instructions one row costs from the list to the report: the figure that no neighbour disturbs.

    python benchmarks/instructions.py [--few 1500] [--many 4500] [--names mixed] [--processes 1]

The whole `bulkmail send` to smtp-sink, 10 connections, under valgrind's callgrind, for two lengths of the list: the
difference, a row.  Start-up is in neither.  Needs valgrind and Postfix' smtp-sink.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from blast import HERE, NAMES_OF, sink, write_files


def instructions(folder: Path, *, port: int, processes: int) -> int:
    """Of one whole run."""
    valgrind = shutil.which("valgrind") or sys.exit("valgrind is missing")
    command = [valgrind, "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command += [sys.executable, "-m", "bulkmail", "send", "--recipients", "list.csv", "--yes", "--progress", "none"]
    command += ["--from", "Shop <shop@example.org>", "--subject", "Hello {{ name }}"]
    command += ["--text", "message.txt", "--html", "message.html", "--outbox", "run.outbox", "--report", "run.csv"]
    command += ["--processes", str(processes), "--connections", "10", "--relay", f"smtp://127.0.0.1:{port}?tls=off"]
    environment = dict(os.environ, PYTHONPATH=str(HERE.parent), PYTHONHASHSEED="1")
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    found = re.search(r"Collected : (\d+)", ended.stderr)
    if ended.returncode or found is None:
        sys.exit(f"ended with {ended.returncode}:\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    return int(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=1_500, help="rows")
    parser.add_argument("--many", type=int, default=4_500, help="rows")
    parser.add_argument("--names", choices=NAMES_OF, default="mixed")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--port", type=int, default=2526, help="where smtp-sink is started")
    arguments = parser.parse_args()
    found = []
    with sink(arguments.port):
        for rows in (arguments.few, arguments.many):
            with tempfile.TemporaryDirectory(prefix="bulkmail-instructions-") as name:
                write_files(Path(name), rows, enclose=False, names=NAMES_OF[arguments.names])
                found.append(instructions(Path(name), port=arguments.port, processes=arguments.processes))
            print(f"{rows:,} rows: {found[-1]:,} instructions", flush=True)
    print(f"{(found[1] - found[0]) / (arguments.many - arguments.few):,.0f} instructions a row")


if __name__ == "__main__":
    main()
