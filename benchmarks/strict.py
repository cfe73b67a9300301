"""How a server with limits of its own is treated: bulkmail beside nodemailer's pool and stock aiosmtplib.

    python benchmarks/strict.py [--rows 2000] [--rate 14] [--sessions 3]

The server takes this many messages in any second and answers `454 4.7.0 Throttling failure` to all others; it takes so
many sessions and answers `421 4.7.0 Too many connections` to all others.  What counts is who was taken, how many were
turned away for good by their own program, and how often the server had to complain.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections import deque
from multiprocessing.managers import DictProxy
from pathlib import Path
from typing import ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import blast

from tests.servers.programs import free_port, wait_until_listening


class Strict(asyncio.Protocol):
    """One session with the server.  `notes` is shared with anyone who watches."""

    open = 0
    taken: ClassVar[deque[float]] = deque()
    rate = 14
    sessions = 3
    counts: ClassVar[dict[str, int]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.buffer = b""
        self.is_data = False
        Strict.open += 1
        if Strict.open > Strict.sessions:
            Strict.note("refused sessions")
            self.say("421 4.7.0 Too many connections")
            self.transport.close()
        else:
            self.say("220 strict ESMTP")

    def connection_lost(self, error: Exception | None) -> None:
        Strict.open -= 1

    @classmethod
    def note(cls, what: str) -> None:
        cls.counts[what] = cls.counts.get(what, 0) + 1

    def say(self, text: str) -> None:
        self.transport.write(text.encode() + b"\r\n")

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while True:
            end, step = (self.buffer.find(b"\r\n.\r\n"), 5) if self.is_data else (self.buffer.find(b"\r\n"), 2)
            if end < 0:
                return
            line, self.buffer = self.buffer[:end], self.buffer[end + step :]
            if self.is_data:
                self.is_data = False
                self.end()
            else:
                self.command(line.decode("ascii", "replace"))

    def command(self, line: str) -> None:
        verb = line[:4].upper()
        if verb == "EHLO":
            self.say("250-strict\r\n250-PIPELINING\r\n250 ENHANCEDSTATUSCODES")
        elif verb == "DATA":
            self.is_data = True
            self.say("354 go on")
        elif verb == "QUIT":
            self.say("221 bye")
            self.transport.close()
        else:
            self.say("250 2.0.0 ok")

    def end(self) -> None:
        now = time.monotonic()
        while Strict.taken and Strict.taken[0] <= now - 1:
            Strict.taken.popleft()
        first = Strict.counts.setdefault("first", int(now * 1000)) / 1000
        if len(Strict.taken) >= Strict.rate:
            Strict.note("throttled")
            if now - first > 10:
                Strict.note("throttled after 10 s")
            self.say("454 4.7.0 Throttling failure: Maximum sending rate exceeded.")
            return
        Strict.taken.append(now)
        Strict.note("taken")
        Strict.counts["last"] = int(now * 1000)
        self.say("250 2.0.0 taken")


async def serve(port: int, rate: int, sessions: int, counts: DictProxy[str, int]) -> None:
    Strict.rate, Strict.sessions, Strict.counts = rate, sessions, {}
    server = await asyncio.get_running_loop().create_server(Strict, "127.0.0.1", port)
    async with server:
        while True:
            await asyncio.sleep(0.2)
            counts.update(Strict.counts)


def run_server(port: int, rate: int, sessions: int, counts: DictProxy[str, int]) -> None:
    asyncio.run(serve(port, rate, sessions, counts))


def run_side(side: str, folder: Path, port: int) -> tuple[float, str]:
    """Seconds, and what the program says at its end."""
    environment = {"PYTHONPATH": str(blast.HERE.parent), "BULKMAIL_STATE_DIR": str(folder / "state")}
    if side == "bulkmail":
        command = [sys.executable, "-m", "bulkmail", "send", "--recipients", "list.csv", "--yes", "--progress", "none"]
        command += ["--from", "Shop <shop@example.org>", "--subject", "Hello {{ name }}", "--text", "message.txt"]
        command += ["--outbox", "run.outbox", "--report", "run.csv", "--relay", f"smtp://127.0.0.1:{port}?tls=off"]
    elif side == "nodemailer":
        command = [
            "node",
            str(blast.HERE / "nodemailer.js"),
            "list.csv",
            "message.txt",
            "message.html",
            str(port),
            "10",
        ]
    else:
        script = str(blast.HERE / "recipe.py")
        command = [sys.executable, script, "list.csv", "message.txt", "message.html", str(port), "10"]
    begun = time.monotonic()
    done = subprocess.run(
        command, cwd=folder, env={**blast.os.environ, **environment}, capture_output=True, text=True, check=False
    )
    return time.monotonic() - begun, (done.stdout.strip() or done.stderr.strip()).splitlines()[-1][:200]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--rate", type=int, default=14, help="messages a second")
    parser.add_argument("--sessions", type=int, default=3)
    parser.add_argument("--only", choices=("bulkmail", "nodemailer", "aiosmtplib"))
    arguments = parser.parse_args()
    for side in [arguments.only] if arguments.only else ["bulkmail", "nodemailer", "aiosmtplib"]:
        with tempfile.TemporaryDirectory(prefix="bulkmail-strict-") as name, multiprocessing.Manager() as manager:
            folder, counts, port = Path(name), manager.dict(), free_port()
            blast.write_files(folder, arguments.rows, enclose=False)
            process = multiprocessing.get_context("spawn").Process(
                target=run_server, args=(port, arguments.rate, arguments.sessions, counts), daemon=True
            )
            process.start()
            wait_until_listening(port)
            seconds, said = run_side(side, folder, port)
            time.sleep(0.5)
            process.terminate()
            found = dict(counts)
            span = (found.pop("last", 0) - found.pop("first", 0)) / 1000
            taken = found.get("taken", 0)
            speed = taken / span if span else 0.0
            print(f"{side:12} {seconds:7.1f} s, {taken:,} of {arguments.rows:,} taken, {speed:.2f} a second; {found}")
            print(f"{'':12} {said}", flush=True)


if __name__ == "__main__":
    main()
