"""How long `bulkmail send` takes before its first octet is at the server, and how long a letter to two people takes.

Run from a checkout: python benchmarks/start.py [RUNS] [OTHER_CHECKOUT]

With another checkout the two take turns, so that a busy machine is as unfair to one as to the other.
"""

from __future__ import annotations

import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
LETTER = ["--from", "Shop <shop@example.org>", "--subject", "Hello {{ name }}", "--text", "letter.txt"]


class Server:
    """Takes all mail on loopback and remembers when it heard the first octet."""

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
    """Milliseconds: until the first octet, until the end, and of processor."""
    for leftover in folder.glob("run.*"):
        leftover.unlink()
    command = [sys.executable, "-m", "bulkmail", "send", "--recipients", "people.csv", *LETTER, "--yes"]
    command += ["--relay", f"smtp://127.0.0.1:{server.port}?tls=off", "--outbox", "run.outbox", "--report", "run.csv"]
    environment = dict(os.environ, PYTHONPATH=str(checkout), BULKMAIL_STATE_DIR=str(folder / "state"))
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # as installed: not compiled anew at every start
    server.first_at = 0.0
    before, begun = processor(), time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    ended = time.perf_counter()
    return (server.first_at - begun) * 1e3, (ended - begun) * 1e3, (processor() - before) * 1e3


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
        (folder / "letter.txt").write_text("Dear {{ name }},\n\nhow are you?\n", encoding="utf-8")
        times: dict[Path, list[tuple[float, float, float]]] = {checkout: [] for checkout in checkouts}
        for number in range(runs + 1):
            for checkout in checkouts:
                found = measure(checkout, folder, server)
                if number:  # the first one compiles
                    times[checkout].append(found)
    for checkout, found in times.items():
        first, whole, busy = (statistics.median(each) for each in zip(*found, strict=True))
        print(f"first octet {first:5.0f} ms, whole {whole:5.0f} ms, processor {busy:5.0f} ms  {checkout}")


if __name__ == "__main__":
    main()
