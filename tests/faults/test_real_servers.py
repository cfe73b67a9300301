"""Killed in front of a real Postfix and a real Exim: their mailboxes and their logs say the same as our books."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from bulkmail.model.delivery import Status
from bulkmail.outbox.reader import OutboxReader
from tests.e2e.commands import run, start
from tests.faults.oracle import count_marks, make_campaign
from tests.faults.test_kill import note_figures
from tests.servers.kept import MailServer

PEOPLE = [f"p{n}@example.com" for n in range(300)]
KILLS, CONNECTIONS, DEPTH = 3, 4, 8


def by_status(outbox: Path) -> dict[Status, set[str]]:
    with OutboxReader.open(outbox) as reader:
        assert reader.tally().adds_up
        rows = [(row.status, row.address) for row in reader.rows()]
    assert len(rows) == len(PEOPLE)
    return {status: {address for found, address in rows if found is status} for status in Status}


@pytest.mark.crash
@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["postfix", "exim"])
async def test_killed_before_a_real_server_its_mailbox_agrees_and_its_log_settles_the_doubts(
    tmp_path: Path, name: str, request: pytest.FixtureRequest
) -> None:
    server: MailServer = request.getfixturevalue(name)
    campaign, dice, kills = make_campaign(tmp_path / "spring", PEOPLE), random.Random(), 0
    outbox = campaign / "runs" / "spring.outbox"
    command = ("send", campaign, "--yes", "--relay", f"{server.url}&connections={CONNECTIONS}&depth={DEPTH}")
    for _ in range(KILLS):
        process = await start(*command, "--progress", "none", cwd=tmp_path)
        ended = asyncio.ensure_future(process.communicate())
        target = server.count() + dice.randint(1, 80)
        while not ended.done() and server.count() < target:
            await asyncio.sleep(0.002)
        if process.returncode is None:
            process.kill()
            kills += 1
        await ended
        assert count_marks(outbox) <= CONNECTIONS * DEPTH
    await run(*command, cwd=tmp_path)
    found = by_status(outbox)
    doubtful = len(found[Status.IN_DOUBT])
    assert len(found[Status.ACCEPTED]) + doubtful == len(PEOPLE)
    assert doubtful <= kills * CONNECTIONS * DEPTH
    arrived = await settled_down(server, at_least=len(found[Status.ACCEPTED]))
    assert max(arrived.values()) == 1
    assert found[Status.ACCEPTED] <= arrived.keys() <= found[Status.ACCEPTED] | found[Status.IN_DOUBT]
    settled = await run("settle", outbox, "--log", server.log, cwd=tmp_path)
    after = by_status(outbox)
    assert after[Status.ACCEPTED] == arrived.keys(), settled.out
    assert settled.code == (4 if after[Status.IN_DOUBT] else 0)
    note_figures(server=name, kills=kills, doubtful=doubtful, settled=doubtful - len(after[Status.IN_DOUBT]), lost=0)


async def settled_down(server: MailServer, *, at_least: int) -> Counter[str]:
    """Whom mail has reached once no more comes."""
    before = -1
    while (now := server.count()) != before or now < at_least:
        before = now
        await asyncio.sleep(0.7)
    return server.recipients()
