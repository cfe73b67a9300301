"""The fault matrix, F40 to F62: what servers, machines and people do to a run that is under way."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import anyio
import pytest

from bulkmail.model.errors import OutboxError
from bulkmail.model.pace import Pace
from bulkmail.model.rate import Rate
from bulkmail.model.retry import RetryPolicy
from bulkmail.model.tally import Status
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.testing import ScriptedRelay
from tests.e2e.commands import environment, run, start, write_campaign
from tests.faults.oracle import hold, hold_report, make_campaign, marked_in, witness
from tests.faults.quick import FastClock
from tests.servers.sinks import run_sink

pytestmark = pytest.mark.slow

SOON = Pace(retry=RetryPolicy(schedule=(1.0,) * 8))
PEOPLE = [f"p{n}@example.com" for n in range(300)]


def reached(relay):
    return Counter(path for message in relay.messages for path in message.forward_paths)


def statuses_of(outbox: Path) -> Counter[Status]:
    with OutboxReader.open(outbox) as reader:
        assert reader.tally().adds_up
        return Counter(row.status for row in reader.rows())


@pytest.mark.timeout(90)
async def test_f40_server_that_is_restarted_again_and_again_gets_everything_once(tmp_path, rng):
    """By SIGKILL at any instant, 16 messages under way on each connection; the run goes on by itself."""
    campaign = make_campaign(tmp_path / "spring", PEOPLE, settings='retry = "0s*20"\nwait = "30s"\n')
    restarts = 0
    offered = ["PIPELINING", "CHUNKING", "8BITMIME"]
    async with witness(tmp_path / "log", extensions=offered, delay=0.02, syncs=False) as seen:
        sending = await start("send", campaign, "--yes", "--relay", seen.url(2, depth=16), cwd=tmp_path)
        ended = asyncio.ensure_future(sending.communicate())
        while not ended.done() and restarts < 4:
            target = seen.size + rng.randint(1, 12_000)
            while seen.size < target and not ended.done():
                await asyncio.sleep(0.002)
            await seen.start_again()
            restarts += 1
        _, err = await ended
        verdict = hold(campaign / "runs" / "spring.outbox", PEOPLE, seen, said=err.decode())
    assert verdict.twice == 0
    assert verdict.statuses.keys() <= {Status.ACCEPTED, Status.IN_DOUBT}, err.decode()
    assert verdict.statuses[Status.IN_DOUBT] <= restarts * 2 * 16
    assert sending.returncode == (4 if verdict.statuses[Status.IN_DOUBT] else 0), err.decode()
    hold_report(campaign / "runs" / "spring-report.csv", PEOPLE, verdict.statuses)


async def test_f45_server_without_smtputf8_gets_what_can_be_said_in_ascii(tmp_path):
    people = ["é@example.com", "info@例子.中国", "ann@example.com"]
    async with ScriptedRelay(extensions=("8BITMIME",)) as relay:
        url = f"smtp://{relay.host}:{relay.port}?tls=off"
        campaign = write_campaign(tmp_path / "spring", people, relay=url)
        result = await run("send", campaign, "--yes", cwd=tmp_path)
    assert result.code == 1, result.err
    assert reached(relay) == {"info@xn--fsqu00a.xn--fiqs8s": 1, "ann@example.com": 1}
    assert statuses_of(campaign / "runs" / "spring.outbox") == {Status.ACCEPTED: 2, Status.REJECTED: 1}
    assert relay.violations == []


@pytest.mark.parametrize("what", ["mark", "outcome"])
async def test_f53_outbox_that_cannot_be_written_stops_before_the_next_end(people, make_engine, outbox, what):
    """Whatever was not recorded was not ended either; an outcome that could not be stored leaves its mark."""
    people(60)
    write, calls = outbox.write, []

    def failing(entries):
        calls.append(entries)
        names = {type(entry).__name__ for entry in entries}
        if len(calls) > 20 and ("Mark" if what == "mark" else "Settlement") in names:
            raise OutboxError("the outbox: disk full")
        write(entries)

    outbox.write = failing
    async with ScriptedRelay() as relay:
        with anyio.fail_after(10):
            ending = await make_engine(relay, connections=3).run()
    assert isinstance(ending.error, OutboxError)
    rows = {row.address: row.status for row in OutboxReader.over(outbox).rows()}
    accepted = {address for address, status in rows.items() if status is Status.ACCEPTED}
    with outbox.store.reading() as connection:
        marked = set(marked_in(connection))
    assert accepted <= reached(relay).keys() <= accepted | marked
    assert len(marked) <= 3


@pytest.mark.timeout(60)
async def test_f47_rate_limit_that_no_one_reported_us_is_met_by_a_whole_send(tmp_path):
    """Thirty messages in any second, else 454: everyone gets one, few are asked in vain, and little time is lost."""
    people = PEOPLE[:180]
    campaign = make_campaign(tmp_path / "spring", people, settings='retry = "1s*30"\nwait = "30s"\n')
    taken, refused = [], []

    def end(path):
        now = time.monotonic()
        if len([at for at in taken if at > now - 1]) >= 30:
            refused.append(now)
            return "454 4.7.0 Throttling failure: Maximum sending rate exceeded."
        taken.append(now)
        return None

    async with ScriptedRelay(end=end) as relay:
        url = f"smtp://{relay.host}:{relay.port}?tls=off&connections=5"
        result = await run("send", campaign, "--yes", "--relay", url, cwd=tmp_path)
    assert result.code == 0, result.err
    assert reached(relay) == Counter(people)
    assert statuses_of(campaign / "runs" / "spring.outbox") == {Status.ACCEPTED: 180}
    assert refused, "the limit was never met"
    assert len([at for at in refused if at > taken[0] + 2]) <= 8
    assert taken[-1] - taken[0] < 180 / 30 * 2


@pytest.mark.parametrize("jump", [3600.0, -3600.0, 86_400 * 400.0], ids=["ahead", "back", "a-year"])
async def test_f56_clock_that_jumps_loses_no_recipient_and_hurries_no_one(people, make_engine, outbox, jump):
    """Rates and time-outs live by another clock; what was deferred is due no later than its wait after the jump."""
    people(40)
    clock = FastClock(20)
    seen: list[float] = []

    def rcpt(path):
        seen.append(clock.monotonic())
        if len(seen) == 10:
            clock.wall += jump
        return "450 4.2.1 later" if len(seen) in (5, 15) else None

    async with ScriptedRelay(rcpt=rcpt) as relay:
        pace = Pace(rate=Rate.parse("40/s"), retry=RetryPolicy(schedule=(2.0,) * 5), wait=30.0)
        await make_engine(relay, pace=pace, clock=clock).run()
    tally = outbox.tally()
    assert tally.adds_up
    assert tally[Status.ACCEPTED] == len(relay.messages) == 40 - tally[Status.DEFERRED]
    assert tally[Status.DEFERRED] <= (1 if jump < 0 else 0)
    assert not [path for path, times in reached(relay).items() if times > 1]
    for first, last in zip(seen, seen[20:], strict=False):
        assert last - first >= 0.3, "the rate was not kept"


@pytest.mark.timeout(40)
async def test_f57_few_file_descriptors_are_no_reason_to_lose_anyone(tmp_path):
    """200 connections are asked for, and the system gives 64 descriptors in all."""
    campaign = make_campaign(tmp_path / "spring", PEOPLE, settings='wait = "30s"\n')
    async with witness(tmp_path / "log", syncs=False, delay=0.005) as seen:
        sending = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bulkmail", "send", str(campaign), "--yes", "--relay", seen.url(200),
            cwd=tmp_path, env=environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
        )  # fmt: skip
        _, err = await sending.communicate()
        outbox = campaign / "runs" / "spring.outbox"
        if sending.returncode == 3:  # it stopped with everyone safe, and goes on when told
            again = await run("send", campaign, "--yes", "--relay", seen.url(4), cwd=tmp_path)
            assert again.code == 0, again.err
        verdict = hold(outbox, PEOPLE, seen, said=err.decode())
    assert sending.returncode in (0, 3), err.decode()
    assert verdict.statuses == {Status.ACCEPTED: 300}, err.decode()
    assert verdict.twice == 0
    assert "Traceback" not in err.decode() and "bug" not in err.decode(), err.decode()


@pytest.mark.parametrize("extensions", [("8BITMIME",), ("8BITMIME", "PIPELINING")], ids=["plain", "pipelining"])
async def test_f58_cancelled_at_any_turn_of_the_loop_leaves_books_that_agree(
    people, make_engine, outbox, loop_watch, extensions
):
    """Whatever had its end on its way is at its mark, and no session stays open."""
    people(400)
    got: Counter[str] = Counter()
    async with ScriptedRelay(extensions=extensions) as relay:
        for turns in [*range(30), *range(30, 300, 13)]:
            task = asyncio.ensure_future(make_engine(relay, connections=3).run())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
                raise asyncio.CancelledError  # it was through before
            with anyio.fail_after(20):
                while relay.open_sessions:
                    await asyncio.sleep(0.001)
    got = reached(relay)
    rows = {row.address: row.status for row in OutboxReader.over(outbox).rows()}
    with outbox.store.reading() as connection:
        known = set(marked_in(connection)) | {a for a, s in rows.items() if s in (Status.ACCEPTED, Status.IN_DOUBT)}
    assert {a for a, s in rows.items() if s is Status.ACCEPTED} <= got.keys() <= known
    assert not [path for path, times in got.items() if times > 1]
    assert outbox.tally().adds_up
    assert not [task for task in asyncio.all_tasks() if "Worker" in repr(task)]


MEASURED = """
import atexit, sys
from pathlib import Path
def tell():
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    Path(sys.argv[1]).write_text(status["VmHWM"].split()[0])
atexit.register(tell)
from bulkmail.cli import main
main(sys.argv[2:])
"""


@pytest.mark.timeout(180)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have no /proc")
async def test_f59_whole_send_takes_no_more_memory_for_more_rows(tmp_path):
    """From list to reports, as a process, against Postfix' smtp-sink: five times the rows, the same peak.

    `benchmarks/million.py` does the same with a million, killed and resumed five times.
    """
    peaks = {}
    with run_sink() as sink:
        for rows in (4_000, 20_000):
            campaign = make_campaign(tmp_path / str(rows), [f"p{n}@example{n % 50}.com" for n in range(rows)])
            sending = await asyncio.create_subprocess_exec(
                sys.executable, "-c", MEASURED, "peak", "send", str(campaign), "--yes", "--relay", sink.url,
                "--report", "report.csv", "--report", "report.json",
                cwd=tmp_path, env=environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            _, err = await sending.communicate()
            assert sending.returncode == 0, err.decode()
            assert statuses_of(campaign / "runs" / f"{rows}.outbox") == {Status.ACCEPTED: rows}
            peaks[rows] = int((tmp_path / "peak").read_text())
        assert sink.count() == 24_000
    assert peaks[20_000] - peaks[4_000] < 8_000, f"KB: {peaks}"  # a row kept would be a kilobyte at least: 16 MB


# --- a hostile machine -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", [signal.SIGTERM, signal.SIGHUP], ids=["sigterm", "sighup"])
async def test_signal_of_the_system_leaves_a_run_that_goes_on(tmp_path, word):
    """What a shutdown or a closed terminal sends: no one is lost or doubled, and the same command goes on."""
    people = PEOPLE[:120]
    campaign = make_campaign(tmp_path / "spring", people)
    async with witness(tmp_path / "log", delay=0.01, syncs=False) as seen:
        command = ("send", campaign, "--yes", "--relay", seen.url(2))
        sending = await start(*command, cwd=tmp_path)
        while seen.size < 3000:
            await asyncio.sleep(0.01)
        sending.send_signal(word)
        with anyio.fail_after(40):
            _, err = await sending.communicate()
        assert sending.returncode != 0
        again = await run(*command, cwd=tmp_path)
        verdict = hold(campaign / "runs" / "spring.outbox", people, seen, said=err.decode())
    assert again.code in (0, 4), again.err
    assert verdict.twice == 0
    assert verdict.statuses[Status.IN_DOUBT] <= 4, err.decode()


async def test_full_pipe_at_standard_output_stops_nothing(tmp_path):
    """No one reads the output: the messages are sent all the same, and the result is shown to the next reader."""
    people = PEOPLE[:150]
    campaign = make_campaign(tmp_path / "spring", people)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writing, True)
    async with witness(tmp_path / "log", syncs=False) as seen:
        sending = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bulkmail", "send", str(campaign), "--yes", "--relay", seen.url(2),
            cwd=tmp_path, env=environment(), stdin=asyncio.subprocess.DEVNULL, stdout=writing,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        os.close(writing)
        with anyio.fail_after(40):
            while seen.log.read_text().count("\n") < 150 if seen.log.exists() else True:
                await asyncio.sleep(0.05)
        os.close(reading)
        with anyio.fail_after(15):
            await sending.wait()
        verdict = hold(campaign / "runs" / "spring.outbox", people, seen)
    assert verdict.statuses == {Status.ACCEPTED: 150}


@pytest.mark.timeout(120)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not follow RLIMIT_AS")
async def test_attachment_of_100_mb_without_memory_for_it_is_reported_and_leaves_the_list_whole(tmp_path):
    """However little: too little to read it, to record it or to make messages of it; without it all goes well."""
    people = PEOPLE[:3]
    campaign = make_campaign(tmp_path / "spring", people)
    outbox, film = campaign / "runs" / "spring.outbox", campaign / "film.bin"
    with film.open("wb") as file:
        file.truncate(100_000_000)  # takes no room on the disk
    codes = []
    async with witness(tmp_path / "log", syncs=False, extensions=["8BITMIME"]) as seen:
        command = ["send", str(campaign), "--yes", "--attach", str(film), "--relay", seen.url(1)]
        for megabytes in (300, 450, 600):
            sending = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bulkmail", *command,
                cwd=tmp_path, env=environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                preexec_fn=lambda limit=megabytes << 20: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
            )  # fmt: skip
            _, err = await sending.communicate()
            said = f"{megabytes} MB, {sending.returncode}: {err.decode()}"
            codes.append(sending.returncode)
            assert "memory" in said and "hint: " in said, said
            assert "Traceback" not in said and "bug" not in said, said
            if sending.returncode == 3:
                assert f"bulkmail resume {outbox}" in said, said
                assert statuses_of(outbox) == {Status.PENDING: 3}, said
            assert seen.size == 0, said
        again = await run("send", campaign, "--yes", "--relay", seen.url(1), cwd=tmp_path)
        assert again.code == 0, again.err
        verdict = hold(outbox, people, seen)
    assert codes[0] == 2 and set(codes) <= {2, 3}, codes
    assert verdict.statuses == {Status.ACCEPTED: 3}
