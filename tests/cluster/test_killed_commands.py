"""kill -9 and SIGSTOP over four `bulkmail worker`: the witness sees nothing twice, and no recipient is lost."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from bulkmail.cluster import session
from bulkmail.cluster.database import connect
from bulkmail.model.tally import Status
from tests.cluster.test_killed_workers import ROOT, statuses, witness
from tests.e2e.commands import environment, write_campaign

pytestmark = [pytest.mark.slow, pytest.mark.real, pytest.mark.crash, pytest.mark.timeout(300)]

SEEDS = int(os.environ.get("BULKMAIL_SEEDS", "1"))
ROWS = 600
WORKERS = 4
CONNECTIONS = 3
LEASE = 3.0  # seconds
FAULTS = 5
SHARD = 50  # deliveries
PATIENCE = 120.0  # seconds
# The commands as they are, but for the length of the lease, and for the size of shards, so that all workers have some.
CHANGED = (
    "import sys; from bulkmail.cluster import loading, session; from bulkmail.cli import main; "
    f"session.Session.__init__.__kwdefaults__['lease'] = float(sys.argv[1]); loading.SHARD = {SHARD}; "
    "main(sys.argv[2:])"
)


class Workers:
    """Processes of the command, started again when they were killed."""

    def __init__(self, url: str, folder: Path, *, number: int = WORKERS, lease: float = LEASE) -> None:
        self._command = [sys.executable, "-c", CHANGED, str(lease), "worker", "--connections", str(CONNECTIONS)]
        self._environment = environment(BULKMAIL_STORE=url)
        self._log = (folder / "workers.log").open("ab")
        self.processes = [self._start() for _ in range(number)]

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command,
            env=self._environment,
            stdout=self._log,
            stderr=self._log,
            cwd=ROOT,
        )

    def kill(self, number: int) -> None:
        self.processes[number].kill()
        self.processes[number].wait()
        self.processes[number] = self._start()

    def stand_still(self, number: int, seconds: float) -> None:
        self.processes[number].send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.processes[number].send_signal(signal.SIGCONT)

    def end(self) -> None:
        for process in self.processes:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()
        self._log.close()


def load(url: str, folder: Path, port: int, rows: int) -> None:
    """A campaign in the store, by the command."""
    people = [f"p{number}@example.com" for number in range(rows)]
    campaign = write_campaign(folder / "spring", people, relay=f"smtp://127.0.0.1:{port}?tls=off")
    command = [sys.executable, "-c", CHANGED, str(LEASE), "send", str(campaign), "--store", "--detach", "--yes"]
    subprocess.run(command, env=environment(BULKMAIL_STORE=url), cwd=ROOT, check=True, capture_output=True)


def until_begun(log: Path) -> None:
    """Waits until the witness has taken some."""
    deadline = time.monotonic() + PATIENCE
    while (not log.exists() or log.stat().st_size < 2_000) and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_killed_and_stopped_commands_send_nothing_twice_and_lose_no_one(
    database: str, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    log = tmp_path / "taken.log"
    with witness(log, seed) as port:
        load(database, tmp_path, port, ROWS)
        workers = Workers(database, tmp_path)
        try:
            deadline = time.monotonic() + PATIENCE
            until_begun(log)
            for fault in range(FAULTS):
                time.sleep(rng.uniform(0.1, 0.8))
                if fault % 2 == 0:
                    workers.kill(rng.randrange(WORKERS))
                else:
                    workers.stand_still(rng.randrange(WORKERS), rng.uniform(0.5, 2 * LEASE))
            while time.monotonic() < deadline:
                found = asyncio.run(statuses(database))
                if not any(status in (Status.PENDING, Status.DEFERRED) for status in found.values()):
                    break
                time.sleep(0.5)
        finally:
            workers.end()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert not [line for line in lines if "breach" in line]
    taken = Counter(line["path"] for line in lines)
    assert {path for path, times in taken.items() if times > 1} == set()
    assert set(found.values()) <= {Status.ACCEPTED, Status.IN_DOUBT}, Counter(found.values())
    assert len(found) == ROWS
    assert {path for path, status in found.items() if status is Status.ACCEPTED} <= taken.keys()
    doubts = sum(status is Status.IN_DOUBT for status in found.values())
    assert doubts <= FAULTS * CONNECTIONS * 2, doubts


async def shards_of(url: str, pid: int) -> set[int]:
    """The shards that the worker of this process holds."""
    connection = await connect(url)
    query = "SELECT s.id FROM shard s JOIN session o ON o.id = s.holder WHERE o.pid = $1"
    found = {record["id"] for record in await connection.fetch(query, pid)}
    await connection.close()
    return found


def test_work_of_a_killed_worker_goes_on_within_twenty_seconds(database: str, tmp_path: Path) -> None:
    log = tmp_path / "taken.log"
    with witness(log, 0) as port:
        load(database, tmp_path, port, 8 * SHARD)
        workers = Workers(database, tmp_path, number=2, lease=session.LEASE)
        try:
            until_begun(log)
            dead, other = (process.pid for process in workers.processes)
            while not (left := asyncio.run(shards_of(database, dead))):
                time.sleep(0.1)
            workers.processes[0].kill()
            killed_at = time.monotonic()
            while not left & asyncio.run(shards_of(database, other)) and time.monotonic() < killed_at + PATIENCE:
                time.sleep(0.2)
            took = time.monotonic() - killed_at
        finally:
            workers.end()
    assert took <= 20, took
