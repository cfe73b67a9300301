"""Killed at any instant, a follow-up with variants answers each recipient's own message, in the variant it had before.

CI kills a few times; `BULKMAIL_KILLS=20` kills twenty times.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from bulkmail.model.recipient import Address, parse_variants, variant_of
from bulkmail.model.tally import Status
from bulkmail.outbox.outbox_reader import OutboxReader
from tests.chance import SEED
from tests.e2e.commands import run, start
from tests.faults.oracle import hold, make_campaign, witness
from tests.faults.test_kill import KILLS, kill_at, when

pytestmark = pytest.mark.crash

WANTED = KILLS if "BULKMAIL_KILLS" in os.environ else 4
VARIANTS = parse_variants({"a": 2, "b": 1})


@pytest.mark.timeout(120 + WANTED * 20)
async def test_killed_at_any_instant_threads_and_variants_stay(tmp_path: Path, rng: random.Random) -> None:
    people = [f"p{n}@example.com" for n in range(400)]
    first = make_campaign(tmp_path / "first", people)
    async with witness(tmp_path / "log", syncs=False) as seen:
        sent = await run("send", first, "--yes", "--relay", seen.url(4), cwd=tmp_path)
    assert sent.code == 0, sent.err
    with OutboxReader.open(first / "runs" / "first.outbox") as reader:
        ids = {record.address: record.message_id for record in reader.rows()}
    kills, number = 0, 0
    while kills < WANTED:
        kills += await kill_through_a_follow_up(
            tmp_path / str(number), rng, ids, wanted=WANTED - kills, said=f"seed {SEED}"
        )
        number += 1


async def kill_through_a_follow_up(
    folder: Path, rng: random.Random, ids: dict[str, str], *, wanted: int, said: str
) -> int:
    """Kills one follow-up until it is through or there were kills enough; how often."""
    people = list(ids)
    second = make_campaign(folder / "second", people, settings='retry = "0s*20"\nwait = "30s"\n')
    settings = (second / "campaign.toml").read_text().replace('recipients = "people.csv"\n', "")
    settings = settings.replace("[message]", "[message]\nvariants = { a = 2, b = 1 }")
    (second / "campaign.toml").write_text(settings.replace("Hello {{ first_name }}", "{{ variant }}"))
    outbox, kills, is_running = second / "runs" / "second.outbox", 0, True
    faults = [{"stage": "rcpt", "probability": 0.06, "once_each": True, "does": "450 4.2.1 come again"}]
    options = {"extensions": ["8BITMIME", "PIPELINING"], "faults": faults, "delay": 0.004, "syncs": False}
    async with witness(folder / "log", **options) as seen:
        command = ["send", second, "--follow-up", folder.parent / "first", "--yes", "--progress", "none"]
        command += ["--relay", seen.url(4)]
        while is_running and kills < wanted:
            process = await start(*command, cwd=folder)
            is_running = await kill_at(process, when(rng, [seen], outbox))
            kills += is_running
        last = await run(*command, cwd=folder)
        verdict = hold(outbox, people, seen, said=f"{said}: {last.err}")
    assert verdict.statuses.keys() <= {Status.ACCEPTED, Status.IN_DOUBT}, f"{said}: {last.err}"
    assert verdict.twice == 0, said
    counted: dict[str, Counter[str]] = {name: Counter() for name, _ in VARIANTS}
    with OutboxReader.open(outbox) as reader:
        for record in reader.rows():
            assert record.fields["thread_message_id"] == ids[record.address], said
            variant = variant_of(Address.parse(record.address).key, VARIANTS, salt="second")
            assert record.fields["variant"] == variant, said
            counted[variant][record.status.value] += 1
    assert (await run("report", outbox, "-o", "r.json", cwd=folder)).code in (0, 4)
    found = json.loads((folder / "r.json").read_text())["variants"]
    assert {
        name: {key: n for key, n in each.items() if n and key not in ("rows", "feedback")}
        for name, each in found.items()
    } == counted
    return kills
