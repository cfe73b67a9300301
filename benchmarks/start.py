"""How long `bulkmail send` takes before its first byte is at the server, and how long a message to two people takes.

Run from a checkout: python benchmarks/start.py [RUNS] [OTHER_CHECKOUT]

With another checkout the two take turns, so that a busy machine is as unfair to one as to the other.  Then `bulkmail
--help` beside `import click`, and what the imports of `bulkmail send` take by package (`python -X importtime`, the
least of three runs).
"""

from __future__ import annotations

import os
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
MOST_SHOWN = 20  # packages
MESSAGE = ["--from", "Shop <shop@example.org>", "--subject", "Hello {{ name }}", "--text", "message.txt"]


class Server:
    """Takes all mail on loopback and remembers when it heard the first byte."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.first_at = 0.0
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            threading.Thread(target=self._talk, args=self._listener.accept()[:1], daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            connection.sendall(b"220 hello\r\n")
            for line in lines:
                self.first_at = self.first_at or time.perf_counter()
                verb = line[:4].upper()
                if verb == b"DATA":
                    connection.sendall(b"354 go on\r\n")
                    while lines.readline() not in (b".\r\n", b""):
                        pass
                connection.sendall(b"221 bye\r\n" if verb == b"QUIT" else b"250 fine\r\n")


def measure(checkout: Path, folder: Path, server: Server) -> tuple[float, float, float]:
    """Milliseconds: until the first byte, until the end, and of processor."""
    for leftover in folder.glob("run.*"):
        leftover.unlink()
    command = [sys.executable, "-m", "bulkmail", "send", "--recipients", "people.csv", *MESSAGE, "--yes"]
    command += ["--relay", f"smtp://127.0.0.1:{server.port}?tls=off", "--outbox", "run.outbox", "--report", "run.csv"]
    environment = dict(os.environ, PYTHONPATH=str(checkout), BULKMAIL_STATE_DIR=str(folder / "state"))
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # as installed: not compiled again at every start
    server.first_at = 0.0
    before, begun = processor(), time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    ended = time.perf_counter()
    return (server.first_at - begun) * 1e3, (ended - begun) * 1e3, (processor() - before) * 1e3


def help_times(checkout: Path, runs: int) -> tuple[float, float]:
    """Milliseconds of processor that `import click` and `bulkmail --help` take, medians."""
    environment = dict(os.environ, PYTHONPATH=str(checkout))
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    found: list[list[float]] = [[], []]
    for _ in range(runs):
        for times, arguments in zip(found, (["-c", "import click"], ["-m", "bulkmail", "--help"]), strict=True):
            before = processor()
            subprocess.run([sys.executable, *arguments], env=environment, check=True, capture_output=True)
            times.append((processor() - before) * 1e3)
    return statistics.median(found[0]), statistics.median(found[1])


def import_times(checkout: Path, folder: Path) -> dict[str, float]:
    """Milliseconds that the imports of `bulkmail send` take, by room of bulkmail and by package of others."""
    environment = dict(os.environ, PYTHONPATH=str(checkout), BULKMAIL_STATE_DIR=str(folder / "state"))
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    least: dict[str, int] = {}
    for _ in range(3):
        for leftover in folder.glob("run.*"):
            leftover.unlink()
        command = [sys.executable, "-X", "importtime", "-m", "bulkmail", "send", "--recipients", "people.csv", *MESSAGE]
        command += ["--yes", "--relay", "null:", "--outbox", "run.outbox", "--report", "run.csv"]
        said = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True).stderr
        for microseconds, module in re.findall(r"import time: +(\d+) \| +\d+ \| +(\S+)", said):
            least[module] = min(least.get(module, sys.maxsize), int(microseconds))
    packages: Counter[str] = Counter()
    for module, microseconds in least.items():
        packages[".".join(module.split(".")[: 2 if module.startswith("bulkmail.") else 1])] += microseconds
    return {package: microseconds / 1e3 for package, microseconds in packages.most_common(MOST_SHOWN)}


def processor() -> float:
    """Seconds that the processes started from here have had."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Prints the medians."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    checkouts = [Path(name).resolve() for name in sys.argv[2:]] + [HERE]
    server = Server()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "people.csv").write_text("email,name\nann@example.com,Ann\nbob@example.net,Bob\n", encoding="utf-8")
        (folder / "message.txt").write_text("Dear {{ name }},\n\nhow are you?\n", encoding="utf-8")
        times: dict[Path, list[tuple[float, float, float]]] = {checkout: [] for checkout in checkouts}
        for number in range(runs + 1):
            for checkout in checkouts:
                found = measure(checkout, folder, server)
                if number:  # the first one compiles
                    times[checkout].append(found)
        helps = {checkout: help_times(checkout, runs) for checkout in checkouts}
        imports = {checkout: import_times(checkout, folder) for checkout in checkouts}
    for checkout, found in times.items():
        first, whole, busy = (statistics.median(each) for each in zip(*found, strict=True))
        print(f"first byte {first:5.0f} ms, whole {whole:5.0f} ms, processor {busy:5.0f} ms  {checkout}")
    for checkout, imported in imports.items():
        click, ours = helps[checkout]
        print(f"import click {click:.0f} ms, bulkmail --help {ours:.0f} ms of processor: {ours / click:.2f} times")
        print(", ".join(f"{package} {milliseconds:.0f}" for package, milliseconds in imported.items()), "ms to import")


if __name__ == "__main__":
    main()
