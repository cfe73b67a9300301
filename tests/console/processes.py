"""`bulkmail console` as a process, and a browser of few words that asks it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlencode


@dataclass
class Console:
    """A console at work."""

    process: subprocess.Popen[str]
    port: int
    token: str

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, fields: dict[str, str] | None = None) -> tuple[int, str, str]:
        """Status, where a redirect leads, and the text."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {
            "Cookie": f"bulkmail-{self.port}={self.token}",
            "Sec-Fetch-Site": "same-origin",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        try:
            connection.request(method, path, urlencode(fields or {}) if method == "POST" else None, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheader("location") or "", answer.read().decode()
        finally:
            connection.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=20)


@contextmanager
def run_console(
    folder: Path, state: Path, program: Sequence[str] = (sys.executable, "-m", "bulkmail")
) -> Iterator[Console]:
    """The console over `folder`, on a free port."""
    environment = {**os.environ, "BULKMAIL_STATE_DIR": str(state), "XDG_CONFIG_HOME": str(state / "config")}
    process = subprocess.Popen(
        [*program, "console", "--no-open", "--port", "0"],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)/\?token=(\S+)", process.stdout.readline())
        assert found
        console = Console(process, int(found[1]), found[2])
        deadline = time.monotonic() + 30
        while True:
            with suppress(OSError, HTTPException):
                console.ask("GET", "/log")
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield console
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def write_list(file: Path, rows: int) -> None:
    """A list with this many recipients."""
    file.write_text("email,name,city\n" + "".join(f"user{n}@example.org,User {n},Graz\n" for n in range(rows)))
