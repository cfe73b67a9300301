"""The watch over one run: a standstill, a run that was killed, and who may learn of it."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bulkmail.mailing import run_watch
from bulkmail.mailing.mailing import Mailing
from bulkmail.mailing.rows import GivenRows
from bulkmail.mailing.run_watch import RunWatch, notify_of_all_killed, record_notify
from bulkmail.model.campaign import Campaign
from bulkmail.model.errors import OutboxError
from bulkmail.model.notification import NotifySettings
from bulkmail.model.pace import Pace
from bulkmail.model.relay import Relay
from bulkmail.model.route import Route
from bulkmail.model.timing import Hold
from bulkmail.recipients.list_reading import ListOptions

SCRIPT = "import json, sys; open(sys.argv[1], 'a').write(json.dumps(json.load(sys.stdin)) + chr(10))"


@pytest.fixture
def reported(tmp_path: Path) -> Path:
    return tmp_path / "told.jsonl"


@pytest.fixture
def settings(reported: Path) -> NotifySettings:
    return NotifySettings(command=(sys.executable, "-c", SCRIPT, str(reported)))


@pytest.fixture
async def mailing(tmp_path: Path, campaign: Campaign, settings: NotifySettings) -> Mailing:
    rows = GivenRows([{"email": "ann@example.org", "name": "Ann"}], ListOptions())
    made = await Mailing.prepare(
        tmp_path / "spring.outbox",
        campaign=campaign,
        rows=rows,
        routes=[Route(Relay.parse("smtp://127.0.0.1:1?tls=off"))],
        pace=Pace(),
    )
    record_notify(made.outbox, settings)
    return made


def contents(reported: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in reported.read_text().splitlines()] if reported.exists() else []


def events(reported: Path) -> list[str]:
    return [event["type"] for event in contents(reported)]


async def test_standstill_is_notified_of_when_the_relay_is_the_trouble(
    mailing: Mailing, settings: NotifySettings, reported: Path
) -> None:
    record_notify(mailing.outbox, NotifySettings(command=settings.command, after=0.2))
    watch = await RunWatch.open(mailing, passwords=[None], say=lambda fault: pytest.fail(fault))
    await watch.begin()
    observe = watch.observing(lambda event: None)
    observe(Hold(time.time() + 3600, "the relay fails", is_planned=False))
    watching = asyncio.create_task(watch.watch())
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(events, reported):
            await asyncio.sleep(0.05)
    watching.cancel()
    mailing.abandon()
    [event] = await asyncio.to_thread(contents, reported)
    assert event["type"] == "run.stalled"
    assert event["data"]["totals"]["pending"] == 1


async def test_run_that_waits_for_its_hour_is_not_notified_of(
    mailing: Mailing, settings: NotifySettings, reported: Path
) -> None:
    record_notify(mailing.outbox, NotifySettings(command=settings.command, after=0.2))
    watch = await RunWatch.open(mailing, passwords=[None], say=lambda fault: pytest.fail(fault))
    await watch.begin()
    observe = watch.observing(lambda event: None)
    observe(Hold(time.time() + 3600, "the hours of the campaign"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.6):
            await watch.watch()
    mailing.abandon()
    assert events(reported) == []


@pytest.mark.slow
async def test_all_runs_of_the_user_that_were_killed_are_notified_of_once(mailing: Mailing, reported: Path) -> None:
    watch = await RunWatch.open(mailing, passwords=[None], say=lambda fault: pytest.fail(fault))
    await watch.begin()
    assert await notify_of_all_killed() == []
    assert events(reported) == []  # this process is at work
    mailing.abandon()
    assert await notify_of_all_killed() == []
    assert await notify_of_all_killed() == []
    assert events(reported) == ["run.killed"]


async def test_note_of_an_outbox_that_is_gone_is_removed(mailing: Mailing, reported: Path) -> None:
    watch = await RunWatch.open(mailing, passwords=[None], say=lambda fault: pytest.fail(fault))
    await watch.begin()
    path = mailing.outbox.path
    assert path is not None
    mailing.abandon()
    path.unlink()
    assert await notify_of_all_killed() == []
    assert list(await asyncio.to_thread(lambda: list(run_watch.all_notes()))) == []
    assert events(reported) == []


async def test_error_that_ends_a_run_is_raised_after_it_was_notified_of(mailing: Mailing, reported: Path) -> None:
    watch = await RunWatch.open(mailing, passwords=[None], say=lambda fault: pytest.fail(fault))
    await watch.begin()

    def finish() -> int:
        raise OutboxError("the disk is full")

    with pytest.raises(OutboxError, match="the disk is full"):
        await watch.ended(finish, lambda error: 3)
    mailing.abandon()
    [event] = await asyncio.to_thread(contents, reported)
    assert (event["type"], event["data"]["exit_code"]) == ("run.stopped", 3)
    assert event["data"]["error"] == "the disk is full"


async def test_fault_of_a_notification_is_said_and_kept(mailing: Mailing) -> None:
    record_notify(mailing.outbox, NotifySettings(command=("/no/such/program",)))
    said = list[str]()
    watch = await RunWatch.open(mailing, passwords=[None], say=said.append)
    await watch.begin()
    assert await watch.ended(lambda: 0, lambda error: 3) == 0
    path = mailing.outbox.path
    assert path is not None
    mailing.abandon()
    assert said == ["could not notify by command: No such file or directory"]
    note = await asyncio.to_thread(run_watch.note_of, path)
    assert note is not None and note.failed == ("by command: No such file or directory",)
    assert await notify_of_all_killed() == []  # a run that ended was not killed
