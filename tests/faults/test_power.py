"""The plug is pulled: whatever someone was told is in every later copy of the outbox, wherever its log is cut."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from bulkmail.model.delivery import Mark
from bulkmail.model.pace import Durability
from bulkmail.model.tally import Status
from bulkmail.outbox.outbox import Outbox
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.testing import ScriptedRelay
from tests.connections import results_of

pytestmark = pytest.mark.crash

PEOPLE = 48
HEADER, FRAME_HEADER = 32, 24  # bytes of SQLite's write-ahead log


@pytest.fixture(params=[Durability.POWER, Durability.PROCESS], ids=lambda durability: durability.value)
def outbox(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Outbox]:
    """A file, in each durability."""
    with Outbox.create(tmp_path / "run.outbox", campaign=None, durability=request.param) as box:
        yield box


@pytest.fixture(autouse=True)
def _may_look_at_the_log(loop_watch: BlockBuster) -> None:
    """In the instant that somebody is told: a test may hold up the loop for that, bulkmail may not."""
    loop_watch.functions["os.stat"].can_block_in("faults/test_power.py", {"watch", "noted"})


def log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def frames_of(log: bytes) -> list[int]:
    """Where each frame ends; 0 is a log that was never begun."""
    page = int.from_bytes(log[8:12], "big")
    return [0, *range(HEADER, len(log) + 1, FRAME_HEADER + page)]


class Lost:
    """A copy of the outbox as the disk has it after the lights went out."""

    def __init__(self, folder: Path, database: bytes, log: bytes) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        path = folder / "copy.outbox"
        path.write_bytes(database)
        log_of(path).write_bytes(log)
        with Outbox.open(path) as found:
            assert found.tally().adds_up
            assert found.tally().rows == PEOPLE
            rows = {row.row: row.status for row in OutboxReader.over(found).rows()}
            with found.store.reading() as connection:
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                tries = connection.execute(
                    "SELECT DISTINCT delivery FROM attempt WHERE outcome = 'accepted'"
                ).fetchall()
        self.accepted = {row for row, status in rows.items() if status is Status.ACCEPTED}
        self.in_doubt = {row for row, status in rows.items() if status is Status.IN_DOUBT}
        assert self.accepted == {row for (row,) in tries}


async def send_all(people: Callable[[int], list[str]], make_engine: Callable[..., object], outbox: Outbox, path: Path):
    """Sends to everyone; says how large the log was when each mark and each outcome was told."""
    people(PEOPLE)
    reported: list[tuple[int, int]] = []
    marked: list[tuple[int, int]] = []

    def watch(event: object) -> None:
        size, told = log_of(path).stat().st_size, results_of([event])
        reported.extend((size, each.delivery.id) for each in told if each.delivery.status is Status.ACCEPTED)

    async with ScriptedRelay(extensions=("8BITMIME", "PIPELINING")) as relay:
        engine = make_engine(relay, connections=2)
        engine._run.telling._observe = watch
        put = engine._run.journal.put

        def noting(entry, done):
            def noted(error):
                if isinstance(entry, Mark) and error is None:
                    marked.append((log_of(path).stat().st_size, entry.delivery_id))
                done(error)

            put(entry, noted)

        engine._run.journal.put = noting
        await engine.run()
    assert outbox.tally()[Status.ACCEPTED] == PEOPLE
    return reported, marked


async def test_f52_log_cut_at_every_frame_forgets_nothing_that_was_reported(
    people, make_engine, outbox, tmp_path, loop_watch
):
    """With "power" the log is on disk when an outcome is reported.  With "process" a cut log is only shorter."""
    path = outbox.path
    reported, marked = await send_all(people, make_engine, outbox, path)
    loop_watch.deactivate()
    database, log = path.read_bytes(), log_of(path).read_bytes()
    assert len(reported) == len(marked) == PEOPLE
    ends = frames_of(log)
    assert len(ends) > 24
    shrinking: set[int] = set()
    for end in ends:
        after = Lost(tmp_path / "lost", database, log[:end])
        assert {row for size, row in reported if size <= end} <= after.accepted, "forgot what it had told"
        known = after.accepted | after.in_doubt
        assert {row for size, row in marked if size <= end} <= known, "an end was on its way, and no one knows"
        assert shrinking <= after.accepted
        shrinking = after.accepted
    assert len(shrinking) == PEOPLE


@pytest.mark.parametrize("outbox", [Durability.POWER], indirect=True)
async def test_f52_torn_frame_takes_only_itself_along(people, make_engine, outbox, tmp_path, loop_watch):
    """A frame half written, or full of what lay there before."""
    path = outbox.path
    reported, _ = await send_all(people, make_engine, outbox, path)
    loop_watch.deactivate()
    database, log = path.read_bytes(), log_of(path).read_bytes()
    ends = frames_of(log)
    assert len(ends) > 24
    for end in ends[3::5]:
        for tail in (log[end : end + 700], bytes(4096 + FRAME_HEADER), log[end : end + 40] + b"\xa5" * 4080):
            after = Lost(tmp_path / "lost", database, log[:end] + tail)
            assert {row for size, row in reported if size <= end} <= after.accepted


@pytest.mark.parametrize("outbox", [Durability.POWER], indirect=True)
async def test_f50_checkpoint_cut_off_at_any_page_forgets_nothing(people, make_engine, outbox, tmp_path, loop_watch):
    """The log stays until all its pages are in the file: killed in between, either has them."""
    path = outbox.path
    await send_all(people, make_engine, outbox, path)
    loop_watch.deactivate()
    before, log = path.read_bytes(), log_of(path).read_bytes()
    with outbox.store.reading() as connection:
        assert connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[0] == 0
    after = path.read_bytes()
    assert log_of(path).read_bytes()[: len(log)] == log
    page = int.from_bytes(log[8:12], "big")
    before = before.ljust(len(after), b"\0")
    for cut in range(0, len(after) + 1, page):
        assert len(Lost(tmp_path / "lost", after[:cut] + before[cut:], log).accepted) == PEOPLE
