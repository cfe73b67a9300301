"""Killed at any instant: what was promised is there, and only what was marked is in doubt."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bulkmail.model.pace import Durability
from bulkmail.model.tally import Status
from bulkmail.outbox.outbox import Outbox
from bulkmail.outbox.outbox_reader import OutboxReader
from tests.outbox.making import due, make_entries, make_mark, make_settlement, statuses

ROOT = Path(__file__).parents[2]
CONNECTIONS = 7

# Sends to everyone over seven pretended connections, and says of each step when it was told that it is durable.
SENDER = """
import asyncio, os, random, sys
from pathlib import Path
from bulkmail.model.pace import Durability
from bulkmail.engine.run import Journal
from bulkmail.outbox.outbox import Outbox
from bulkmail.outbox.sending import OutboxStore
from tests.outbox.making import due, make_mark, make_settlement

def say(word, number):
    os.write(1, f"{word} {number}\\n".encode())

async def connection(journal, deliveries):
    loop = asyncio.get_running_loop()
    for delivery in deliveries:
        for word, entry in (("mark", make_mark(delivery)), ("done", make_settlement(delivery))):
            durable = loop.create_future()
            journal.put(entry, lambda error: durable.set_exception(error) if error else durable.set_result(None))
            await durable
            say(word, delivery.id)
            await asyncio.sleep(random.random() / 1000)

async def main():
    with Outbox.open(Path(sys.argv[1]), durability=Durability(sys.argv[2])) as outbox:
        say("doubt", outbox.newly_in_doubt)
        store = OutboxStore(outbox)
        async with Journal(store) as journal:
            everyone = due(outbox)
            await asyncio.gather(*(connection(journal, everyone[n::7]) for n in range(7)))
        await store.aclose()
asyncio.run(main())
"""


def killed(script: str, *arguments: object, after: Callable[[list[str]], bool]) -> tuple[list[str], int]:
    """What a Python process said until `after` of its lines was true and it was killed, and its exit code."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    said: list[str] = []
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line.strip())
            if process.poll() is None and after(said):
                process.send_signal(signal.SIGKILL)
    return said, process.returncode


@pytest.mark.crash
@pytest.mark.parametrize("durability", [Durability.PROCESS, Durability.POWER])
def test_killed_sender_keeps_every_promise(
    create: Callable[..., Outbox], path: Path, durability: Durability, rng: random.Random
) -> None:
    rows = 400
    create(make_entries(rows)).close()
    doubts = rounds = 0
    code = -9
    while code == -9:
        rounds += 1
        patience = rng.randint(50, 500)
        said, code = killed(SENDER, path, durability.value, after=lambda lines, n=patience: len(lines) >= n)
        words = [line.split() for line in said if len(line.split()) == 2]
        marked = {int(number) for word, number in words if word == "mark"}
        done = {int(number) for word, number in words if word == "done"}
        # Seen by a reader before anyone puts things in order.
        with OutboxReader.open(path) as reader:
            found = {row.row: row.status for row in reader.rows()}
            assert reader.is_running is None
            assert reader.tally().adds_up
        assert all(found[number] is Status.ACCEPTED for number in done)
        with Outbox.open(path) as outbox:
            found = {row.row: row.status for row in OutboxReader.over(outbox).rows()}
            assert outbox.newly_in_doubt <= CONNECTIONS
            assert all(found[number] in (Status.ACCEPTED, Status.IN_DOUBT) for number in marked)
            assert all(found[number] is Status.ACCEPTED for number in done)
            assert outbox.tally().adds_up
            doubts += outbox.newly_in_doubt
    assert code == 0
    assert rounds > 1
    with Outbox.open(path) as outbox:
        assert statuses(outbox).get(Status.IN_DOUBT, 0) == doubts
        assert outbox.tally()[Status.ACCEPTED] == rows - doubts
        with outbox.store.reading() as connection:
            tries = connection.execute("SELECT count(*), count(DISTINCT delivery) FROM attempt").fetchone()
            assert tries == (rows, rows), "no one was tried twice"
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


LOADER = """
import sys
from pathlib import Path
from bulkmail.outbox.outbox import Outbox
from tests.outbox.making import make_entries
with Outbox.create(Path(sys.argv[1]), campaign=None, replace=True) as outbox:
    for _ in range(40):
        outbox.record(make_entries(500))
        print("rows", flush=True)
    outbox.finish_loading()
"""


@pytest.mark.crash
@pytest.mark.parametrize("slices", [1, 7, 25])
def test_killed_loading_is_not_taken_for_a_run(path: Path, slices: int) -> None:
    _, code = killed(LOADER, path, after=lambda lines: len(lines) >= slices)
    assert code == -9
    with OutboxReader.open(path) as reader:
        assert not reader.is_loaded
        assert reader.tally().rows >= 500 * slices
    with Outbox.open(path) as outbox:
        assert not outbox.is_loaded
    with Outbox.create(path, campaign=None, replace=True) as outbox:
        outbox.record(make_entries(1))
        outbox.finish_loading()
        assert outbox.tally().rows == 1


@pytest.mark.crash
def test_process_killed_at_any_time_leaves_nothing_or_something_whole(path: Path, rng: random.Random) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", LOADER, path], env=environment, stdout=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.1, 1.2))
        process.kill()
        process.wait()
        if path.exists():
            with Outbox.open(path) as outbox:
                assert outbox.tally().adds_up
                assert outbox.tally().rows == 20_000 or not outbox.is_loaded


def test_rows_left_marked_are_in_doubt_and_nothing_else_is(create: Callable[..., Outbox], path: Path) -> None:
    outbox = create(make_entries(5))
    deliveries = due(outbox)
    outbox.write([make_mark(delivery, first_at=500.0) for delivery in deliveries[:4]])
    outbox.write([make_settlement(deliveries[0])])
    marked_at = time.time()
    outbox.close()  # for the file the same as a crash
    with Outbox.open(path) as outbox:
        assert outbox.newly_in_doubt == 3
        assert statuses(outbox) == {Status.ACCEPTED: 1, Status.IN_DOUBT: 3, Status.PENDING: 1}
        reader = OutboxReader.over(outbox)
        assert reader.recovered == 3
        assert reader.recovered_at == pytest.approx(time.time(), abs=60)
        row = next(reader.in_doubt())
        assert (row.row, row.attempts, row.message_id, row.first_at) == (2, 1, "<2@example.org>", 500.0)
        assert row.error == "bulkmail was ended before the server’s answer came"
        assert row.reason == "no answer to the end of the message"
        assert row.last_at == pytest.approx(marked_at, abs=60)
        with outbox.store.reading() as connection:
            assert connection.execute("SELECT count(*) FROM attempt").fetchone()[0] == 4
    with Outbox.open(path) as outbox:
        assert outbox.newly_in_doubt == 0
        outbox.settle_in_doubt(Status.PENDING)
        job = outbox.due(0.0, limit=9, excluding=())[0]
        assert (job.in_doubt_before, job.digest, job.delivery.first_at) == (True, b"0123456789abcdef", 500.0)


def test_reader_needs_no_index_of_the_log_that_a_killed_writer_left(create: Callable[..., Outbox], path: Path) -> None:
    """The -wal is there and the -shm is not: the reader makes its own view and leaves file and log as they were."""
    outbox = create(make_entries(3))
    outbox.write([make_settlement(due(outbox)[0])])
    copy = path.with_name("copy.outbox")
    copy.write_bytes(path.read_bytes())
    log = copy.with_name("copy.outbox-wal")
    log.write_bytes(path.with_name("run.outbox-wal").read_bytes())
    before = (copy.read_bytes(), log.read_bytes())
    with OutboxReader.open(copy) as reader:
        assert reader.tally().by_status == {Status.ACCEPTED: 1, Status.PENDING: 2}
    assert (copy.read_bytes(), log.read_bytes()) == before
    with Outbox.open(copy) as outbox:
        assert statuses(outbox) == {Status.ACCEPTED: 1, Status.PENDING: 2}
