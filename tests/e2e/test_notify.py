"""`[notify]`: who is notified of the end of a run, of a stop and of a kill, and who is not."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from bulkmail.mailing import run_watch
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.testing import Hang, ScriptedRelay
from tests.e2e.commands import Result, run, start, write_campaign

pytestmark = pytest.mark.slow

PEOPLE = [f"p{n}@example.com" for n in range(5)]
SCRIPT = "import json, sys; open(sys.argv[1], 'a').write(json.dumps(json.load(sys.stdin)) + chr(10))"


class Shop:
    """A campaign that notifies by a command, which keeps what it is given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reported = folder / "told.jsonl"
        self.campaign = folder / "spring"
        self.outbox = self.campaign / "runs" / "spring.outbox"

    async def make(self, relay: ScriptedRelay | str, *, settings: str = "", notify: str = "") -> None:
        url = relay if isinstance(relay, str) else f"smtp://{relay.host}:{relay.port}?tls=off"
        command = json.dumps([sys.executable, "-c", SCRIPT, str(self.reported)])
        write_campaign(
            self.campaign, PEOPLE, relay=url, settings=f"{settings}\n[notify]\ncommand = {command}\n{notify}"
        )
        assert (await self.run("allow", self.campaign)).code == 0

    async def run(self, *arguments: str | Path, **env: str) -> Result:
        return await run(*arguments, cwd=self.folder, **env)

    @property
    def events(self) -> list[dict]:
        return [json.loads(line) for line in self.reported.read_text().splitlines()] if self.reported.exists() else []

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]


@pytest.fixture
def shop(tmp_path):
    return Shop(tmp_path)


async def kill_in_the_middle(shop, relay):
    process = await start("send", shop.campaign, "--yes", cwd=shop.folder)
    async with asyncio.timeout(15):
        while not relay.messages or relay.commands.count("DATA") < 2:  # which hangs, and must not in the next process
            await asyncio.sleep(0.02)
    process.kill()
    await process.communicate()


async def test_end_of_a_run_is_notified_once(shop):
    async with ScriptedRelay(rcpt=lambda path: "550 5.1.1 who?" if path.startswith("p3@") else None) as relay:
        await shop.make(relay)
        first = await shop.run("send", shop.campaign, "--yes")
        await shop.run("send", shop.campaign, "--yes")
        await shop.run("status", shop.campaign)
        await shop.run("report", shop.campaign)
    assert first.code == 1
    [event] = shop.events
    data = event["data"]
    assert (event["type"], data["name"], data["exit_code"]) == ("run.finished", "spring", 1)
    assert (data["totals"]["rows"], data["totals"]["accepted"], data["totals"]["rejected"]) == (5, 4, 1)
    assert data["outbox"] == str(shop.outbox)
    assert "p3@" not in json.dumps(event)
    assert await asyncio.to_thread(lambda: list(run_watch.all_notes())) == []


async def test_mail_about_the_end_is_one_message_and_no_recipient(shop):
    async with ScriptedRelay() as relay:
        await shop.make(relay, notify='mail = "me@shop.example"')
        result = await shop.run("send", shop.campaign, "--yes")
    assert result.code == 0
    assert [m.forward_paths for m in relay.messages][-1] == ("me@shop.example",)
    assert len(relay.messages) == len(PEOPLE) + 1
    with OutboxReader.open(shop.outbox) as reader:
        assert reader.tally().rows == len(PEOPLE)
    assert b"spring finished: 5 accepted" in relay.messages[-1].content


async def test_fault_that_stops_a_run_is_notified_and_mail_that_it_stops_too_is_said(shop):
    async with ScriptedRelay(mail="550 5.7.1 your account is blocked, ask abuse@example.net") as relay:
        await shop.make(relay, notify='mail = "me@shop.example"')
        result = await shop.run("send", shop.campaign, "--yes")
        again = await shop.run("status", shop.campaign)
    assert result.code == 3
    [event] = shop.events
    assert (event["type"], event["data"]["exit_code"]) == ("run.stopped", 3)
    assert "blocked" in event["data"]["error"] and "abuse@" not in event["data"]["error"]
    assert "could not notify by mail" in " ".join(result.err.split())
    assert "could not notify by mail" in " ".join(again.err.split())
    assert len(shop.events) == 1


async def test_run_that_was_killed_is_notified_by_the_next_command_once(shop):
    async with ScriptedRelay(data=["354 go", Hang()]) as relay:
        await shop.make(relay, settings="connections = 1")
        await kill_in_the_middle(shop, relay)
        assert shop.events == []
        first = await shop.run("status", shop.campaign)
        assert first.code == 0, first.err
        await shop.run("status", shop.campaign)
        await shop.run("report", shop.campaign)
    [event] = shop.events
    assert (event["type"], event["data"]["exit_code"]) == ("run.killed", None)
    totals = event["data"]["totals"]
    assert totals["rows"] == 5 and totals["pending"] >= 3  # the outcome of the first may not have been read yet


async def test_run_that_was_killed_is_notified_when_it_goes_on(shop):
    async with ScriptedRelay(data=["354 go", Hang(), *["354 go"] * 9]) as relay:
        await shop.make(relay, settings="connections = 1")
        await kill_in_the_middle(shop, relay)
        result = await shop.run("resume", shop.campaign, "--yes")
    assert result.code in (0, 4)
    assert shop.types == ["run.killed", "run.finished"]


async def test_outbox_from_elsewhere_notifies_no_one(shop, monkeypatch, tmp_path):
    async with ScriptedRelay(data=["354 go", Hang()]) as relay:
        await shop.make(relay, settings="connections = 1")
        await kill_in_the_middle(shop, relay)
        result = await shop.run("status", shop.campaign, BULKMAIL_STATE_DIR=str(tmp_path / "another-user"))
    assert result.code == 0
    assert shop.events == []


async def test_run_under_way_is_not_taken_for_a_killed_one(shop):
    async with ScriptedRelay(data=["354 go", Hang()]) as relay:
        await shop.make(relay, settings="connections = 1")
        process = await start("send", shop.campaign, "--yes", cwd=shop.folder)
        async with asyncio.timeout(15):
            while not relay.messages:
                await asyncio.sleep(0.02)
        await shop.run("status", shop.campaign)
        assert shop.events == []
        process.kill()
        await process.communicate()


async def test_rehearsal_notifies_only_when_it_is_asked_to(shop):
    await shop.make("sandbox:")
    assert (await shop.run("send", shop.campaign)).code == 0
    assert shop.events == []
    assert (await shop.run("send", shop.campaign, "--notify")).code == 0
    [event] = shop.events
    assert event["data"]["is_rehearsal"] is True


async def test_run_notifies_no_one_with_no_notify(shop):
    async with ScriptedRelay() as relay:
        await shop.make(relay)
        assert (await shop.run("send", shop.campaign, "--yes", "--no-notify")).code == 0
    assert shop.events == []


async def test_command_of_notify_runs_only_when_it_is_allowed(shop):
    async with ScriptedRelay() as relay:
        await shop.make(relay)
        assert (await shop.run("allow", shop.campaign, "--forget")).code == 0
        result = await shop.run("send", shop.campaign, "--yes")
    assert result.code == 2
    assert "you have not allowed that" in " ".join(result.err.split())
    assert (relay.messages, shop.events) == ([], [])
