"""Copies (To, Cc, Bcc) to suppressed addresses: left out one by one, while the row they belong to is sent."""

from __future__ import annotations

import csv
import json
from collections import Counter

import pytest
from anyio import to_thread

import bulkmail
from bulkmail.model.tally import Status
from bulkmail.testing import ScriptedRelay
from tests.e2e.commands import run, write_campaign

LIST = "email,boss\nann@example.com,bob@example.com\ncy@example.com,dora@blocked.example\neve@example.com,\n"


def url_of(relay):
    return f"smtp://{relay.host}:{relay.port}?tls=off"


def reached(relay):
    return Counter(path for message in relay.messages for path in message.forward_paths)


def make_campaign(folder, relay, **headers):
    campaign = write_campaign(folder / "spring", [], relay=url_of(relay))
    (campaign / "people.csv").write_text(LIST, encoding="utf-8")
    (campaign / "message.txt").write_text("Dear {{ email }},\n", encoding="utf-8")
    settings = (campaign / "campaign.toml").read_text(encoding="utf-8")
    lines = "".join(f'{name} = "{value}"\n' for name, value in headers.items())
    settings = settings.replace("Hello {{ first_name }}", "Hello").replace("[message]\n", f"[message]\n{lines}")
    (campaign / "campaign.toml").write_text(settings, encoding="utf-8")
    return campaign


def copies_of(report):
    with report.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        row["email"]: [(copy["address"], copy["status"], copy["error"]) for copy in json.loads(row["delivery_copies"])]
        for row in rows
        if row["delivery_copies"]
    }


@pytest.mark.slow
async def test_suppressed_copies_are_left_out_while_their_rows_are_sent(tmp_path):
    stop = tmp_path / "stop.txt"
    stop.write_text("BOB@example.com\n@blocked.example\n", encoding="utf-8")
    async with ScriptedRelay() as relay:
        campaign = make_campaign(tmp_path, relay, cc="{{ boss }}", bcc="archive@example.com")
        checked = await run("check", campaign, "--suppress", stop, cwd=tmp_path)
        sent = await run("send", campaign, "--yes", "--suppress", stop, cwd=tmp_path)
    assert sent.code == 0, sent.err
    assert "2 copies (to, cc, bcc) suppressed, skipped" in " ".join(checked.out.split())
    assert reached(relay) == {
        "ann@example.com": 1, "cy@example.com": 1, "eve@example.com": 1, "archive@example.com": 3
    }  # fmt: skip
    assert copies_of(campaign / "runs" / "spring-report.csv") == {
        "ann@example.com": [
            ("bob@example.com", "suppressed", f"in {stop}:1"),
            ("archive@example.com", "accepted", ""),
        ],
        "cy@example.com": [
            ("dora@blocked.example", "suppressed", f"in {stop}:2"),
            ("archive@example.com", "accepted", ""),
        ],
        "eve@example.com": [("archive@example.com", "accepted", "")],
    }


@pytest.mark.slow
async def test_copies_that_another_run_reached_are_left_out_when_its_outbox_suppresses(tmp_path):
    people = [{"email": "ann@example.com"}]
    campaign = bulkmail.compose(from_="Shop <shop@example.com>", subject="Hello", text="Dear {{ email }},\n")
    async with ScriptedRelay() as relay:
        mailer = bulkmail.Mailer(url_of(relay))
        await mailer.send(campaign, [{"email": "bob@example.com"}], outbox=tmp_path / "first.outbox")
        copied = bulkmail.compose(
            from_="Shop <shop@example.com>",
            subject="Hello",
            text="Dear {{ email }},\n",
            cc="bob@example.com, al@x.org",
        )
        report = await mailer.send(copied, people, suppress=[tmp_path / "first.outbox"])
    assert reached(relay) == {"bob@example.com": 1, "ann@example.com": 1, "al@x.org": 1}
    assert report.tally.by_status == {Status.ACCEPTED: 1}
    assert report.tally.copies == {Status.ACCEPTED: 1, Status.SUPPRESSED: 1}


@pytest.mark.slow
async def test_copies_suppressed_in_between_are_left_out_when_a_run_goes_on(tmp_path):
    stop = tmp_path / "stop.txt"
    stop.write_text("", encoding="utf-8")
    busy = {"bob@example.com", "dora@blocked.example", "cy@example.com"}
    async with ScriptedRelay(rcpt=lambda path: "451 4.3.0 later" if path in busy else None) as relay:
        campaign = make_campaign(tmp_path, relay, cc="{{ boss }}")
        first = await run("send", campaign, "--yes", "--wait", "0", "--suppress", stop, cwd=tmp_path)
        assert first.code == 3, first.err
        await to_thread.run_sync(stop.write_text, "bob@example.com\n@blocked.example\n")
        busy.clear()
        second = await run("resume", campaign, "--yes", "--wait", "0", cwd=tmp_path)
    assert "skipped 2 copies of this run, now in the suppression files" in " ".join(second.err.split())
    assert not {"bob@example.com", "dora@blocked.example"} & set(reached(relay))
    assert copies_of(campaign / "runs" / "spring-report.csv") == {
        "ann@example.com": [("bob@example.com", "suppressed", f"in {stop}:1")],
        "cy@example.com": [("dora@blocked.example", "suppressed", f"in {stop}:2")],
    }


@pytest.mark.slow
async def test_later_pass_sends_copies_of_the_rows_that_were_not_reached_only(tmp_path):
    refused = {"cy@example.com"}
    async with ScriptedRelay(rcpt=lambda path: "550 5.1.1 unknown" if path in refused else None) as relay:
        campaign = make_campaign(tmp_path, relay, cc="{{ boss }}", bcc="archive@example.com")
        first = await run("send", campaign, "--yes", cwd=tmp_path)
        assert first.code == 1, first.err
        assert reached(relay)["dora@blocked.example"] == 1
        refused.clear()
        with (campaign / "people.csv").open("a", encoding="utf-8") as file:
            file.write("flo@example.com,bob@example.com\n")
        second = await run("send", campaign, "--yes", "--changed", cwd=tmp_path)
    assert second.code == 0, second.err
    assert reached(relay) == {
        "ann@example.com": 1,
        "cy@example.com": 1,
        "eve@example.com": 1,
        "flo@example.com": 1,
        "bob@example.com": 2,  # a copy of ann's message, and one of flo's
        "dora@blocked.example": 1,  # has the copy of cy's already
        "archive@example.com": 4,
    }
