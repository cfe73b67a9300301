"""Killed in front of a real Postfix and a real Exim: their mailboxes and their logs say the same as our books.

CI kills a few times; `BULKMAIL_KILLS=200` kills each of them two hundred times.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from bulkmail.model.tally import Status
from bulkmail.outbox.outbox_reader import OutboxReader
from tests.e2e.commands import run, start
from tests.faults.oracle import count_marks, make_campaign
from tests.faults.test_kill import note_figures
from tests.servers.exim import run_exim
from tests.servers.handing_on import run_postfix_before_dovecot
from tests.servers.kept import MailServer
from tests.servers.postfix import run_postfix

pytestmark = [pytest.mark.real, pytest.mark.crash, pytest.mark.slow]

PEOPLE = [f"p{n}@example.com" for n in range(300)]
KILLS, CONNECTIONS, DEPTH = int(os.environ.get("BULKMAIL_KILLS", "3")), 4, 8
SERVERS: dict[str, Callable[[], AbstractContextManager[MailServer]]] = {
    "postfix": run_postfix,
    "exim": run_exim,
    "postfix-before-dovecot": lambda: run_postfix_before_dovecot(PEOPLE),
}


def by_status(outbox: Path) -> dict[Status, set[str]]:
    with OutboxReader.open(outbox) as reader:
        assert reader.tally().adds_up
        rows = [(row.status, row.address) for row in reader.rows()]
    assert len(rows) == len(PEOPLE)
    return {status: {address for found, address in rows if found is status} for status in Status}


@dataclass
class Figures:
    """What the kills came to."""

    kills: int = 0
    campaigns: int = 0
    accepted: int = 0
    doubtful: int = 0
    settled: int = 0


@pytest.mark.timeout(120 + 20 * KILLS)
@pytest.mark.parametrize("name", SERVERS)
async def test_killed_before_a_real_server_its_mailbox_agrees_and_its_log_settles_the_doubts(
    tmp_path: Path, name: str, rng: random.Random
) -> None:
    figures = Figures()
    while figures.kills < KILLS:
        folder = tmp_path / str(figures.campaigns)
        folder.mkdir()
        with SERVERS[name]() as server:
            await kill_through_a_campaign(folder, server, figures, rng)
        figures.campaigns += 1
    note_figures(server=name, **asdict(figures))


async def kill_through_a_campaign(folder: Path, server: MailServer, figures: Figures, rng: random.Random) -> None:
    """Kills one campaign again and again until it is through or there were kills enough, then opens the books."""
    campaign, kills = make_campaign(folder / "spring", PEOPLE), 0
    outbox = campaign / "runs" / "spring.outbox"
    command = ("send", campaign, "--yes", "--relay", f"{server.url}&connections={CONNECTIONS}&depth={DEPTH}")
    is_through = False
    while not is_through and figures.kills + kills < KILLS:
        process = await start(*command, "--progress", "none", cwd=folder)
        ended = asyncio.ensure_future(process.communicate())
        target = size(server.log) + rng.randint(1, 50_000)  # some 100 messages
        while not ended.done() and size(server.log) < target:
            await asyncio.sleep(0.002)
        if process.returncode is None:
            process.kill()
        await ended
        is_through = process.returncode != -9
        kills += not is_through
        assert count_marks(outbox) <= CONNECTIONS * DEPTH
    await run(*command, cwd=folder)
    found = by_status(outbox)
    doubtful = len(found[Status.IN_DOUBT])
    assert len(found[Status.ACCEPTED]) + doubtful == len(PEOPLE)
    assert doubtful <= kills * CONNECTIONS * DEPTH
    arrived = await settled_down(server, at_least=len(found[Status.ACCEPTED]))
    assert max(arrived.values()) == 1
    assert found[Status.ACCEPTED] <= arrived.keys() <= found[Status.ACCEPTED] | found[Status.IN_DOUBT]
    settled = await run("reconcile", outbox, "--log", server.log, cwd=folder)
    after = by_status(outbox)
    assert after[Status.ACCEPTED] == arrived.keys(), settled.out
    assert settled.code == (4 if after[Status.IN_DOUBT] else 0)
    figures.kills += kills
    figures.accepted += len(found[Status.ACCEPTED])
    figures.doubtful += doubtful
    figures.settled += doubtful - len(after[Status.IN_DOUBT])


def size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


async def settled_down(server: MailServer, *, at_least: int) -> Counter[str]:
    """Whom mail has reached once no more comes."""
    before = -1
    while (now := server.count()) != before or now < at_least:
        before = now
        await asyncio.sleep(0.7)
    return server.recipients()
