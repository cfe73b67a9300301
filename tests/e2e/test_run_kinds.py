"""Rehearsals and real runs are kept apart, and no run overwrites a file that is not its own."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections import Counter

import pytest

from bulkmail.model.tally import Status
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.testing import ScriptedRelay
from tests.e2e.commands import run, write_campaign

pytestmark = pytest.mark.slow

PEOPLE = [f"p{n}@example.com" for n in range(5)]


def url_of(relay):
    return f"smtp://{relay.host}:{relay.port}?tls=off"


def reached(relay):
    return Counter(path for message in relay.messages for path in message.forward_paths)


def tally_of(outbox):
    with OutboxReader.open(outbox) as reader:
        return dict(reader.tally().by_status)


@pytest.fixture
def make_campaign(tmp_path):
    def make(relay, people=PEOPLE, settings=""):
        return write_campaign(tmp_path / "spring", people, relay=url_of(relay), settings=settings)

    return make


async def test_rehearsal_does_not_replace_the_outbox_of_a_real_run(make_campaign, tmp_path):
    outbox = tmp_path / "o.outbox"
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        first = await run("send", campaign, "--yes", "--outbox", outbox, "--limit", "1", cwd=tmp_path)
        assert first.code == 3, first.err
        before = outbox.read_bytes()
        for flags in (("--dry-run",), ("--relay", "null:"), ("--relay", "sandbox:"), ("--redirect-to", "me@x.example")):
            rehearsal = await run("send", campaign, "--outbox", outbox, *flags, cwd=tmp_path)
            assert rehearsal.code == 2
            assert "is the outbox of a real run" in rehearsal.err
            assert "--outbox o.rehearsal.outbox" in " ".join(rehearsal.err.split())
        assert outbox.read_bytes() == before
        second = await run("send", campaign, "--yes", "--outbox", outbox, cwd=tmp_path)
    assert second.code == 0, second.err
    assert reached(relay) == dict.fromkeys(PEOPLE, 1)


async def test_real_run_does_not_take_a_rehearsal_for_its_own(make_campaign, tmp_path):
    outbox = tmp_path / "o.outbox"
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        assert (await run("send", campaign, "--dry-run", "--outbox", outbox, cwd=tmp_path)).code == 0
        real = await run("send", campaign, "--yes", "--outbox", outbox, cwd=tmp_path)
        assert real.code == 2
        assert "is the outbox of a rehearsal" in real.err
        resumed = await run("resume", outbox, "--yes", "--relay", url_of(relay), cwd=tmp_path)
        assert resumed.code == 2
        assert "is the outbox of a rehearsal" in resumed.err
    assert relay.sessions == 0


async def test_real_run_is_not_resumed_through_a_relay_that_delivers_nothing(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        await run("send", campaign, "--yes", "--limit", "1", cwd=tmp_path)
        for url in ("sandbox:", "null:", f"maildir:{tmp_path}/mail"):
            for name in (campaign, campaign / "runs" / "spring.outbox"):
                for words in (["--yes"], []):  # without a terminal the second would be asked for --yes first
                    result = await run("resume", name, *words, "--relay", url, cwd=tmp_path)
                    assert result.code == 2
                    assert "delivers nothing" in result.err
    assert tally_of(campaign / "runs" / "spring.outbox") == {Status.ACCEPTED: 1, Status.PENDING: 4}


async def test_resume_finds_the_real_run_whatever_the_files_are_called(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        runs = campaign / "runs"
        await run("send", campaign, "--yes", "--limit", "1", "--outbox", runs / "spring.rehearsal.outbox", cwd=tmp_path)
        await run("send", campaign, "--dry-run", "--outbox", runs / "spring.outbox", cwd=tmp_path)
        result = await run("resume", campaign, "--yes", cwd=tmp_path)
    assert result.code == 0, result.err
    assert reached(relay) == dict.fromkeys(PEOPLE, 1)


async def test_rehearsal_counts_as_reaching_no_one(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        await run("send", campaign, "--dry-run", "--outbox", "r.outbox", "--report", "r.csv", cwd=tmp_path)
        with (tmp_path / "r.csv").open(newline="") as file:
            assert {row["delivery_rehearsal"] for row in csv.DictReader(file)} == {"yes"}
        result = await run(
            "send", campaign, "--yes", "--suppress", "r.outbox", "--suppress", "r.csv", cwd=tmp_path
        )  # fmt: skip
    assert result.code == 0, result.err
    assert result.err.count("reached no recipient") == 2
    assert reached(relay) == dict.fromkeys(PEOPLE, 1)


async def test_report_of_a_real_run_still_suppresses_whom_it_reached(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        await run("send", campaign, "--yes", "--limit", "2", "--outbox", "a.outbox", "--report", "a.csv", cwd=tmp_path)
        first = set(reached(relay))
        result = await run("send", campaign, "--yes", "--suppress", "a.csv", "--outbox", "b.outbox", cwd=tmp_path)
    assert result.code == 0, result.err
    assert len(first) == 2
    assert reached(relay) == dict.fromkeys(PEOPLE, 1)


@pytest.mark.parametrize("mode", [("--dry-run",), ("--yes",)], ids=["rehearsal", "real"])
async def test_no_file_of_the_campaign_is_a_target(make_campaign, tmp_path, mode):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        (tmp_path / "notes.csv").write_text("mine\n")
        kept = {path: path.read_bytes() for path in [*campaign.iterdir(), tmp_path / "notes.csv"] if path.is_file()}
        for flags in (
            ("--outbox", campaign / "people.csv"),
            ("--outbox", campaign / "message.txt"),
            ("--report", campaign / "people.csv"),
            ("--report", tmp_path / "notes.csv"),
            ("--trace", campaign / "message.txt"),
            ("--outbox", "new.csv", "--report", "new.csv"),
        ):
            if flags[0] == "--trace" and "--dry-run" in mode:
                continue
            result = await run("send", campaign, *mode, *flags, cwd=tmp_path)
            assert result.code == 2, flags
            assert "hint:" in result.err
    assert relay.sessions == 0
    assert {path: path.read_bytes() for path in kept} == kept


async def test_report_that_is_sent_from_is_not_overwritten_by_the_next(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        await run("send", campaign, "--yes", "--limit", "1", "--report", "list.csv", cwd=tmp_path)
        before = (tmp_path / "list.csv").read_bytes()
        result = await run(
            "send", campaign, "--dry-run", "--recipients", "list.csv", "--report", "list.csv", cwd=tmp_path
        )
    assert result.code == 2
    assert "the campaign itself is made of this file" in result.err
    assert (tmp_path / "list.csv").read_bytes() == before


async def test_targets_of_resume_and_report_are_looked_at_first(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        await run("send", campaign, "--yes", "--limit", "1", cwd=tmp_path)
        before = (campaign / "people.csv").read_bytes()
        for name in ("out.txt", "out", campaign / "people.csv", "nowhere/out.csv"):
            result = await run("resume", campaign, "--yes", "--report", name, cwd=tmp_path)
            assert result.code == 2
        assert len(relay.messages) == 1
        for name in (campaign / "people.csv", campaign / "message.txt"):
            assert (await run("report", campaign, "-o", name, cwd=tmp_path)).code == 2
        for _ in range(2):  # its own text is known again
            assert (await run("report", campaign, "-o", "out.txt", cwd=tmp_path)).code == 0
    assert (campaign / "people.csv").read_bytes() == before


async def test_links_and_mail_that_are_not_a_run_s_own_are_left_alone(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        runs = campaign / "runs"
        runs.mkdir()
        (tmp_path / "precious").write_text("keys\n")
        (runs / "spring.rehearsal.outbox").symlink_to(tmp_path / "precious")
        linked = await run("send", campaign, "--dry-run", cwd=tmp_path)
        (runs / "spring.rehearsal.outbox").unlink()
        (runs / "spring.rehearsal.outbox").symlink_to(tmp_path / "not-there")
        dangling = await run("send", campaign, "--dry-run", cwd=tmp_path)
        (runs / "spring.rehearsal.outbox").unlink()
        for name in ("new", "cur", "tmp"):
            (runs / "spring.inbox" / name).mkdir(parents=True)
        (runs / "spring.inbox" / "new" / "1.M1P1Q1.host").write_text("From: mum@example.com\n\nHello\n")
        mail = await run("send", campaign, "--relay", "sandbox:", cwd=tmp_path)
    assert (linked.code, dangling.code, mail.code) == (2, 2, 2), (linked.err, dangling.err, mail.err)
    assert (tmp_path / "precious").read_text() == "keys\n"
    assert not (tmp_path / "not-there").exists()
    assert (runs / "spring.inbox" / "new" / "1.M1P1Q1.host").exists()


@pytest.mark.parametrize("linked", ["", "tmp", "new", ".bulkmail-rehearsal"])
async def test_inbox_that_leads_elsewhere_is_neither_emptied_nor_read(linked, make_campaign, tmp_path):
    """Who made the folder can put the mark of a rehearsal into it, too."""
    mail = tmp_path / "mail"
    for name in ("new", "cur", "tmp"):
        (mail / name).mkdir(parents=True)
        (mail / name / "1.M1P1Q1.host").write_text("Subject: private\n\nHello\n")
    before = {path: path.stat().st_mtime_ns for path in mail.rglob("*")}
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        inbox = campaign / "runs" / "spring.inbox"
        inbox.parent.mkdir()
        if linked:
            for name in ("new", "cur", "tmp"):
                (inbox / name).mkdir(parents=True)
            (inbox / ".bulkmail-rehearsal").touch()
            mark = mail / "new" / "1.M1P1Q1.host"
            (inbox / linked).rmdir() if linked in ("new", "cur", "tmp") else (inbox / linked).unlink()
            (inbox / linked).symlink_to(mail / linked if linked in ("new", "cur", "tmp") else mark)
        else:
            inbox.symlink_to(mail)
        sent = await run("send", campaign, "--relay", "sandbox:", cwd=tmp_path)
        listed = await run("inbox", campaign, cwd=tmp_path)
    assert sent.code == 2, sent.err
    assert f"{inbox / linked}: a rehearsal would keep its mail there, and that is a link" in sent.err
    assert "private" not in listed.out
    assert {path: path.stat().st_mtime_ns for path in mail.rglob("*")} == before


async def test_report_is_not_written_through_a_link_to_something_else(make_campaign, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "keys").write_text("ssh-ed25519 AAAA\n")
    (home / "empty").touch()
    before = {path: (path.read_bytes(), path.stat().st_mode) for path in home.iterdir()}
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        await run("send", campaign, "--yes", "--limit", "1", cwd=tmp_path)
        report = campaign / "runs" / "spring-report.csv"
        for target in ("keys", "empty", "not-there"):
            report.unlink()
            report.symlink_to(home / target)
            for words in (("resume", campaign, "--yes"), ("report", campaign, "-o", report)):
                result = await run(*words, cwd=tmp_path)
                assert result.code == 2, result.out
                assert "spring-report.csv: " in result.err
    assert len(relay.messages) == 1
    assert {path: (path.read_bytes(), path.stat().st_mode) for path in home.iterdir()} == before


async def test_runs_folder_may_be_a_link_to_another_folder(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        (tmp_path / "disk").mkdir()
        (campaign / "runs").symlink_to(tmp_path / "disk")
        for words in (
            ("send", campaign, "--relay", "sandbox:"),
            ("send", campaign, "--relay", "sandbox:"),
            ("inbox", campaign),
            ("send", campaign, "--yes", "--limit", "1"),
            ("resume", campaign, "--yes", "--trace", campaign / "runs" / "trace.txt"),
            ("status", campaign),
            ("report", campaign),
        ):
            result = await run(*words, cwd=tmp_path)
            assert result.code == (3 if "--limit" in words else 0), result.err
    assert reached(relay) == dict.fromkeys(PEOPLE, 1)
    assert {"spring.outbox", "spring.inbox", "spring-report.csv", "trace.txt"} <= {
        path.name for path in (tmp_path / "disk").iterdir()
    }


async def test_rehearsal_goes_on_in_no_mail_folder_of_someone_else(make_campaign, tmp_path):
    """An outbox from elsewhere may name any folder."""
    (tmp_path / "mail" / "new").mkdir(parents=True)
    (tmp_path / "mail" / "new" / "1.M1P1Q1.host").write_text("Subject: private\n\nHello\n")
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        await run("send", campaign, "--relay", "sandbox:", "--limit", "1", cwd=tmp_path)
        outbox = campaign / "runs" / "spring.rehearsal.outbox"
        with sqlite3.connect(outbox) as connection:
            connection.execute(
                "UPDATE setting SET value = ? WHERE key = 'maildir'", (json.dumps(str(tmp_path / "mail")),)
            )
        connection.close()
        result = await run("resume", outbox, "--yes", cwd=tmp_path)
    assert result.code == 2, result.out
    assert "no rehearsal made it" in result.err
    assert [path.name for path in (tmp_path / "mail").rglob("*")] == ["new", "1.M1P1Q1.host"]


async def test_rehearsal_empties_the_inbox_that_it_made(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        for _ in range(2):
            result = await run("send", campaign, "--relay", "sandbox:", cwd=tmp_path)
            assert result.code == 0, result.err
    assert len(list((campaign / "runs" / "spring.inbox" / "new").iterdir())) == len(PEOPLE)


async def test_rehearsal_goes_at_full_speed_unless_it_is_paced(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay, settings='rate = "2/day"')
        quick = await run("send", campaign, "--dry-run", cwd=tmp_path)
        paced = await run("send", campaign, "--dry-run", "--paced", "--sample", "1", cwd=tmp_path)
    assert quick.code == 0, quick.err
    assert paced.code == 0, paced.err
    with OutboxReader.open(campaign / "runs" / "spring.rehearsal.outbox") as reader:
        assert reader.info.read_sending("")[1].rate is not None


async def test_test_send_leaves_the_others_out_and_ends_well(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        result = await run("send", campaign, "--redirect-to", "me@x.example", "--only", PEOPLE[1], cwd=tmp_path)
        unknown = await run("send", campaign, "--redirect-to", "me@x.example", "--only", "who@x.example", cwd=tmp_path)
    assert result.code == 0, result.err
    assert "resume" not in result.out
    assert unknown.code == 2
    assert reached(relay) == {"me@x.example": 1}
