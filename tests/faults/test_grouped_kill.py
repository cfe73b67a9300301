"""Killed while messages of several rows are sent: each arrives once, whole, or is in doubt and the same to the byte.

CI kills a few times; `BULKMAIL_KILLS=20` kills twenty times.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from bulkmail.model.tally import Status
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.testing import ScriptedRelay
from tests.chance import SEED
from tests.e2e.commands import run, start
from tests.faults.oracle import make_due

pytestmark = pytest.mark.crash

KILLS = int(os.environ.get("BULKMAIL_KILLS", "6"))
MESSAGES, ROWS = 150, 500
CAMPAIGN = """recipients = { file = "orders.csv", group_by = "email" }
[message]
from = "Shop <shop@example.com>"
subject = "Order"
text = "order.txt"
[sending]
retry = "0s*20"
wait = "30s"
"""
TEXT = "{% for item in rows %}{{ item.item }} {% endfor %}sum {{ rows | sum(attribute='price') }}.\n"


def write_campaign(folder: Path, rng: random.Random) -> dict[str, str]:
    """A list in no order; returns what each address is to read, by our own reckoning."""
    folder.mkdir()
    rows = [(f"p{number % MESSAGES}@example.com", f"i{number}", number % 7 + 1) for number in range(ROWS)]
    rng.shuffle(rows)
    lines = "".join(f"{address},{item},{price}.25\n" for address, item, price in rows)
    (folder / "orders.csv").write_text(f"email,item,price\n{lines}")
    (folder / "order.txt").write_text(TEXT)
    (folder / "campaign.toml").write_text(CAMPAIGN)
    items, cents = defaultdict[str, list[str]](list), Counter[str]()
    for address, item, price in rows:
        items[address].append(item)
        cents[address] += 100 * price + 25
    return {
        address: f"{' '.join(found)} sum {cents[address] // 100}.{cents[address] % 100:02}."
        for address, found in items.items()
    }


@pytest.mark.timeout(120 + KILLS * 15)
async def test_messages_of_several_rows_survive_being_killed_at_any_instant(tmp_path: Path, rng: random.Random) -> None:
    kills, campaigns = 0, 0
    while kills < KILLS:
        campaigns += 1
        kills += await kill_through(tmp_path / str(campaigns), rng, most=KILLS - kills, said=f"seed {SEED}")


async def kill_through(folder: Path, rng: random.Random, *, most: int, said: str) -> int:
    """Sends one campaign, killed up to `most` times on its way, and holds relay, outbox and list together."""
    expected = await asyncio.to_thread(write_campaign, folder, rng)
    outbox, kills = folder / "run.outbox", 0
    async with ScriptedRelay() as relay:
        command = ["send", ".", "--yes", "--progress", "none", "--outbox", "run.outbox", "--relay"]
        command.append(f"smtp://{relay.host}:{relay.port}?tls=off&connections=3")
        while kills < most and len(relay.messages) < MESSAGES - 20:
            process = await start(*command, cwd=folder)
            target = len(relay.messages) + rng.randint(1, 40)
            ended = asyncio.ensure_future(process.communicate())
            while not ended.done() and len(relay.messages) < target:
                await asyncio.sleep(0.001)
            if process.returncode is None:
                process.kill()
                kills += 1
            await ended
        last = await run(*command, cwd=folder)
        assert last.code in (0, 4), last.err
        if last.code == 4:
            await run("resume", "run.outbox", "--yes", "--in-doubt", "retry", "--wait", "0", cwd=folder)
            await asyncio.to_thread(make_due, outbox)
            again = await run("resume", "run.outbox", "--yes", cwd=folder)
            assert again.code == 0, f"{said}: {again.err}"
    await asyncio.to_thread(hold, outbox, relay, expected, said)
    return kills


def hold(outbox: Path, relay: ScriptedRelay, expected: dict[str, str], said: str) -> None:
    """Asserts that each message came once, or again with the same bytes if it was in doubt, with all its rows."""
    with OutboxReader.open(outbox) as reader:
        assert reader.tally_by_row().by_status == {Status.ACCEPTED: ROWS}, said
        assert reader.tally().by_status == {Status.ACCEPTED: MESSAGES}, said
        tries = Counter(attempt.row for attempt in reader.attempts())
        rows = {row.address: row.row for row in reader.rows() if not row.shares}
    contents: dict[str, set[bytes]] = defaultdict(set)
    times: Counter[str] = Counter()
    for message in relay.messages:
        (address,) = message.forward_paths
        contents[address].add(message.content)
        times[address] += 1
    assert contents.keys() == expected.keys(), said
    for address, found in contents.items():
        assert len(found) == 1, f"{said}: two that are not the same to the byte: {address}"
        body = next(iter(found)).partition(b"\r\n\r\n")[2].decode().replace("=\r\n", "")
        assert " ".join(body.split()) == expected[address], said
        assert times[address] == 1 or tries[rows[address]] > 1, f"{said}: twice without having been in doubt"
