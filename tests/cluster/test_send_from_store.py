"""`bulkmail send --store`, and what looks at it, stops it and resumes it, as with a run in a file."""

from __future__ import annotations

import asyncio
import csv
import json
import time
from collections import Counter
from pathlib import Path

import pytest

from bulkmail.testing import ScriptedRelay
from tests.e2e.commands import run, start, write_campaign

pytestmark = pytest.mark.timeout(120)  # several processes, on a busy machine

PEOPLE = [f"p{n}@example.com" for n in range(60)]


def campaign_for(relay: ScriptedRelay, folder: Path, settings: str = 'rate = "1/s"') -> str:
    return write_campaign(
        folder / "spring", PEOPLE, relay=f"smtp://{relay.host}:{relay.port}?tls=off", settings=settings
    )


def taken(relay: ScriptedRelay) -> Counter[str]:
    return Counter(path for message in relay.messages for path in message.forward_paths)


async def begun(relay: ScriptedRelay, sending: asyncio.subprocess.Process) -> None:
    while len(relay.messages) < 3:
        await asyncio.sleep(0.01)
        assert sending.returncode is None, await sending.communicate()


async def test_campaign_is_loaded_stopped_resumed_and_reported(database: str, tmp_path: Path) -> None:
    known = {"cwd": tmp_path, "BULKMAIL_STORE": database}
    async with ScriptedRelay(rcpt=lambda path: "550 5.1.1 no such user" if path.startswith("p7@") else None) as relay:
        campaign = campaign_for(relay, tmp_path)
        sending = await start("send", campaign, "--store", "--yes", **known)
        await begun(relay, sending)
        shown = await run("status", "spring", "--store", **known)
        assert "60 rows" in shown.out and "Being sent now, by process" in shown.out, shown.err
        stopped = await run("stop", "spring", "--store", USER="ann", LOGNAME="ann", **known)
        assert stopped.code == 0 and "Stopped: spring in postgresql://" in stopped.out, stopped.err
        assert "bulkmail resume spring --store" in stopped.out
        sent, at = len(relay.messages), time.monotonic()
        out, err = await sending.communicate()
        assert sending.returncode == 3, err
        assert "ann on " in err.decode() and "finishing the messages under way" in err.decode()
        assert "Stopped by ann on " in out.decode() and "bulkmail resume spring --store" in out.decode()
        await asyncio.sleep(max(0, 3 - (time.monotonic() - at)))
        assert len(relay.messages) == sent
        resumed = await run("resume", "spring", "--store", "--yes", "--rate", "1000/s", **known)
        assert resumed.code == 1, resumed.err
        assert set(taken(relay)) == set(PEOPLE) - {"p7@example.com"}
        assert set(taken(relay).values()) == {1}
    again = await run("send", campaign, "--store", "--yes", **known)
    assert again.code == 1 and "59 accepted" in again.out
    reported = await run("report", "spring", "--store", "-o", "spring.csv", **known)
    assert reported.code == 0, reported.err
    with (tmp_path / "spring.csv").open(encoding="utf-8-sig") as file:
        rows = {row["email"]: row for row in csv.DictReader(file)}
    assert len(rows) == 60 and rows["p7@example.com"]["status"] == "rejected"
    state = json.loads((await run("status", "spring", "--store", "--json", **known)).out)
    assert state["totals"]["accepted"] == 59 and state["totals"]["rejected"] == 1


async def test_message_that_changed_is_not_sent_under_the_same_name(database: str, tmp_path: Path) -> None:
    known = {"cwd": tmp_path, "BULKMAIL_STORE": database}
    async with ScriptedRelay() as relay:
        campaign = campaign_for(relay, tmp_path, settings="")
        assert (await run("send", campaign, "--store", "--yes", **known)).code == 0
        file = tmp_path / "spring" / "campaign.toml"
        file.write_text(file.read_text().replace("subject = ", 'subject = "New: " #'))
        refused = await run("send", campaign, "--store", "--yes", **known)
        assert refused.code == 2 and "the message changed since spring in postgresql://" in refused.err
        assert "bulkmail resume spring --store" in refused.err
    assert len(relay.messages) == 60


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("status", "autumn", "--store"), "there is no campaign 'autumn' in the store"),
        (("stop", "autumn", "--store", "postgresql://me:secret@127.0.0.1/mail"), "has a password in it"),
        (("resume", "autumn", "--store", "mysql://127.0.0.1/mail"), "not the URL of a store"),
        (("send", "spring", "--store", "--new", "--yes"), "--new is for a run in a file"),
    ],
)
async def test_what_is_wrong_is_said_in_one_sentence(
    arguments: tuple[str, ...], words: str, database: str, tmp_path: Path
) -> None:
    ended = await run(*arguments, cwd=tmp_path, BULKMAIL_STORE=database)
    assert ended.code == 2 and words in ended.err and "secret" not in ended.err
    assert len([line for line in ended.err.splitlines() if line.startswith("error:")]) == 1
