"""Killed at any instant and started again: nobody is missing, nobody has it twice, the doubtful are named."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import Counter

import pytest

from bulkmail.model.delivery import Status
from bulkmail.outbox.reader import OutboxReader
from bulkmail.testing import Hang, ScriptedRelay
from tests.e2e.commands import run, start, write_campaign

CONNECTIONS = 5
DEPTH = 1  # rows of one connection that can be at their mark


def addresses(number):
    return [f"p{n}@example.com" for n in range(number)]


def statuses(outbox):
    """Address → status of every row."""
    with OutboxReader.open(outbox) as reader:
        assert reader.tally().adds_up
        return {record.address: record.status for record in reader.rows()}


async def kill_at_random(process, relay, dice):
    """Kills it after a while or after some messages, whichever the dice say; returns whether it was still running."""
    if dice.random() < 0.3:
        moment = asyncio.sleep(dice.uniform(0.1, 1.5))
    else:
        moment = received(relay, len(relay.messages) + dice.randint(1, 300))
    waiting = asyncio.ensure_future(moment)
    ended = asyncio.ensure_future(process.wait())
    await asyncio.wait([waiting, ended], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if process.returncode is None:
        process.kill()
    await ended
    await process.communicate()
    return process.returncode == -9


async def received(relay, number):
    while len(relay.messages) < number:
        await asyncio.sleep(0.001)


@pytest.mark.crash
@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_twenty_kills_lose_nobody_and_double_nobody(tmp_path):
    people = addresses(5000)
    seed = random.randrange(1 << 32)
    dice = random.Random(seed)
    async with ScriptedRelay() as relay:
        url = f"smtp://{relay.host}:{relay.port}?tls=off&connections={CONNECTIONS}"
        campaign = write_campaign(tmp_path / "spring", people, relay=url)
        outbox = campaign / "runs" / "spring.outbox"
        command = ("send", campaign, "--yes", "--progress", "none")
        kills = 0
        while kills < 20:
            process = await start(*command, cwd=tmp_path)
            kills += await kill_at_random(process, relay, dice)
            if process.returncode != -9:
                break
            if outbox.exists():
                at_most = kills * CONNECTIONS * DEPTH
                with OutboxReader.open(outbox) as reader:
                    assert reader.tally()[Status.IN_DOUBT] <= at_most, f"seed {seed}"
        last = await run(*command, cwd=tmp_path)
    got = Counter(path for message in relay.messages for path in message.forward_paths)
    now = statuses(outbox)
    doubtful = {address for address, status in now.items() if status is Status.IN_DOUBT}
    accepted = {address for address, status in now.items() if status is Status.ACCEPTED}
    assert accepted | doubtful == set(people), f"seed {seed}"
    assert accepted <= got.keys(), f"seed {seed}"
    assert not [address for address, times in got.items() if times > 1], f"seed {seed}"
    assert got.keys() - accepted <= doubtful
    assert len(doubtful) <= kills * CONNECTIONS * DEPTH
    # A kill may also come after the last row was settled: then the mailing has ended, and send says so.
    has_ended = last.code == 2 and "this mailing ended" in last.err
    assert has_ended or last.code == (4 if doubtful else 0), last.err
    assert kills >= 10, "the run ended before it could be killed often enough"


@pytest.mark.crash
@pytest.mark.timeout(60)
async def test_row_in_doubt_is_sent_again_with_the_same_octets_when_a_person_says_so(tmp_path):
    """Killed while the server has the end of a message: held at first, then sent once more, recognisably the same."""
    held = asyncio.Event()

    def hold(path):
        if not held.is_set():
            held.set()
            return Hang(keeps=True)
        return None

    async with ScriptedRelay(end=hold) as relay:
        url = f"smtp://{relay.host}:{relay.port}?tls=off&connections=1"
        campaign = write_campaign(tmp_path / "spring", addresses(3), relay=url)
        process = await start("send", campaign, "--yes", cwd=tmp_path)
        await held.wait()
        await asyncio.sleep(0.1)
        process.kill()
        await process.communicate()
        second = await run("send", campaign, "--yes", cwd=tmp_path)
        assert second.code == 4
        assert len(relay.messages) == 3
        assert statuses(campaign / "runs" / "spring.outbox")["p0@example.com"] is Status.IN_DOUBT
        # Ten minutes must pass before a second copy may go; the outbox says when.
        third = await run("resume", campaign, "--in-doubt", "retry", "--wait", "0", cwd=tmp_path)
        assert third.code == 3
        assert len(relay.messages) == 3
        make_due(campaign / "runs" / "spring.outbox")
        fourth = await run("resume", campaign, cwd=tmp_path)
    assert fourth.code == 0, fourth.err
    first, again = (m for m in relay.messages if m.forward_paths == ("p0@example.com",))
    assert first.content == again.content


def make_due(outbox):
    """As if the ten minutes had passed."""
    with sqlite3.connect(outbox) as connection:
        connection.execute("UPDATE delivery SET due_at = 1 WHERE due_at > 1")
    connection.close()
