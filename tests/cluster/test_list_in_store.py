"""The suppression list of a store, while several workers send from one of its campaigns."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from bulkmail.testing import ScriptedRelay
from tests.e2e.commands import run, start, write_campaign

pytestmark = [pytest.mark.real, pytest.mark.slow]

WITHIN = 4.0  # seconds
ROWS = 300
NO_USER = "550 5.1.1 no such user"


async def test_no_worker_sends_to_who_unsubscribed_four_seconds_ago(database: str, tmp_path: Path) -> None:
    people = [f"p{number}@example.org" for number in range(ROWS)]
    at: dict[str, float] = {}

    def arrived(path: str) -> str:
        at[path] = time.monotonic()
        return "250 2.1.5 OK"

    async with ScriptedRelay(rcpt=arrived) as relay:
        campaign = write_campaign(tmp_path / "spring", people, relay=f"smtp://{relay.host}:{relay.port}?tls=off")
        common = ("--rate", "8/s", "--yes", "--store", database)
        first = await start("send", campaign, *common, cwd=tmp_path)
        while len(at) < 5:
            await asyncio.sleep(0.05)
        others = [await start("worker", "--drain", cwd=tmp_path, BULKMAIL_STORE=database)]
        while len(at) < 20:
            await asyncio.sleep(0.05)
        gone = [person for person in people if person not in at][:-1:2]
        done = await run("suppress", "add", *gone, "--store", database, cwd=tmp_path)
        asked_at = time.monotonic()
        assert done.code == 0, done.err
        said = [(await process.communicate(), process.returncode) for process in (first, *others)]
        assert all(code == 0 for _, code in said), said
    late = {person: at[person] - asked_at for person in gone if at.get(person, 0) > asked_at + WITHIN}
    assert not late
    assert len(set(gone) - at.keys()) > len(gone) / 2
    assert at.keys() >= set(people) - set(gone)


async def test_refusal_by_a_store_campaign_enters_the_list_of_the_store(database: str, tmp_path: Path) -> None:
    people = ["ann@example.org", "gone@example.org", "out@example.org"]
    refuse = lambda path: NO_USER if path.startswith("gone@") else "250 OK"  # noqa: E731
    await run("suppress", "add", "out@example.org", "--store", database, cwd=tmp_path)
    async with ScriptedRelay(rcpt=refuse, extensions=["ENHANCEDSTATUSCODES"]) as relay:
        campaign = write_campaign(tmp_path / "spring", people, relay=f"smtp://{relay.host}:{relay.port}?tls=off")
        await run("send", campaign, "--store", database, "--yes", cwd=tmp_path)
    assert len(relay.messages) == 1
    shown = await run("suppress", "show", "gone@example.org", "--store", database, cwd=tmp_path)
    assert "hard bounce" in shown.out and "(spring): 550 5.1.1 no such user" in shown.out, shown.err


async def test_list_that_was_not_moved_to_the_store_is_not_forgotten(database: str, tmp_path: Path) -> None:
    state = tmp_path / "state"
    await run("suppress", "add", "ann@example.org", cwd=tmp_path, BULKMAIL_STATE_DIR=str(state))
    campaign = write_campaign(tmp_path / "spring", ["ann@example.org"], relay="smtp://127.0.0.1:1?tls=off")
    done = await run("send", campaign, "--store", database, "--yes", cwd=tmp_path, BULKMAIL_STATE_DIR=str(state))
    assert done.code == 2 and "bulkmail suppress import" in done.err
    archive = ("suppress", "export", "--archive", tmp_path / "list.db")
    assert (await run(*archive, cwd=tmp_path, BULKMAIL_STATE_DIR=str(state))).code == 0
    moved = await run("suppress", "import", tmp_path / "list.db", "--store", database, cwd=tmp_path)
    assert "1 entry taken over" in moved.out, moved.err
