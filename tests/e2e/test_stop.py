"""`bulkmail stop`, `cancel` and `resume` from another terminal."""

from __future__ import annotations

import asyncio
import time

import pytest

from bulkmail.testing import ScriptedRelay
from tests.e2e.commands import run, start, write_campaign

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]  # several processes, on a busy machine

PEOPLE = [f"p{n}@example.com" for n in range(80)]


def url_of(relay):
    return f"smtp://{relay.host}:{relay.port}?tls=off"


@pytest.fixture
def make_campaign(tmp_path):
    return lambda relay: write_campaign(tmp_path / "spring", PEOPLE, relay=url_of(relay), settings='rate = "8/s"')


async def begun(relay):
    while len(relay.messages) < 3:
        await asyncio.sleep(0.01)


async def test_stop_from_another_terminal_and_resume(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        sending = await start("send", campaign, "--yes", cwd=tmp_path)
        await begun(relay)
        stopped = await run("stop", "spring", cwd=tmp_path, USER="ann", LOGNAME="ann")
        assert stopped.code == 0, stopped.err
        sent, at = len(relay.messages), time.monotonic()
        out, err = await sending.communicate()
        assert sending.returncode == 3
        assert "ann on " in err.decode() and "stopped this run: finishing the messages under way" in err.decode()
        assert "Stopped by ann on " in out.decode()
        assert "bulkmail resume spring/runs/spring.outbox" in stopped.out
        await asyncio.sleep(max(0, 3 - (time.monotonic() - at)))
        assert len(relay.messages) == sent
        resumed = await run("resume", "spring", "--yes", "--rate", "1000/s", cwd=tmp_path)
        assert resumed.code == 0, resumed.err
        assert len({path for message in relay.messages for path in message.forward_paths}) == len(PEOPLE)
    assert len(relay.messages) == len(PEOPLE)


async def test_cancel_stops_a_run_that_is_being_sent(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        sending = await start("send", make_campaign(relay), "--yes", cwd=tmp_path)
        await begun(relay)
        cancelled = await run("cancel", "spring", "--yes", cwd=tmp_path)
        await sending.communicate()
    assert cancelled.code == 0, cancelled.err
    assert f"{len(PEOPLE) - len(relay.messages)} recipients cancelled" in cancelled.out
