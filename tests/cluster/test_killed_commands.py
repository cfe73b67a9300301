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
    f"session.Session.__init__.__kwdefaults__['lease'] = {LEASE}; loading.SHARD = {SHARD}; main(sys.argv[1:])"
)


class Workers:
    """Processes of the command, started again when they were killed."""

    def __init__(self, url: str, folder: Path) -> None:
        self._environment = environment(BULKMAIL_STORE=url)
        self._log = (folder / "workers.log").open("ab")
        self.processes = [self._start() for _ in range(WORKERS)]

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", CHANGED, "worker", "--connections", str(CONNECTIONS)],
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


@pytest.mark.parametrize("seed", range(SEEDS))
def test_killed_and_stopped_commands_send_nothing_twice_and_lose_no_one(
    database: str, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    log = tmp_path / "taken.log"
    people = [f"p{number}@example.com" for number in range(ROWS)]
    with witness(log, seed) as port:
        campaign = write_campaign(tmp_path / "spring", people, relay=f"smtp://127.0.0.1:{port}?tls=off")
        send = [sys.executable, "-c", CHANGED, "send", str(campaign), "--store", "--detach", "--yes"]
        subprocess.run(send, env=environment(BULKMAIL_STORE=database), cwd=ROOT, check=True, capture_output=True)
        workers = Workers(database, tmp_path)
        try:
            deadline = time.monotonic() + PATIENCE
            while (not log.exists() or log.stat().st_size < 2_000) and time.monotonic() < deadline:
                time.sleep(0.05)
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
