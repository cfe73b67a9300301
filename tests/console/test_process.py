"""The console as a process: whatever becomes of it, the runs that it started go on and end exactly."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bulkmail.model.tally import Status
from bulkmail.outbox.outbox_reader import OutboxReader
from tests.console.processes import Console, run_console, write_list

pytestmark = [pytest.mark.slow, pytest.mark.crash, pytest.mark.timeout(120)]

ROWS = 300


def begin(console: Console, root: Path) -> Path:
    """Starts a rehearsal; returns its outbox."""
    _, _, page = console.ask("GET", "/")
    campaign = re.findall(r'href="(/c/[^"/]+)"', page)[0]
    status, target, _ = console.ask("POST", f"{campaign}/rehearse")
    assert (status, target[:3]) in ((303, "/r/"), (303, "/j/"))  # that of the command where it takes long to begin
    outbox, deadline = root / "spring" / "runs" / "spring.rehearsal.outbox", time.monotonic() + 60
    while not outbox.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return outbox


def wait_until_over(outbox: Path, rows: int, seconds: float = 90) -> None:
    """Every message is accepted once, and kept once by the server."""
    deadline = time.monotonic() + seconds
    while True:
        with OutboxReader.open(outbox) as reader:
            tally, is_running = reader.tally(), reader.is_running
        if not tally.open and tally.rows and is_running is None:
            break
        assert time.monotonic() < deadline, tally
        time.sleep(0.3)
    assert tally.by_status == {Status.ACCEPTED: rows}
    kept = list((outbox.parent / "spring.inbox" / "new").iterdir())
    recipients = {re.search(rb"^To: .*?<(.*)>", path.read_bytes(), re.M)[1] for path in kept}  # type: ignore[index]
    assert len(kept) == len(recipients) == rows


@pytest.mark.parametrize("end", ["kill", "interrupt", "full disk"])
def test_run_goes_on_when_the_console_ends(root: Path, tmp_path: Path, end: str, rng: random.Random) -> None:
    write_list(root / "spring" / "people.csv", ROWS)
    if end == "full disk":  # what the command prints has no room
        (root / "spring" / "runs").mkdir()
        (root / "spring" / "runs" / "spring.console.log").symlink_to("/dev/full")
    with run_console(root, tmp_path / "state") as console:
        outbox = begin(console, root)
        time.sleep(rng.uniform(0, 0.3))
        if end == "kill":
            console.kill()
        elif end == "interrupt":
            assert console.interrupt() == 0
        wait_until_over(outbox, ROWS)
    with run_console(root, tmp_path / "state") as again:
        page = again.ask("GET", "/")[2]
        assert f"{ROWS:,} of {ROWS:,} accepted" in page
        assert again.token == console.token  # tabs go on working


def test_run_stops_at_the_button(root: Path, tmp_path: Path) -> None:
    write_list(root / "spring" / "people.csv", 20_000)
    with run_console(root, tmp_path / "state") as console:
        outbox, deadline = begin(console, root), time.monotonic() + 60
        run = re.findall(r'href="(/r/[^"/]+)"', console.ask("GET", "/")[2])[0]
        while "Stop now" not in console.ask("GET", run)[2]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert console.ask("POST", f"{run}/stop")[0] == 303
        page = console.ask("GET", run)[2]
        while "Stop now" in page:
            assert time.monotonic() < deadline
            page = console.ask("GET", run)[2]
        assert "Go on with" in page
        with OutboxReader.open(outbox) as reader:
            assert 0 < reader.tally().open < 20_000


def test_run_begun_elsewhere_is_seen_within_two_seconds(root: Path, tmp_path: Path) -> None:
    write_list(root / "spring" / "people.csv", 20)
    state = tmp_path / "state"
    with run_console(root, state) as console:
        environment = {**os.environ, "BULKMAIL_STATE_DIR": str(state)}
        subprocess.run(
            [sys.executable, "-m", "bulkmail", "send", "spring", "--progress", "none"],
            cwd=root, env=environment, check=True, capture_output=True,
        )  # fmt: skip
        ended = time.monotonic()
        while "20 of 20 accepted" not in console.ask("GET", "/")[2]:
            assert time.monotonic() - ended < 2
