"""The oracle itself: a campaign through a witness that misbehaves as its script says, and then the books are opened."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from bulkmail.model.tally import Status
from tests.e2e.commands import run
from tests.faults.oracle import hold, hold_report, make_campaign, make_due, witness
from tests.servers.certificates import authority

pytestmark = pytest.mark.slow

PEOPLE = [f"p{n}@example.com" for n in range(120)]
SETTINGS = 'retry = "0s*20"\nwait = "30s"\n'


async def test_witness_notices_who_breaks_the_rules(tmp_path: Path) -> None:
    """Without this the oracle's silence would prove nothing."""
    async with witness(tmp_path / "log") as seen:
        reader, writer = await asyncio.open_connection("127.0.0.1", seen.port)
        await reader.readline()
        for line in (
            b"EHLO me\r\n",
            b"MAIL FROM:<a@b.example> SMTPUTF8\r\n",
            b"RCPT TO:<c@d.example>\n",
            b"DATA\r\n",
            b"no header \xff\r\n.\r\n",
        ):
            writer.write(line)
            await asyncio.sleep(0.05)
        writer.close()
        await asyncio.sleep(0.05)
        found = [json.loads(line).get("breach", "") for line in seen.log.read_text().splitlines()]
    for words in ("SMTPUTF8", "bare LF", "8-bit", "0 Message-IDs"):
        assert any(words in breach for breach in found), found


@pytest.mark.timeout(60)
@pytest.mark.parametrize("depth", [1, 2, 8], ids=["plain", "pipelining", "chunking"])
async def test_everything_that_can_go_wrong_at_once(tmp_path: Path, depth: int) -> None:
    """Each stage fails now and then, some connections after the end was written: no one lost, none twice unsaid."""
    offered = {1: [], 2: ["PIPELINING"], 8: ["PIPELINING", "CHUNKING"]}[depth]
    faults = [
        {"stage": "connect", "nth": 3, "does": "drop"},
        {"stage": "mail", "nth": 41, "does": "421 4.3.2 back soon"},
        {"stage": "rcpt", "probability": 0.05, "once_each": True, "does": "450 4.2.1 greylisted"},
        {"stage": "rcpt", "nth": 97, "does": "reset"},
        {"stage": "data", "every": 61, "does": "451 4.3.0 not now"},
        {"stage": "body", "nth": 53, "does": "drop"},
        {"stage": "end", "nth": 47, "does": "drop"},
        {"stage": "end", "every": 37, "does": "452 4.3.1 no room"},
        {"stage": "answered", "every": 51, "does": "reset"},
    ]
    extensions = ["8BITMIME", "ENHANCEDSTATUSCODES", *offered]
    campaign = make_campaign(tmp_path / "spring", PEOPLE, settings=SETTINGS)
    outbox = campaign / "runs" / "spring.outbox"
    async with witness(tmp_path / "log", extensions=extensions, faults=faults, syncs=False, seed=depth) as seen:
        result = await run("send", campaign, "--yes", "--relay", seen.url(), cwd=tmp_path)
        verdict = hold(outbox, PEOPLE, seen, said=result.err)
        hold_report(campaign / "runs" / "spring-report.csv", PEOPLE, verdict.statuses)
        assert verdict.twice == 0
        assert 0 < verdict.statuses[Status.IN_DOUBT] <= 40, result.err
        assert verdict.statuses.keys() <= {Status.ACCEPTED, Status.IN_DOUBT}, result.err
        assert result.code == 4, result.err
        # Told to, it sends those again and no others: the same to the byte.
        await run("resume", campaign, "--yes", "--in-doubt", "retry", "--wait", "0", cwd=tmp_path)
        make_due(outbox)
        await run("resume", campaign, "--yes", cwd=tmp_path)
        after = hold(outbox, PEOPLE, seen)
        assert 0 < after.twice <= verdict.statuses[Status.IN_DOUBT]


@pytest.mark.timeout(40)
async def test_losses_over_tls_and_behind_a_login_are_reported_as_elsewhere(tmp_path: Path) -> None:
    """Only what had its end on its way is in doubt, also where TLS is in between."""
    people = PEOPLE[:80]
    with authority() as issuer:
        faults = [
            {"stage": "auth", "nth": 2, "does": "454 4.7.0 not now"},
            {"stage": "answered", "every": 23, "does": "reset"},
            {"stage": "end", "nth": 31, "does": "drop"},
        ]
        plan = {"tls": [str(path) for path in issuer.issue()], "auth": {"shop": "right"}, "faults": faults}
        extensions = ["8BITMIME", "PIPELINING", "CHUNKING"]
        campaign = make_campaign(tmp_path / "spring", people, settings=SETTINGS)
        async with witness(tmp_path / "log", extensions=extensions, syncs=False, **plan) as seen:
            url = f"smtp://shop@localhost:{seen.port}?ca_file={issuer.ca_file}&connections=3&depth=4"
            result = await run("send", campaign, "--yes", "--relay", url, cwd=tmp_path, BULKMAIL_PASSWORD="right")
            verdict = hold(campaign / "runs" / "spring.outbox", people, seen, said=result.err)
    assert result.code == 4, result.err
    assert verdict.twice == 0
    assert verdict.statuses.keys() == {Status.ACCEPTED, Status.IN_DOUBT}, result.err
    assert verdict.statuses[Status.IN_DOUBT] <= 4 * 4
