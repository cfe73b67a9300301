"""Quotas, hours and the canary as people meet them on the command line."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from bulkmail.testing import ScriptedRelay
from tests.e2e.commands import run, start, write_campaign

pytestmark = pytest.mark.slow

PEOPLE = [f"p{n}@example.com" for n in range(10)]
THOUSAND = [f"p{n}@example.com" for n in range(1000)]


def url_of(relay):
    return f"smtp://{relay.host}:{relay.port}?tls=off&connections=3"


def reached(relay):
    return Counter(path for message in relay.messages for path in message.forward_paths)


@pytest.fixture
def make_campaign(tmp_path):
    def make(relay, people=PEOPLE, settings="", name="spring"):
        return write_campaign(tmp_path / name, people, relay=url_of(relay), settings=settings)

    return make


async def test_quota_reply_pauses_and_the_run_after_it_sends_exactly_the_rest(make_campaign, tmp_path):
    taken = set()

    def rcpt(path):
        if len(taken) >= 500:
            return "550 5.4.5 Daily user sending quota exceeded. For more information on Gmail sending limits go to x"
        taken.add(path)
        return None

    async with ScriptedRelay(rcpt=rcpt) as relay:
        campaign = make_campaign(relay, THOUSAND)
        first = await run("send", campaign, "--yes", cwd=tmp_path)
        assert first.code == 3, first.err
        assert "Daily user sending quota exceeded" in first.err and "Sending is paused until" in first.err
        assert reached(relay) == dict.fromkeys(taken, 1) and len(taken) == 500
        taken.clear()
        tries = sum(command.startswith("RCPT") for command in relay.commands)
        early = await run("send", campaign, "--yes", cwd=tmp_path)
        assert early.code == 3, early.err
        assert sum(command.startswith("RCPT") for command in relay.commands) == tries
        status = await run("status", campaign, cwd=tmp_path)
        assert "Sending is paused until" in status.out and "Daily user sending quota" in status.out
        report = json.loads((campaign / "runs" / "spring-report.json").read_text())
        assert report["totals"]["accepted"] == 500 and report["totals"]["pending"] == 500
        assert report["totals"]["rejected"] == 0 and "quota" in report["rest"]["why"]
        last = await run("send", campaign, "--yes", "--lift-pause", cwd=tmp_path)  # or the day has passed
    assert last.code == 0, last.err
    assert reached(relay) == dict.fromkeys(THOUSAND, 1)


async def test_two_processes_share_the_quota_of_an_account(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaigns = [
            make_campaign(relay, [f"{name}{n}@example.com" for n in range(80)], 'quota = "100/day"', name)
            for name in ("ann", "ben")
        ]
        results = await asyncio.gather(*(run("send", each, "--yes", cwd=tmp_path) for each in campaigns))
        assert len(relay.messages) <= 100
        assert 3 in {result.code for result in results}
        again = [await run("send", each, "--yes", cwd=tmp_path) for each in campaigns]  # what one gave back
    assert 100 == len(relay.messages) == len(reached(relay))
    assert any("the quota of 100/day is used up" in result.err for result in again)


async def test_run_that_is_killed_never_lets_the_next_one_exceed_the_quota(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay, THOUSAND, 'quota = "300/day"')
        killed = await start("send", campaign, "--yes", cwd=tmp_path)
        while len(relay.messages) < 100:
            await asyncio.sleep(0.001)
        killed.kill()
        await killed.communicate()
        before = len(relay.messages)
        result = await run("send", campaign, "--yes", cwd=tmp_path)
    assert result.code == 3 and "the quota of 300/day is used up" in result.err
    assert before <= len(relay.messages) <= 300
    assert sum(command.startswith("RCPT") for command in relay.commands) <= 300


async def test_plan_is_reported_before_the_start(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        result = await run("send", campaign, "--yes", "--quota", "4/day", cwd=tmp_path)
    assert result.code == 3
    assert "plan: 4 today, 4 tomorrow, 2 on " in result.err
    assert len(relay.messages) == 4


async def test_send_outside_its_hours_says_when_and_resume_may_have_others(make_campaign, tmp_path):
    later = datetime.now(UTC) + timedelta(hours=3)
    window = f"{later:%H}:00-{later:%H}:59 UTC"
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay, settings=f'window = "{window}"\nquota = "5/day"')
        closed = await run("send", campaign, "--yes", cwd=tmp_path)
        assert closed.code == 3 and relay.sessions == 0
        assert "the hours of the campaign (window) are over for now" in closed.err
        wrong = await run("resume", campaign, "--yes", "--window", "Moonday", cwd=tmp_path)
        assert wrong.code == 2 and '--window "Moonday"' in wrong.err
        resumed = await run(
            "resume",
            campaign,
            "--yes",
            "--window",
            "00:00-24:00 UTC",
            "--quota",
            "100/day",
            "--canary",
            "3",
            cwd=tmp_path,
        )
    assert resumed.code == 0, resumed.err
    assert reached(relay) == dict.fromkeys(PEOPLE, 1)


async def test_run_that_waits_for_its_hours_says_so_and_can_be_stopped(make_campaign, tmp_path):
    later = datetime.now(UTC) + timedelta(hours=3)
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay, settings=f'window = "{later:%H}:00-{later:%H}:59 UTC"')
        waiting = await start("send", campaign, "--yes", "--wait", "forever", cwd=tmp_path)
        said = ""
        while "waiting until" not in said:
            said += (await waiting.stderr.readline()).decode()
        status = await run("status", campaign, cwd=tmp_path)
        waiting.terminate()
        await waiting.communicate()
    assert "Sending is paused until" in status.out and "the hours of the campaign" in status.out
    assert waiting.returncode == 3 and relay.sessions == 0


async def test_canary_that_fails_keeps_the_rest(make_campaign, tmp_path):
    async with ScriptedRelay(rcpt="550 5.1.1 who?") as relay:
        campaign = make_campaign(relay)
        result = await run("send", campaign, "--yes", "--canary", "3", cwd=tmp_path)
        status = await run("status", campaign, cwd=tmp_path)
    assert result.code == 3, result.err
    assert "of the first 3 messages none was accepted; the rest was not sent" in result.err
    assert "Sending is paused: of the first 3 messages none was accepted" in status.out
    assert sum(command.startswith("RCPT") for command in relay.commands) == 3


async def test_rehearsal_counts_for_no_quota(make_campaign, tmp_path, state_folder):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay, settings='quota = "1/day"\nwindow = "Mon 03:00-03:01 UTC"')
        for relay_url in ("sandbox:", "null:"):
            result = await run("send", campaign, "--relay", relay_url, cwd=tmp_path)
            assert result.code == 0, result.err
    assert not state_folder.exists()
