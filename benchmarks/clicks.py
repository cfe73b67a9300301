"""One-click unsubscribing under load, beside mail that comes in: python benchmarks/clicks.py [--seconds 60]

Starts `bulkmail serve` with a Maildir of bounces below [[bounces]], posts at an even rate, each on a connection of its
own, and prints how long the answers took, what was lost and what the server's processor time was.  On a machine that
does other work, too, `chrt --rr 1 python benchmarks/clicks.py` (as root) measures the server and not the others.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from bulkmail.message.unsubscribe import make_token
from bulkmail.model.recipient import Address
from bulkmail.suppression.file import SqliteSuppressions
from bulkmail.suppression.ports import EntryQuery

KEY = "0123456789abcdef0123"
BODY = b"List-Unsubscribe=One-Click"
BOUNCE = """\
From: MAILER-DAEMON@mx.example.net
To: bounces@shop.example
Subject: Undelivered mail {number}
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.net

Final-Recipient: rfc822; gone{number}@example.net
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 no such user

--b--
"""


class Clicks:
    """How the answers came."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.took: list[float] = []
        self.wrong: Counter[str] = Counter()

    async def click(self, number: int) -> None:
        token = make_token(Address(f"p{number}", "example.org"), KEY.encode(), list_id="news")
        head = (
            f"POST /u/{token} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(BODY)}\r\n\r\n"
        )
        began = time.perf_counter()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(head.encode() + BODY)
            answer = await reader.read()
            writer.close()
        except OSError as error:
            self.wrong[type(error).__name__] += 1
            return
        self.took.append(time.perf_counter() - began)
        if not answer.startswith(b"HTTP/1.1 200"):
            self.wrong[answer[:12].decode()] += 1

    async def run(self, *, rate: int, seconds: int) -> None:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(rate * seconds):
                pause = began + number / rate - time.perf_counter()
                if pause > 0:
                    await asyncio.sleep(pause)
                group.create_task(self.click(number))


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--mails", type=int, default=1_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bulkmail-clicks-") as name:
        folder = Path(name)
        for part in ("new", "cur", "tmp"):
            (folder / "Maildir" / part).mkdir(parents=True)
        for number in range(asked.mails):
            (folder / "Maildir" / "new" / str(number)).write_text(BOUNCE.format(number=number))
        (folder / "key").write_text(KEY)
        (folder / "key").chmod(0o600)
        (folder / "serve.toml").write_text('[serve]\nkeys = ["key"]\n[[bounces]]\nmaildir = "Maildir"\n')
        with subprocess.Popen(
            [sys.executable, "-m", "bulkmail", "serve", "--config", "serve.toml", "--listen", "127.0.0.1:0"],
            cwd=folder,
            env={**os.environ, "BULKMAIL_STATE_DIR": str(folder / "state")},
            stdout=subprocess.PIPE,
            text=True,
        ) as server:
            assert server.stdout is not None
            found = re.search(r"port (\d+)", server.stdout.readline())
            assert found is not None
            clicks = Clicks(int(found[1]))
            asyncio.run(clicks.run(rate=asked.rate, seconds=asked.seconds))
            ticks = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
            server.terminate()
        with SqliteSuppressions(folder / "state" / "suppressions.db") as store:
            kept, read = store.count(EntryQuery()), store.count_unmatched()
    took = [round(1000 * seconds) for seconds in sorted(clicks.took)]
    busy = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    print(f"{len(took)} answers, wrong: {dict(clicks.wrong) or 'none'}; {kept} on the list, {read} mails read")
    print(f"p50 {took[len(took) // 2]} ms, p99 {took[int(len(took) * 0.99)]} ms, longest {took[-1]} ms")
    print(f"{busy:.1f} s of the server's processor time; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")


if __name__ == "__main__":
    main()
