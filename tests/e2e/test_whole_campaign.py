"""A campaign is all its passes: sent, bounced, corrected, sent again, and shown as one."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from bulkmail.testing import ScriptedRelay
from tests.e2e.commands import Result, run, write_campaign
from tests.e2e.test_bounces import bounce
from tests.feedback import mails

pytestmark = pytest.mark.slow

PEOPLE = ["ann@example.org", "bob@exmaple.org", "eve@example.org", "gone@example.org"]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def _refuses_gone(path: str) -> str | None:
    return "550 5.1.1 no such user" if "gone@" in path else None


async def bulkmail(*arguments: str | Path, folder: Path, state: Path) -> Result:
    found = await run(*arguments, cwd=folder, BULKMAIL_STATE_DIR=str(state))
    assert found.code in (0, 1), found.err
    return found


@pytest.fixture
async def campaign(tmp_path: Path, state: Path) -> Path:
    """Sent to four: one address is refused, one comes back as unknown and is corrected, one complains."""
    async with ScriptedRelay(rcpt=_refuses_gone) as relay:
        folder = write_campaign(tmp_path / "spring", PEOPLE, relay=f"smtp://{relay.host}:{relay.port}?tls=off")
        settings = folder / "campaign.toml"
        settings.write_text(
            settings.read_text().replace("[message]\n", '[message]\nreverse_path = "bounces+{bounce}@shop.example"\n')
        )
        await bulkmail("send", folder, "--yes", folder=tmp_path, state=state)
        sent = {message.forward_paths[0]: message for message in relay.messages}
        maildir = tmp_path / "Maildir"
        for name in ("new", "cur", "tmp"):
            (maildir / name).mkdir(parents=True)
        (maildir / "new" / "1").write_bytes(bounce(PEOPLE[1], to=sent[PEOPLE[1]].reverse_path))
        quoted = sent["eve@example.org"].content.partition(b"\r\n\r\n")[0].decode().replace("\r\n", "\n") + "\n"
        (maildir / "new" / "2").write_bytes(mails.arf(fields="", quoted=quoted))
        (maildir / "new" / "3").write_bytes(mails.request(subject="A question"))
        await bulkmail("bounces", "--maildir", maildir, folder=tmp_path, state=state)
        people = next(folder.glob("*.csv"))
        people.write_text(people.read_text().replace("bob@exmaple.org", "bob@example.org"))
        await bulkmail("send", folder, "--changed", "--yes", folder=tmp_path, state=state)
        return folder


async def test_status_and_report_show_all_passes_and_what_came_back(
    campaign: Path, tmp_path: Path, state: Path
) -> None:
    status = json.loads((await bulkmail("status", "spring", "--json", folder=tmp_path, state=state)).out)
    assert (status["totals"]["rows"], status["totals"]["accepted"], status["totals"]["rejected"]) == (5, 4, 1)
    assert [(each["pass"], each["totals"]["accepted"]) for each in status["passes"]] == [(1, 3), (2, 1)]
    assert (status["feedback"]["hard"], status["feedback"]["spam_complaint"], status["feedback"]["unmatched"]) == (
        1,
        1,
        1,
    )
    said = (await bulkmail("status", "spring", folder=tmp_path, state=state)).out
    assert "Sent in 2 passes:" in said
    assert "After sending: 1 came back as unknown (25.00%), 1 spam complaint (25.00%)." in said
    assert "bulkmail report spring" in said and "bulkmail bounces --unmatched" in said
    text = (await bulkmail("report", "spring", folder=tmp_path, state=state)).out
    assert "Sent in 2 passes:" in text and "1 came back as unknown" in text
    await bulkmail("report", "spring", "-o", "all.csv", folder=tmp_path, state=state)
    table = (tmp_path / "all.csv").read_text(encoding="utf-8")
    rows = {row["email"]: row for row in csv.DictReader(table.splitlines())}
    assert {
        email: (row["delivery_status"], row["delivery_pass"], row["delivery_feedback"], row["delivery_feedback_reason"])
        for email, row in rows.items()
    } == {
        "ann@example.org": ("accepted", "1", "", ""),
        "bob@exmaple.org": ("accepted", "1", "hard", "unknown-user"),
        "eve@example.org": ("accepted", "1", "spam_complaint", "abuse"),
        "bob@example.org": ("accepted", "2", "", ""),
        "gone@example.org": ("rejected", "2", "", ""),
    }
    assert rows["bob@exmaple.org"]["delivery_feedback_at"] != ""
    await bulkmail("report", "spring", "-o", "all.html", folder=tmp_path, state=state)
    page = (tmp_path / "all.html").read_text(encoding="utf-8")
    assert "came back as unknown (unknown-user)" in page and "Sent in 2 passes:" in page


async def test_outbox_named_itself_is_one_pass_with_what_came_back_about_it(
    campaign: Path, tmp_path: Path, state: Path
) -> None:
    first = json.loads(
        (
            await bulkmail(
                "report", campaign / "runs" / "spring.1.outbox", "--format", "json", folder=tmp_path, state=state
            )
        ).out
    )
    assert (first["totals"]["rows"], first["totals"]["accepted"], first["passes"]) == (4, 3, [])
    assert first["feedback"]["hard"] == 1
    assert [row["feedback"] and row["feedback"]["kind"] for row in first["rows"]] == [
        None,
        "hard",
        "spam_complaint",
        None,
    ]
    second = json.loads(
        (await bulkmail("status", campaign / "runs" / "spring.outbox", "--json", folder=tmp_path, state=state)).out
    )
    assert (second["totals"]["rows"], second["totals"]["accepted"], second["feedback"]["hard"]) == (4, 1, 0)


async def test_pass_whose_outbox_is_gone_is_named(campaign: Path, tmp_path: Path, state: Path) -> None:
    (campaign / "runs" / "spring.1.outbox").rename(tmp_path / "away")
    found = await bulkmail("status", "spring", "--json", folder=tmp_path, state=state)
    assert "1 outbox of earlier passes" in found.err
    assert json.loads(found.out)["totals"]["accepted"] == 1
