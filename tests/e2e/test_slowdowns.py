"""Who slows a run down is seen from another terminal while it sends, and afterwards."""

from __future__ import annotations

import json

import pytest

from bulkmail.testing import Late, ScriptedRelay
from tests.e2e.commands import run, start, write_campaign

pytestmark = pytest.mark.slow

BUSY = "451 4.7.28 our system has detected an unusual rate of mail"


async def test_status_of_another_process_says_who_slows_it_down(tmp_path):
    people = [f"p{number}@{domain}" for number in range(40) for domain in ("gmail.com", "small.example")]

    def rcpt(path):
        return BUSY if path.endswith("@gmail.com") else Late(0.1, "250 ok")

    async with ScriptedRelay(rcpt=rcpt) as relay:
        url = f"smtp://127.0.0.1:{relay.port}?tls=off&connections=1"
        campaign = write_campaign(tmp_path / "shop", people, relay=url)
        sending = await start("send", campaign, "--yes", "--wait", "0", "--progress", "json", cwd=tmp_path)
        seen = {}
        while not seen.get("slowdowns"):
            status = await run("status", campaign, "--json", cwd=tmp_path)
            seen = json.loads(status.out) if status.code == 0 else {}
            assert sending.returncode is None
        _, said = await sending.communicate()
    (google,) = seen["slowdowns"]
    assert (google["mailbox_provider"], google["times"], google["reply"]) == ("google", 1, BUSY)
    assert google["until"] and seen["process"]["pid"] == sending.pid
    assert sending.returncode == 3
    lines = [json.loads(line) for line in said.decode().splitlines() if line.startswith("{")]
    assert [line["mailbox_provider"] for line in lines if line["event"] == "slowed"] == ["google"]
    after = await run("status", campaign, cwd=tmp_path)
    assert "Slowed down:\n  google asked us to slow down once" in after.out
    report = json.loads((tmp_path / "shop/runs/shop-report.json").read_text())
    assert report["slowdowns"][0]["mailbox_provider"] == "google" and report["totals"]["accepted"] == 40
