"""The same command again: nothing twice, no one forgotten, and the run's own exit code."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing

import pytest

from bulkmail.model.tally import Status
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.testing import ScriptedRelay
from tests.e2e.commands import run, write_campaign, write_list

pytestmark = pytest.mark.slow

PEOPLE = [f"p{n}@example.com" for n in range(6)]


def url_of(relay):
    return f"smtp://{relay.host}:{relay.port}?tls=off"


def reached(relay):
    return Counter(path for message in relay.messages for path in message.forward_paths)


def words(text):
    return " ".join(text.split())


@pytest.fixture
def make_campaign(tmp_path):
    def make(relay, people=PEOPLE, settings=""):
        return write_campaign(tmp_path / "spring", people, relay=url_of(relay), settings=settings)

    return make


async def test_finished_run_again_writes_missing_reports_and_ends_as_it_did(make_campaign, tmp_path):
    async with ScriptedRelay(rcpt=lambda path: "550 5.1.1 who?" if path.startswith("p3@") else None) as relay:
        campaign = make_campaign(relay)
        first = await run("send", campaign, "--yes", cwd=tmp_path)
        report = campaign / "runs" / "spring-report.json"
        kept = campaign / "runs" / "spring-report.csv"
        report.unlink()
        kept.write_text(kept.read_text() + "# mine\n")
        again = await run("send", campaign, "--yes", cwd=tmp_path)
        changed = await run("send", campaign, "--yes", "--from", "new@example.com", cwd=tmp_path)
    assert (first.code, again.code) == (1, 1)
    assert "5 of 6 recipients accepted, 1 rejected; nothing was sent now" in words(again.err)
    assert "--retry-rejected` tries just the 1 rejected again" in words(again.err)
    assert json.loads(report.read_text())["totals"]["accepted"] == 5
    assert kept.read_text().endswith("# mine\n")
    assert changed.code == 2
    said = words(changed.err)
    assert said.index("--retry-rejected") < said.index("--changed") < said.index("--new")
    assert reached(relay) == dict.fromkeys((p for p in PEOPLE if not p.startswith("p3@")), 1)


async def test_misspelt_column_of_a_condition_is_an_error(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        for command in (("send", "--yes"), ("check",)):
            result = await run(command[0], campaign, *command[1:], "--where", "frist_name == 'P1'", cwd=tmp_path)
            assert result.code == 2
            assert "no column 'frist_name'" in result.err
            assert "did you mean 'first_name'?" in result.err
        guarded = await run("send", campaign, "--yes", "--where", "frist_name is not defined", cwd=tmp_path)
    assert guarded.code == 0, guarded.err


async def test_condition_that_matches_no_row_is_no_success_unless_allowed(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        no_one = ("send", campaign, "--yes", "--where", "first_name == 'Zoe'")
        refused = await run(*no_one, cwd=tmp_path)
        allowed = await run(*no_one, "--allow-empty", cwd=tmp_path)
        (campaign / "people.csv").write_text("email,first_name\n")
        empty = await run("send", campaign, "--yes", cwd=tmp_path)
        empty_allowed = await run("send", campaign, "--yes", "--allow-empty", cwd=tmp_path)
    assert refused.code == 2
    assert "no row of 6 matches the condition" in refused.err
    assert (allowed.code, empty.code, empty_allowed.code) == (0, 2, 0), empty_allowed.err
    assert relay.sessions == 0


async def test_report_fed_back_may_be_asked_for_what_became_of_its_rows(make_campaign, tmp_path):
    refusing = True

    def rcpt(path):
        return "550 5.1.1 who?" if refusing and path.startswith("p2@") else None

    async with ScriptedRelay(rcpt=rcpt) as relay:
        campaign = make_campaign(relay)
        await run("send", campaign, "--yes", "--report", "r.csv", cwd=tmp_path)
        refusing = False
        again = await run(
            "send", campaign, "--yes", "--recipients", "r.csv", "--where", "delivery_status == 'rejected'",
            "--outbox", "again.outbox", "--report", "again.csv", cwd=tmp_path,
        )  # fmt: skip
    assert again.code == 0, again.err
    assert reached(relay) == dict.fromkeys(PEOPLE, 1)
    header = (tmp_path / "again.csv").read_text().splitlines()[0]
    assert header.count("delivery_status") == 1


async def test_recipient_who_opted_out_between_two_starts_is_left_out(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        stop = tmp_path / "stop.txt"
        stop.write_text("p0@example.com\n")
        command = ("send", campaign, "--yes", "--suppress", stop)
        assert (await run(*command, "--limit", "2", cwd=tmp_path)).code == 3
        stop.write_text("p0@example.com\np4@example.com\n")
        assert (await run(*command, "--limit", "1", cwd=tmp_path)).code == 3
        stop.write_text("p0@example.com\np4@example.com\np5@example.com\n")
        (tmp_path / "elsewhere").mkdir()
        last = await run("resume", campaign, "--yes", cwd=tmp_path / "elsewhere")
    assert last.code == 0, last.err
    assert "skipped 1 row of this run, now in the suppression files" in last.err
    assert reached(relay) == {"p1@example.com": 1, "p2@example.com": 1, "p3@example.com": 1}
    with OutboxReader.open(campaign / "runs" / "spring.outbox") as reader:
        assert reader.tally().by_status == {Status.ACCEPTED: 3, Status.SUPPRESSED: 3}


async def test_resume_wants_the_suppression_files_of_the_run(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        stop, more = tmp_path / "stop.txt", tmp_path / "more.txt"
        stop.write_text("p0@example.com\n")
        more.write_text("p5@example.com\n")
        await run("send", campaign, "--yes", "--suppress", stop, "--limit", "2", cwd=tmp_path)
        stop.unlink()
        gone = await run("resume", campaign, "--yes", cwd=tmp_path)
        assert gone.code == 2
        assert "stop.txt" in gone.err
        stop.write_text("")
        last = await run("resume", campaign, "--yes", "--suppress", more, cwd=tmp_path)
    assert last.code == 0, last.err
    assert set(reached(relay)) == {f"p{n}@example.com" for n in range(1, 5)}


async def test_entry_that_cannot_be_understood_stops_a_run_that_goes_on(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        stop = tmp_path / "stop.txt"
        stop.write_text("p0@example.com\n")
        await run("send", campaign, "--yes", "--suppress", stop, "--limit", "2", cwd=tmp_path)
        stop.write_text("p0@example.com\np5 at example.com\n")
        refused = await run("resume", campaign, "--yes", cwd=tmp_path)
        assert refused.code == 2
        assert "stop.txt:2" in refused.err
        assert len(reached(relay)) == 2
        ignored = ("--ignore", "suppression-entry")
        last = await run("send", campaign, "--yes", "--suppress", stop, *ignored, cwd=tmp_path)
    assert last.code == 0, last.err
    assert reached(relay) == {f"p{n}@example.com": 1 for n in range(1, 6)}


async def test_retried_row_is_not_sent_when_it_has_opted_out(make_campaign, tmp_path):
    async with ScriptedRelay(rcpt=lambda path: "550 5.1.1 who?" if path.startswith("p3@") else None) as relay:
        campaign = make_campaign(relay)
        stop = tmp_path / "stop.txt"
        stop.write_text("")
        await run("send", campaign, "--yes", "--suppress", stop, cwd=tmp_path)
        asked = len(relay.transactions) if hasattr(relay, "transactions") else relay.sessions
        stop.write_text("p3@example.com\n")
        last = await run("resume", campaign, "--yes", "--retry-rejected", cwd=tmp_path)
        after = len(relay.transactions) if hasattr(relay, "transactions") else relay.sessions
    assert last.code == 0, last.err
    assert after == asked


async def test_resume_sends_nothing_without_a_word_where_no_one_can_be_asked(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        await run("send", campaign, "--yes", "--limit", "2", cwd=tmp_path)
        asked = await run("resume", campaign, cwd=tmp_path)
    assert asked.code == 2
    assert "--yes" in asked.err
    assert len(relay.messages) == 2


async def test_passes_keep_their_reports_and_send_to_no_one_twice(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        runs = campaign / "runs"
        for number in range(3):
            write_list(campaign / "people.csv", [*PEOPLE[: 2 + 2 * number]])
            result = await run("send", campaign, "--yes", "--changed", cwd=tmp_path)
            assert result.code == 0, result.err
        no_one = await run("send", campaign, "--yes", "--changed", cwd=tmp_path)
        rehearsed = await run("send", campaign, "--dry-run", "--changed", cwd=tmp_path)
    assert reached(relay) == dict.fromkeys(PEOPLE, 1)
    totals = [
        json.loads((runs / name).read_text())["totals"]["accepted"]
        for name in ("spring-report.json", "spring-report-2.json", "spring-report-3.json")
    ]
    assert totals == [2, 2, 2]
    assert (no_one.code, rehearsed.code) == (2, 2)


async def test_many_invalid_rows_stop_the_run_unless_allowed(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        (campaign / "people.csv").write_text(
            "email,first_name\n" + "".join(f"{'NULL' if n % 3 == 0 else f'p{n}@example.com'},P\n" for n in range(30))
        )
        refused = await run("send", campaign, "--yes", cwd=tmp_path)
        allowed = await run("send", campaign, "--yes", "--max-invalid", "40%", cwd=tmp_path)
    assert refused.code == 2
    assert "10 of 30 rows cannot be used: 33.3%, the limit is 10%" in words(refused.err)
    assert "--max-invalid 34%" in words(refused.err)  # enough for this list
    assert allowed.code == 1, allowed.err
    assert len(relay.messages) == 20


async def test_date_in_names_gives_each_day_a_run_of_its_own(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        toml = campaign / "campaign.toml"
        toml.write_text('name = "news {date}"\n' + toml.read_text())
        sent = await run("send", campaign, "--yes", "--report", "r-{date}.csv", "--limit", "5", cwd=tmp_path)
        assert sent.code == 3, sent.err
        status = await run("status", campaign, cwd=tmp_path)
        resumed = await run("resume", campaign, "--yes", cwd=tmp_path)
    assert status.code == 0, status.err
    assert resumed.code == 0, resumed.err
    assert len(list((campaign / "runs").glob("news-2???-??-??.outbox"))) == 1
    assert len(list(tmp_path.glob("r-2???-??-??.csv"))) == 1


async def test_run_killed_before_its_report_gets_it_from_the_same_command(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        await run("send", campaign, "--yes", cwd=tmp_path)
        outbox = campaign / "runs" / "spring.outbox"
        for report in (campaign / "runs").glob("spring-report.*"):
            report.unlink()
        with closing(sqlite3.connect(outbox)) as connection:  # as a kill between the last answer and the end leaves it
            connection.execute("UPDATE run SET ended_at = NULL")
            connection.commit()
        again = await run("send", campaign, "--yes", cwd=tmp_path)
    assert again.code == 0, again.err
    assert len(list((campaign / "runs").glob("spring-report.*"))) == 3
    assert "not finished" not in again.out
    assert len(relay.messages) == len(PEOPLE)
