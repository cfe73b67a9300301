"""The console as a process: whatever becomes of it, the runs that it started go on and end exactly."""

from __future__ import annotations

import json
import random
import re
import time
from pathlib import Path

import pytest

from bulkmail.model.status import Status
from bulkmail.outbox.reader import OutboxReader
from tests.console.processes import Console, run_console, write_list

pytestmark = [pytest.mark.slow, pytest.mark.crash, pytest.mark.timeout(120)]

ROWS = 1_000


def begin(console: Console, root: Path) -> Path:
    """Starts a rehearsal; returns its outbox."""
    _, _, page = console.ask("GET", "/")
    campaign = re.findall(r'href="(/c/[^"/]+)"', page)[0]
    status, target, _ = console.ask("POST", f"{campaign}/rehearse")
    assert (status, target[:3]) == (303, "/r/")
    return root / "spring" / "runs" / "spring.rehearsal.outbox"


def wait_until_over(outbox: Path, rows: int, seconds: float = 90) -> None:
    """Every message is accepted once, and kept once by the server."""
    deadline = time.monotonic() + seconds
    while True:
        with OutboxReader.open(outbox) as reader:
            tally, is_running = reader.tally(), reader.is_running
        if not tally.open and is_running is None:
            break
        assert time.monotonic() < deadline, tally
        time.sleep(0.1)
    assert tally.by_status == {Status.ACCEPTED: rows}
    kept = list((outbox.parent / "spring.inbox" / "new").iterdir())
    recipients = {re.search(rb"^To: .*?<(.*)>", path.read_bytes(), re.M)[1] for path in kept}  # type: ignore[index]
    assert len(kept) == len(recipients) == rows


@pytest.mark.parametrize("end", ["kill", "interrupt"])
def test_run_goes_on_when_the_console_ends(root: Path, tmp_path: Path, end: str) -> None:
    write_list(root / "spring" / "people.csv", ROWS)
    with run_console(root, tmp_path / "state") as console:
        outbox = begin(console, root)
        time.sleep(random.uniform(0, 0.3))
        if end == "kill":
            console.kill()
        else:
            assert console.interrupt() == 0
        wait_until_over(outbox, ROWS)
    with run_console(root, tmp_path / "state") as again:
        page = again.ask("GET", "/")[2]
        assert f"{ROWS:,} of {ROWS:,} accepted" in page
        assert again.token == console.token  # tabs go on working


def test_run_begun_elsewhere_is_seen_and_the_port_is_free_again(root: Path, tmp_path: Path) -> None:
    import os
    import subprocess
    import sys

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
        assert (
            json.loads((state / "console-log.jsonl").read_text() if (state / "console-log.jsonl").exists() else "0")
            == 0
        )
