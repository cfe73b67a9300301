"""Killed at any instant and started again: no one is missing, no one has it twice, the doubtful are named.

CI kills some two dozen times; `BULKMAIL_KILLS=200` kills two hundred times, and `BULKMAIL_KILLS_LOG` names a file that
the figures are added to.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bulkmail.model.tally import Status
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.testing import Hang, ScriptedRelay
from tests.chance import SEED
from tests.e2e.commands import run, start, write_campaign
from tests.faults.oracle import Seen, count_marks, hold, hold_report, make_campaign, make_due, witness

pytestmark = pytest.mark.crash

KILLS = int(os.environ.get("BULKMAIL_KILLS", "24"))
CONNECTIONS = 4
GREYLISTED = {"stage": "rcpt", "probability": 0.06, "once_each": True, "does": "450 4.2.1 come again"}
PLANS = {  # what the servers offer, how many of them there are, and how many rows of a connection can be at their mark
    "plain": ([], 1, 1),
    "pipelining-two-relays": (["PIPELINING"], 2, 2),
    "chunking": (["PIPELINING", "CHUNKING"], 1, 8),
    "chunking-two-relays-power": (["PIPELINING", "CHUNKING"], 2, 8),
}


def addresses(number: int) -> list[str]:
    return [f"p{n}@example.com" for n in range(number)]


@dataclass
class Tolls:
    """What the kills came to."""

    kills: int = 0
    campaigns: int = 0
    marks: list[int] = field(default_factory=list)  # rows at their mark, after each kill
    twice: int = 0
    taken: int = 0


def when(rng: random.Random, servers: Sequence[Seen], outbox: Path) -> Callable[[], bool]:
    """An instant: a while after the start, or right after a server wrote something down and before it answers.

    Or as soon as the run is loaded, or while the log is copied into the file at its end.
    """
    loop = asyncio.get_running_loop()
    draw = rng.random()
    if draw < 0.4:
        until = loop.time() + rng.uniform(0.0, 2.0)
        return lambda: loop.time() >= until
    if draw < 0.9:
        target = sum(seen.size for seen in servers) + rng.randint(1, 40_000)
        return lambda: sum(seen.size for seen in servers) >= target
    return lambda: outbox.exists()


async def kill_at(process: asyncio.subprocess.Process, has_come: Callable[[], bool]) -> bool:
    """Kills it when the instant has come; whether it was still running then."""
    ended = asyncio.ensure_future(process.communicate())
    while not ended.done() and not has_come():
        await asyncio.sleep(0.001)
    if process.returncode is None:
        process.kill()
    await ended
    return process.returncode == -9


@pytest.mark.timeout(60 + KILLS * 10)
@pytest.mark.parametrize("plan", PLANS)
async def test_f49_killed_at_any_instant_loses_no_recipient_and_duplicates_none(
    tmp_path: Path, plan: str, rng: random.Random
) -> None:
    offered, number, depth = PLANS[plan]
    tolls = Tolls()
    wanted = max(1, KILLS // len(PLANS))
    while tolls.kills < wanted:
        folder = tmp_path / str(tolls.campaigns)
        folder.mkdir()
        await kill_through_a_campaign(
            folder, rng, tolls, wanted=wanted, offered=offered, number=number, depth=depth, said=f"seed {SEED}, {plan}"
        )
        tolls.campaigns += 1
    note_figures(
        plan=plan,
        kills=tolls.kills,
        campaigns=tolls.campaigns,
        taken=tolls.taken,
        twice=tolls.twice,
        bound=CONNECTIONS * number * depth,
        marks=sorted(tolls.marks),
    )


def note_figures(**figures: object) -> None:
    """For anyone who wants to know how often and how narrowly."""
    if "BULKMAIL_KILLS_LOG" in os.environ:
        with Path(os.environ["BULKMAIL_KILLS_LOG"]).open("a") as log:
            log.write(json.dumps(figures) + "\n")


async def kill_through_a_campaign(
    folder: Path,
    rng: random.Random,
    tolls: Tolls,
    *,
    wanted: int,
    offered: list[str],
    number: int,
    depth: int,
    said: str,
) -> None:
    """Kills one campaign again and again until it is through or there were kills enough, then opens the books."""
    people = addresses(600)
    power = 'durability = "power"\n' if "power" in said else ""
    campaign = make_campaign(folder / "spring", people, settings=f'retry = "0s*20"\nwait = "30s"\n{power}')
    outbox = campaign / "runs" / "spring.outbox"
    options = {"extensions": ["8BITMIME", *offered], "faults": [GREYLISTED], "delay": 0.004, "syncs": False}
    servers = [witness(folder / f"log{n}", seed=n, **options) for n in range(number)]
    async with servers[0] as first:
        seen = [first]
        if number == 2:
            seen.append(await servers[1].__aenter__())
        try:
            command = ["send", campaign, "--yes", "--progress", "none"]
            for n, server in enumerate(seen):
                command += ["--relay", server.url(CONNECTIONS, depth=depth, name=f"r{n}", weight=1)]
            is_running = True
            while is_running and tolls.kills < wanted:
                process = await start(*command, cwd=folder)
                before = in_doubt(outbox)
                is_running = await kill_at(process, when(rng, seen, outbox))
                if is_running:
                    tolls.kills += 1
                    tolls.marks.append(count_marks(outbox))
                    assert tolls.marks[-1] <= CONNECTIONS * number * depth, said
                    assert in_doubt(outbox) <= before + (tolls.marks[-2] if len(tolls.marks) > 1 else 0), said
            last = await run(*command, cwd=folder)
            verdict = hold(outbox, people, *seen, said=f"{said}: {last.err}")
            assert verdict.statuses.keys() <= {Status.ACCEPTED, Status.IN_DOUBT}, f"{said}: {last.err}"
            assert verdict.twice == 0, said
            # A kill may also come after the last row was settled: then the mailing has ended, and send says so.
            has_ended = last.code == 2 and "this mailing ended" in last.err
            assert has_ended or last.code == (4 if verdict.statuses[Status.IN_DOUBT] else 0), last.err
            if not has_ended:
                hold_report(campaign / "runs" / "spring-report.csv", people, verdict.statuses)
            if verdict.statuses[Status.IN_DOUBT]:
                await run("resume", campaign, "--yes", "--in-doubt", "retry", "--wait", "0", cwd=folder)
                make_due(outbox)
                again = await run("resume", campaign, "--yes", cwd=folder)
                assert again.code == 0, again.err
                verdict = hold(outbox, people, *seen, said=said)
                assert verdict.statuses == {Status.ACCEPTED: len(people)}
            tolls.twice += verdict.twice
            tolls.taken += verdict.taken
        finally:
            for server in seen[1:]:
                await server.stop()


def in_doubt(outbox: Path) -> int:
    """How many rows are in doubt as it stands, before anyone puts it in order."""
    if not outbox.exists():
        return 0
    with OutboxReader.open(outbox) as reader:
        return reader.tally()[Status.IN_DOUBT] if reader.is_loaded else 0


@pytest.mark.timeout(60)
async def test_row_in_doubt_is_sent_again_with_the_same_bytes_when_a_person_says_so(tmp_path):
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
        third = await run("resume", campaign, "--yes", "--in-doubt", "retry", "--wait", "0", cwd=tmp_path)
        assert third.code == 3
        assert len(relay.messages) == 3
        make_due(campaign / "runs" / "spring.outbox")
        fourth = await run("resume", campaign, "--yes", cwd=tmp_path)
    assert fourth.code == 0, fourth.err
    first, again = (m for m in relay.messages if m.forward_paths == ("p0@example.com",))
    assert first.content == again.content


def statuses(outbox: Path) -> dict[str, Status]:
    """Address → status of every row."""
    with OutboxReader.open(outbox) as reader:
        assert reader.tally().adds_up
        return {record.address: record.status for record in reader.rows()}


@pytest.mark.timeout(60)
async def test_f50_killed_report_leaves_outbox_and_old_report_whole(tmp_path: Path, rng: random.Random) -> None:
    """A report that is there is whole, old or new; the outbox only ever was read."""
    people = addresses(4000)
    async with ScriptedRelay() as relay:
        url = f"smtp://{relay.host}:{relay.port}?tls=off"
        campaign = write_campaign(tmp_path / "spring", people, relay=url)
        await run("send", campaign, "--yes", "--limit", "50", cwd=tmp_path)
    outbox = campaign / "runs" / "spring.outbox"
    before = outbox.read_bytes()
    report = tmp_path / "report.csv"
    report.write_text("the old one")
    for _ in range(6):
        process = await start("report", outbox, "-o", report, cwd=tmp_path)
        await asyncio.sleep(rng.uniform(0.2, 0.8))
        if process.returncode is None:
            process.kill()
        await process.communicate()
        text = report.read_text()
        assert text == "the old one" or text.count("\n") == 4001
    assert outbox.read_bytes() == before
    assert statuses(outbox)["p3999@example.com"] is Status.PENDING


@pytest.mark.timeout(120)
async def test_f50_killed_while_loading_or_checking_sends_no_one_until_all_of_it_was_done(tmp_path: Path) -> None:
    """In the middle of the rows, and in the middle of the checks: nothing half done is sent, by whatever command."""
    people = addresses(8000)
    campaign = make_campaign(tmp_path / "spring", people)
    outbox = campaign / "runs" / "spring.outbox"
    instants: dict[str, Callable[[], bool]] = {
        "loading": lambda: stands(outbox)[0] >= 2000,
        "checking": lambda: stands(outbox)[1],
    }
    async with witness(tmp_path / "log", syncs=False) as seen:
        command = ("send", campaign, "--yes", "--limit", "50", "--relay", seen.url(2), "--report", "r.csv")
        for name, has_come in instants.items():
            assert await kill_at(await start(*command, cwd=tmp_path), has_come), name
            rows, is_loaded = stands(outbox)
            assert (rows < len(people)) is (name != "checking") and is_loaded is (name == "checking"), name
            refused = await run("resume", outbox, "--yes", cwd=tmp_path)
            assert refused.code == 2, refused.err
            assert "hint: send the campaign again" in refused.err
            assert seen.size == 0, name
        last = await run(*command, cwd=tmp_path)
        taken = [entry.path for entry in seen.taken()]
    assert last.code == 3, last.err
    assert len(taken) == len(set(taken)) == 50
    found = statuses(outbox)
    assert set(found) == set(people)
    assert {address for address, status in found.items() if status is Status.ACCEPTED} == set(taken)


def stands(outbox: Path) -> tuple[int, bool]:
    """How many rows are in the outbox, and whether it is past loading."""
    try:
        with closing(sqlite3.connect(f"file:{outbox}?mode=ro", uri=True)) as connection:
            rows, loaded_at = connection.execute("SELECT (SELECT max(number) FROM row), loaded_at FROM run").fetchone()
    except sqlite3.OperationalError:  # there is none just now
        return 0, False
    return rows or 0, loaded_at is not None
