"""Killed at any instant, a run with planned times sends nothing early, forgets no recipient and doubles none.

CI kills a few times; `BULKMAIL_KILLS=20` kills twenty times.
"""

from __future__ import annotations

import os
import random
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from bulkmail.model.tally import Status
from tests.chance import SEED
from tests.e2e.commands import run, start
from tests.faults.oracle import hold, make_campaign, witness
from tests.faults.test_kill import KILLS, kill_at, when

pytestmark = pytest.mark.crash

WANTED = KILLS if "BULKMAIL_KILLS" in os.environ else 4
SPREAD = 1.5  # seconds of planned times for each kill: a start takes most of one


@pytest.mark.timeout(120 + WANTED * 20)
async def test_killed_at_any_instant_the_plan_stays(tmp_path: Path, rng: random.Random) -> None:
    kills, campaigns = 0, 0
    while kills < WANTED:
        folder = tmp_path / str(campaigns)
        folder.mkdir()
        kills += await kill_through_a_plan(folder, rng, wanted=WANTED - kills, said=f"seed {SEED}")
        campaigns += 1


async def kill_through_a_plan(folder: Path, rng: random.Random, *, wanted: int, said: str) -> int:
    """Kills one campaign until it is through or there were kills enough; how often."""
    people = [f"p{n}@example.com" for n in range(200)]
    campaign = make_campaign(
        folder / "spring", people, settings='send_at = "column:when"\nretry = "0s*20"\nwait = "1s"\n'
    )
    begins = datetime.now().astimezone() + timedelta(seconds=1)
    planned = {one: begins + timedelta(seconds=rng.uniform(0, SPREAD * min(wanted, 6) + 2)) for one in people}
    rows = "".join(f"{one},{one.partition('@')[0].title()},{at.isoformat()}\n" for one, at in planned.items())
    (campaign / "people.csv").write_text(f"email,first_name,when\n{rows}")
    outbox, kills, is_running = campaign / "runs" / "spring.outbox", 0, True
    async with witness(folder / "log", extensions=["8BITMIME", "PIPELINING"], delay=0.002, syncs=False) as seen:
        command = ["send", campaign, "--yes", "--progress", "none", "--relay", seen.url(4)]
        while is_running and kills < wanted:
            process = await start(*command, cwd=folder)
            is_running = await kill_at(process, when(rng, [seen], outbox))
            kills += is_running
        last = await run(*command, cwd=folder)
        verdict = hold(outbox, people, seen, said=f"{said}: {last.err}")
        taken = seen.taken()
    assert verdict.statuses.keys() <= {Status.ACCEPTED, Status.IN_DOUBT}, f"{said}: {last.err}"
    assert verdict.twice == 0, said
    early = [entry for entry in taken if entry.at < planned[entry.path].timestamp()]
    assert not early, f"{said}: {early[:3]}"
    return kills
