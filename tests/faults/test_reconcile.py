"""Rows in doubt from the accident to their end: named by status, looked up by settle, decided by resume."""

from __future__ import annotations

import asyncio
import smtplib
from collections import Counter
from pathlib import Path

import pytest

from bulkmail.model.tally import Status
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.testing import Drop, ScriptedRelay, TakenMessage
from tests.e2e.commands import Result, run, write_campaign
from tests.servers.dovecot_lmtp import PASSWORD, run_dovecot

pytestmark = pytest.mark.slow

PEOPLE = [f"p{n}@example.com" for n in range(6)]


async def leave_in_doubt(folder: Path, taken: list[TakenMessage] | None = None) -> tuple[Path, list[str]]:
    """A run with p1 and p4 in doubt; the outbox and the Message-IDs of all, in the order of the list.

    What the server took is added to `taken`.
    """
    async with ScriptedRelay(end=lambda path: Drop(keeps=True) if path[:2] in ("p1", "p4") else None) as relay:
        url = f"smtp://{relay.host}:{relay.port}?tls=off&connections=1"
        campaign = write_campaign(folder / "spring", PEOPLE, relay=url)
        assert (await run("send", campaign, "--yes", cwd=folder)).code == 4
    if taken is not None:
        taken += relay.messages
    outbox = campaign / "runs" / "spring.outbox"
    with OutboxReader.open(outbox) as reader:
        return outbox, [row.message_id for row in reader.rows()]


def statuses(outbox: Path) -> Counter[Status]:
    with OutboxReader.open(outbox) as reader:
        return Counter(row.status for row in reader.rows())


async def test_status_names_the_rows_in_doubt_and_settle_finds_one_of_them(tmp_path: Path) -> None:
    outbox, ids = await leave_in_doubt(tmp_path)
    mail = tmp_path / "mail"
    for name in ("new", "cur"):
        (mail / name).mkdir(parents=True)
    (mail / "cur" / "1").write_text(f"Message-ID: {ids[1]}\nTo: someone\n\nDear P1\n")
    (mail / "new" / "2").write_text("Message-ID: <another@example.net>\n\n")

    said = (await run("status", outbox, cwd=tmp_path)).out
    assert "row 2  p1@example.com" in said and "row 5  p4@example.com" in said
    assert said.count(": 127.0.0.1 closed the connection before it answered the end of the message") == 2
    assert "bulkmail reconcile" in said and "--in-doubt" in said

    dry = await run("reconcile", outbox, "--maildir", mail, "--dry-run", cwd=tmp_path)
    assert dry.code == 4
    assert "would become accepted" in dry.out
    assert statuses(outbox)[Status.IN_DOUBT] == 2

    found = await run("reconcile", outbox, "--maildir", mail, cwd=tmp_path)
    assert found.code == 4, found.err
    assert "row 2  p1@example.com  found in" in found.out
    assert f"row 5  p4@example.com  {ids[4]}" in found.out
    assert "Not found is no proof" in found.out
    assert statuses(outbox) == {Status.ACCEPTED: 5, Status.IN_DOUBT: 1}

    log = f"Jan 1 00:00:00 mx postfix/cleanup[1]: 4QxAAA1: message-id={ids[4]}\n"
    log += "Jan 1 00:00:00 mx postfix/qmgr[1]: 4QxAAA1: from=<shop@example.com>, size=1, nrcpt=1 (queue active)\n"
    last = await run("reconcile", outbox, "--log", "-", cwd=tmp_path, stdin=log.encode())
    assert last.code == 0, last.err
    assert statuses(outbox) == {Status.ACCEPTED: 6}
    assert (await run("reconcile", outbox, "--log", "-", cwd=tmp_path, stdin=b"")).out.startswith("Nothing is in doubt")
    with OutboxReader.open(outbox) as reader:
        reasons = [row.reason for row in reader.rows()]
    assert reasons[4].startswith("found in standard input, as 4QxAAA1 on 20")


@pytest.mark.parametrize(
    ("decision", "after"), [("hold", Status.IN_DOUBT), ("accepted", Status.ACCEPTED), ("rejected", Status.REJECTED)]
)
async def test_resume_decides_the_rows_in_doubt_as_reported(tmp_path: Path, decision: str, after: Status) -> None:
    outbox, _ = await leave_in_doubt(tmp_path)
    async with ScriptedRelay() as relay:
        url = f"smtp://{relay.host}:{relay.port}?tls=off"
        result = await run("resume", outbox, "--yes", "--relay", url, "--in-doubt", decision, cwd=tmp_path)
    assert relay.messages == []
    assert statuses(outbox)[after] == (6 if after is Status.ACCEPTED else 2)
    assert result.code == {"hold": 4, "accepted": 0, "rejected": 1}[decision], result.err


async def test_settle_says_what_it_was_not_reported(tmp_path: Path) -> None:
    outbox, _ = await leave_in_doubt(tmp_path)

    async def refused(*arguments: str | Path) -> Result:
        result = await run("reconcile", outbox, *arguments, cwd=tmp_path)
        assert result.code == 2
        return result

    assert "no place to look in was given" in (await refused()).err
    assert "no Maildir" in (await refused("--maildir", tmp_path)).err
    assert "are for --imap" in (await refused("--folder", "Sent", "--log", "x")).err
    assert "needs a password" in (await refused("--imap", "imaps://ann@127.0.0.1")).err
    leaked = await refused("--imap", "imaps://ann:canary@127.0.0.1")
    assert "canary" not in leaked.err + leaked.out
    assert statuses(outbox)[Status.IN_DOUBT] == 2


@pytest.mark.real
@pytest.mark.timeout(60)
async def test_message_in_doubt_is_found_in_a_folder_of_a_real_imap_server(tmp_path: Path, loop_watch) -> None:
    """The one that arrived in a mailbox of ours is settled; the other stays."""
    taken: list[TakenMessage] = []
    outbox, _ = await leave_in_doubt(tmp_path, taken)
    loop_watch.deactivate()
    with run_dovecot(["seed@example.com"]) as dovecot:
        content = next(message.content for message in taken if message.forward_paths == ("p4@example.com",))
        with smtplib.LMTP(dovecot.host, dovecot.port) as client:
            await asyncio.to_thread(client.sendmail, "shop@example.com", ["seed@example.com"], content)
        url = f"imap://seed%40example.com@127.0.0.1:{dovecot.imap_port}?tls=off"
        wanted = ("reconcile", outbox, "--imap", url, "--folder", "INBOX")
        refused = await run(*wanted, cwd=tmp_path, BULKMAIL_IMAP_PASSWORD="the-wrong-canary")
        assert refused.code == 3 and "refused the login" in refused.err, refused.err
        assert "canary" not in refused.err + refused.out
        found = await run(*wanted, cwd=tmp_path, BULKMAIL_IMAP_PASSWORD=PASSWORD)
    assert found.code == 4, found.err
    assert "row 5  p4@example.com  found in INBOX of seed@example.com at 127.0.0.1" in found.out
    assert statuses(outbox) == {Status.ACCEPTED: 5, Status.IN_DOUBT: 1}


async def test_rows_are_decided_one_by_one_and_nothing_is_sent(tmp_path: Path) -> None:
    outbox, _ = await leave_in_doubt(tmp_path)
    some = await run("reconcile", outbox, "--as", "accepted", "--rows", "1-3", cwd=tmp_path)
    assert some.code == 4, some.err
    assert statuses(outbox) == {Status.ACCEPTED: 5, Status.IN_DOUBT: 1}
    none = await run("reconcile", outbox, "--as", "rejected", "--rows", "2", cwd=tmp_path)
    assert none.code == 4, none.err
    assert statuses(outbox) == {Status.ACCEPTED: 5, Status.IN_DOUBT: 1}
    rest = await run("reconcile", outbox, "--as", "retry", cwd=tmp_path)
    assert rest.code == 0, rest.err
    assert "bulkmail resume" in rest.out
    assert statuses(outbox) == {Status.ACCEPTED: 5, Status.PENDING: 1}
    for wrong in (["--as", "accepted", "--log", "-"], ["--rows", "1"], ["--as", "accepted", "--rows", "1-x"], []):
        assert (await run("reconcile", outbox, *wrong, cwd=tmp_path)).code == 2
