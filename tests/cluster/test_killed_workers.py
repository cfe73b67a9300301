"""kill -9 and SIGSTOP at any instant over one store: the witness sees nothing twice, and nothing is lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bulkmail.cluster.database import connect
from bulkmail.cluster.loading import load
from bulkmail.cluster.reader import read_pages
from bulkmail.cluster.session import expire
from bulkmail.model.tally import Status
from tests.chance import chance
from tests.cluster.making import make_campaign, make_pages
from tests.examples import IN_CI
from tests.outbox.making import make_recipient

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
ROWS = 200
WORKERS = 3
CONNECTIONS = 3
LEASE = 1.5  # seconds
FAULTS = 4
PATIENCE = 45.0  # seconds


@contextmanager
def witness(log: Path, seed: int) -> Iterator[int]:
    """The port of a server that writes down what it took before it says so, and takes its time."""
    plan = json.dumps({"extensions": ["8BITMIME"], "delay": 0.1, "syncs": False, "seed": seed})
    command = [sys.executable, str(ROOT / "tests" / "faults" / "witness.py"), str(log), plan]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


class Workers:
    """Processes that send from the store, started anew when they were killed."""

    def __init__(self, url: str, port: int, *, marks: str) -> None:
        self._command = [sys.executable, str(Path(__file__).with_name("worker.py")), url, str(port), str(LEASE), marks]
        self._environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.processes = [self._start() for _ in range(WORKERS)]

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, env=self._environment, stdout=subprocess.DEVNULL)

    def kill(self, number: int) -> None:
        """One of them dies; another takes its place."""
        self.processes[number].kill()
        self.processes[number].wait()
        self.processes[number] = self._start()

    def stop(self, number: int) -> None:
        """It stands still, whatever it is at."""
        self.processes[number].send_signal(signal.SIGSTOP)

    def go_on(self, number: int) -> None:
        """It does not know that time has passed."""
        self.processes[number].send_signal(signal.SIGCONT)

    def end(self) -> None:
        """All are gone."""
        for process in self.processes:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()


async def statuses(url: str) -> dict[str, Status]:
    """What the store says of each address."""
    admin = await connect(url)
    try:
        await expire(admin)
        campaign = await admin.fetchval("SELECT id FROM campaign")
        return {
            each.forward_path: Status(each.status)
            async for page in read_pages(admin, url, campaign)
            for each in page.deliveries
        }
    finally:
        await admin.close()


def prepare(url: str) -> None:
    """A campaign in the store."""

    async def fill() -> None:
        admin = await connect(url)
        await load(admin, url, make_campaign(), make_pages(make_recipient(n) for n in range(1, ROWS + 1)))
        await admin.close()

    asyncio.run(fill())


def suffer(
    url: str, log: Path, *, seed: int, marks: str, patience: float = 45.0
) -> tuple[Counter[str], dict[str, Status]]:
    """Sends the campaign by workers that are killed and stopped; how often each was taken, and what the store says."""
    rng = chance(f"workers {seed}")
    prepare(url)
    with witness(log, seed) as port:
        workers = Workers(url, port, marks=marks)
        try:
            while not log.exists() or log.stat().st_size < 500:
                time.sleep(0.02)
            for fault in range(FAULTS):
                time.sleep(rng.uniform(0.05, 0.4))
                number = rng.randrange(WORKERS)
                if fault == 0:  # all of them: on a busy machine only one may have begun
                    for each in range(WORKERS):
                        workers.kill(each)
                elif rng.random() < 0.5:
                    workers.kill(number)
                else:
                    workers.stop(number)
                    time.sleep(rng.uniform(0.5, 2.5))
                    workers.go_on(number)
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline:
                found = asyncio.run(statuses(url))
                if not any(status in (Status.PENDING, Status.DEFERRED) for status in found.values()):
                    break
                time.sleep(0.3)
        finally:
            workers.end()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert not [line for line in lines if "breach" in line]
    return Counter(line["path"] for line in lines), found


@pytest.mark.crash
@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(3 if IN_CI else 1))
def test_killed_and_stopped_workers_send_nothing_twice_and_lose_no_recipient(
    database: str, tmp_path: Path, seed: int
) -> None:
    taken, found = suffer(database, tmp_path / "taken.log", seed=seed, marks="on")
    assert {path for path, times in taken.items() if times > 1} == set()
    assert len(found) == ROWS
    doubts = {path for path, status in found.items() if status is Status.IN_DOUBT}
    assert {path for path, status in found.items() if status is Status.ACCEPTED} <= taken.keys()
    assert set(found.values()) <= {Status.ACCEPTED, Status.IN_DOUBT}, "somebody was forgotten"
    assert len(doubts) <= (FAULTS - 1 + WORKERS) * CONNECTIONS


@pytest.mark.crash
@pytest.mark.timeout(120)
def test_same_harness_without_marks_finds_duplicates(database: str, tmp_path: Path) -> None:
    taken, _ = suffer(database, tmp_path / "taken.log", seed=1, marks="off")
    assert {path for path, times in taken.items() if times > 1}
