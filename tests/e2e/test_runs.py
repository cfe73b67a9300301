"""What a second `send` does: goes on, refuses, sends to those not reached, or to everyone."""

from __future__ import annotations

import asyncio
import csv
import json
import signal
from collections import Counter

import pytest

from bulkmail.model.tally import Status
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.testing import ScriptedRelay
from tests.e2e.commands import run, start, write_campaign, write_list

pytestmark = pytest.mark.slow

PEOPLE = [f"p{n}@example.com" for n in range(10)]


def url_of(relay):
    return f"smtp://{relay.host}:{relay.port}?tls=off"


def reached(relay):
    return Counter(path for message in relay.messages for path in message.forward_paths)


@pytest.fixture
def make_campaign(tmp_path):
    def make(relay, people=PEOPLE, settings=""):
        return write_campaign(tmp_path / "spring", people, relay=url_of(relay), settings=settings)

    return make


async def test_send_delivers_and_reports_every_row(make_campaign, tmp_path):
    async with ScriptedRelay(rcpt=lambda path: "550 5.1.1 no such user" if path == "p3@example.com" else None) as relay:
        campaign = make_campaign(relay)
        result = await run("send", campaign, "--yes", cwd=tmp_path)
    assert result.code == 1, result.err
    with (campaign / "runs" / "spring-report.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["email"] for row in rows] == PEOPLE
    assert [row["first_name"] for row in rows] == [person.partition("@")[0].title() for person in PEOPLE]
    assert Counter(row["delivery_status"] for row in rows) == {"accepted": 9, "rejected": 1}
    refused = rows[3]
    assert refused["delivery_code"] == "550"
    assert refused["delivery_enhanced_code"] == "5.1.1"
    assert "no such user" in refused["delivery_reply"]
    report = json.loads((campaign / "runs" / "spring-report.json").read_text())
    assert len(report["rows"]) == 10


async def test_report_that_cannot_be_written_changes_nothing_about_the_mailing(make_campaign, tmp_path):
    folder, begun = tmp_path / "reports", asyncio.Event()
    folder.mkdir()
    async with ScriptedRelay(mail=lambda path: begun.set()) as relay:
        targets = ("--report", folder / "report.csv", "--report", tmp_path / "report.json")
        sending = await start("send", make_campaign(relay), "--yes", *targets, cwd=tmp_path)
        await begun.wait()
        sending.send_signal(signal.SIGSTOP)
        folder.rmdir()
        sending.send_signal(signal.SIGCONT)
        out, err = (said.decode() for said in await sending.communicate())
    assert sending.returncode == 0, err
    assert "10 accepted" in out
    assert "error: cannot write the report" in err and "nothing is lost" in err
    assert "report.json" in out and "report.csv" not in out
    assert len(json.loads((tmp_path / "report.json").read_text())["rows"]) == 10


async def test_finished_run_is_not_sent_again(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        await run("send", campaign, "--yes", cwd=tmp_path)
        again = await run("send", campaign, "--yes", cwd=tmp_path)
    assert again.code == 0, again.err
    assert "this mailing ended on" in again.err
    assert "10 of 10 recipients accepted; nothing was sent now" in " ".join(again.err.split())
    assert len(relay.messages) == 10


async def test_unfinished_run_goes_on_with_those_not_reached(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        first = await run("send", campaign, "--yes", "--limit", "4", cwd=tmp_path)
        second = await run("send", campaign, "--yes", cwd=tmp_path)
    assert (first.code, second.code) == (3, 0)
    assert reached(relay) == dict.fromkeys(PEOPLE, 1)


async def test_changed_message_is_refused_and_names_the_three_commands(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        await run("send", campaign, "--yes", "--limit", "4", cwd=tmp_path)
        (campaign / "message.txt").write_text("Quite another message, {{ first_name }}.\n")
        result = await run("send", campaign, "--yes", cwd=tmp_path)
    assert result.code == 2
    assert "the message changed since this run began (4 of 10 recipients accepted" in result.err
    for command in ("bulkmail resume", "--changed", "--new"):
        assert command in result.err
    assert len(relay.messages) == 4


async def test_changed_list_is_noticed(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        await run("send", campaign, "--yes", "--limit", "4", cwd=tmp_path)
        write_list(campaign / "people.csv", [*PEOPLE, "new@example.com"])
        result = await run("send", campaign, "--yes", cwd=tmp_path)
    assert result.code == 2
    assert "the list changed since this run began" in result.err


async def test_changed_reaches_only_those_not_yet_reached(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        await run("send", campaign, "--yes", "--limit", "4", cwd=tmp_path)
        write_list(campaign / "people.csv", [*PEOPLE, "new@example.com"])
        result = await run("send", campaign, "--yes", "--changed", cwd=tmp_path)
    assert result.code == 0, result.err
    assert reached(relay) == dict.fromkeys([*PEOPLE, "new@example.com"], 1)
    with OutboxReader.open(campaign / "runs" / "spring.outbox") as reader:
        assert reader.tally().by_status == {Status.ACCEPTED: 7, Status.SUPPRESSED: 4}
    assert (campaign / "runs" / "spring.1.outbox").exists()


async def test_new_sends_to_all_again(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        await run("send", campaign, "--yes", cwd=tmp_path)
        result = await run("send", campaign, "--yes", "--new", cwd=tmp_path)
    assert result.code == 0, result.err
    assert reached(relay) == dict.fromkeys(PEOPLE, 2)
    identities = {line for m in relay.messages for line in m.content.splitlines() if line.startswith(b"Message-ID")}
    assert len(identities) == 20


async def test_bad_new_list_leaves_the_old_run_in_place(make_campaign, tmp_path):
    """A fault while the new run is prepared must not make the next send forget whom the old one reached."""
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        await run("send", campaign, "--yes", cwd=tmp_path)
        (campaign / "people.csv").write_text("")
        broken = await run("send", campaign, "--yes", "--new", cwd=tmp_path)
        write_list(campaign / "people.csv", PEOPLE)
        after = await run("send", campaign, "--yes", cwd=tmp_path)
    assert broken.code == 2
    assert after.code == 0
    assert "this mailing ended" in after.err
    assert len(relay.messages) == 10


async def test_untouched_run_is_replaced_when_the_message_changed(make_campaign, tmp_path):
    async with ScriptedRelay(mail="550 5.7.1 not from you") as relay:
        campaign = make_campaign(relay)
        refused = await run("send", campaign, "--yes", cwd=tmp_path)
        assert refused.code == 3
    async with ScriptedRelay() as relay:
        (campaign / "campaign.toml").write_text(
            (campaign / "campaign.toml").read_text().replace("shop@example.com", "owner@example.com")
        )
        result = await run("send", campaign, "--yes", "--relay", url_of(relay), cwd=tmp_path)
    assert result.code == 0, result.err
    assert {message.reverse_path for message in relay.messages} == {"owner@example.com"}


async def test_resume_needs_no_files_but_the_outbox(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        await run("send", campaign, "--yes", "--limit", "4", cwd=tmp_path)
        for name in ("campaign.toml", "message.txt", "people.csv"):
            (campaign / name).unlink()
        result = await run("resume", campaign / "runs" / "spring.outbox", "--yes", cwd=tmp_path)
    assert result.code == 0, result.err
    assert reached(relay) == dict.fromkeys(PEOPLE, 1)


async def test_resume_tries_rejected_again_on_request(make_campaign, tmp_path):
    refusing = True

    def rcpt(path):
        return "550 5.1.1 who?" if refusing and path.startswith("p7@") else None

    async with ScriptedRelay(rcpt=rcpt) as relay:
        campaign = make_campaign(relay)
        assert (await run("send", campaign, "--yes", cwd=tmp_path)).code == 1
        refusing = False
        assert (await run("resume", campaign, "--yes", cwd=tmp_path)).code == 1
        result = await run("resume", campaign, "--yes", "--retry-rejected", cwd=tmp_path)
    assert result.code == 0, result.err
    assert reached(relay) == dict.fromkeys(PEOPLE, 1)


async def test_cancel_ends_a_run(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        await run("send", campaign, "--yes", "--limit", "4", cwd=tmp_path)
        cancelled = await run("cancel", campaign, "--yes", cwd=tmp_path)
        after = await run("send", campaign, "--yes", cwd=tmp_path)
    assert cancelled.code == 0
    assert "6 recipients cancelled" in cancelled.out
    assert after.code == 2
    assert len(relay.messages) == 4


async def test_only_writes_to_those_named(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        result = await run("send", campaign, "--yes", "--only", "P5@example.com", cwd=tmp_path)
    assert result.code == 3
    assert list(reached(relay)) == ["p5@example.com"]


async def test_redirect_is_a_rehearsal_and_leaves_the_real_run_alone(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        rehearsal = await run("send", campaign, "--redirect-to", "me@example.org", "--sample", "3", cwd=tmp_path)
        assert rehearsal.code == 0, rehearsal.err
        assert rehearsal.out.startswith("Rehearsal: me@example.org got every message; your recipients got none.")
        assert reached(relay) == {"me@example.org": 3}
        assert not (campaign / "runs" / "spring.outbox").exists()
        real = await run("send", campaign, "--yes", cwd=tmp_path)
    assert real.code == 0
    assert reached(relay) == {"me@example.org": 3, **dict.fromkeys(PEOPLE, 1)}


async def test_dry_run_opens_no_connection(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        result = await run("send", campaign, "--dry-run", cwd=tmp_path)
    assert result.code == 0, result.err
    assert result.out.startswith("Rehearsal: no mail was sent to your recipients.")
    assert relay.sessions == 0


async def test_sample_through_a_real_relay_wants_a_redirect(make_campaign, tmp_path):
    async with ScriptedRelay() as relay:
        campaign = make_campaign(relay)
        result = await run("send", campaign, "--yes", "--sample", "3", cwd=tmp_path)
    assert result.code == 2
    assert "--redirect-to" in result.err
    assert relay.sessions == 0


async def test_one_message_to_one_person_from_standard_input(tmp_path):
    async with ScriptedRelay() as relay:
        result = await run(
            "send", "--to", "Ann Li <ann@example.com>", "--from", "me@example.org", "--subject", "Hello",
            "--text", "-", "--relay", url_of(relay), "--yes", cwd=tmp_path, stdin="Grüße\n".encode(),
        )  # fmt: skip
    assert result.code == 0, result.err
    (message,) = relay.messages
    assert message.forward_paths == ("ann@example.com",)
    assert b"To: Ann Li <ann@example.com>" in message.content
    assert len(list((tmp_path / "runs").glob("*.outbox"))) == 1


async def test_list_from_standard_input_goes_on_and_notices_changes(tmp_path):
    message = tmp_path / "message.txt"
    message.write_text("Dear {{ first_name }},\n")
    rows = b"email,first_name\na@example.com,A\nb@example.com,B\nc@example.com,C\n"
    async with ScriptedRelay() as relay:
        command = ("send", "--recipients", "-", "--from", "me@example.org", "--subject", "Hi", "--text", message,
                   "--relay", url_of(relay), "--yes")  # fmt: skip
        first = await run(*command, "--limit", "1", cwd=tmp_path, stdin=rows)
        other = await run(*command, cwd=tmp_path, stdin=rows + b"d@example.com,D\n")
        second = await run(*command, cwd=tmp_path, stdin=rows)
    assert first.code == 3, first.err
    assert other.code == 2, other.err
    assert second.code == 0, second.err
    assert reached(relay) == {"a@example.com": 1, "b@example.com": 1, "c@example.com": 1}


async def test_two_at_once_are_refused(make_campaign, tmp_path):
    begun = asyncio.Event()

    async with ScriptedRelay(mail=lambda path: begun.set()) as relay:
        campaign = make_campaign(relay)
        first = await start("send", campaign, "--yes", cwd=tmp_path)
        await begun.wait()
        first.send_signal(signal.SIGSTOP)  # in the middle, for as long as the second needs
        second = await run("send", campaign, "--yes", cwd=tmp_path)
        first.send_signal(signal.SIGCONT)
        await first.communicate()
    assert second.code == 3
    assert str(first.pid) in second.err
    assert reached(relay) == dict.fromkeys(PEOPLE, 1)
