"""The guide's example of a follow-up works as it says."""

from __future__ import annotations

import re
import shlex
from email import message_from_bytes
from pathlib import Path

import pytest

from bulkmail.testing import ScriptedRelay
from tests.e2e.commands import run, write_campaign

GUIDE = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
SECTION = GUIDE.partition("### Follow-ups\n")[2].partition("\n## ")[0]


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_guide_example_of_a_follow_up_answers_the_first_message(tmp_path: Path) -> None:
    command, settings = re.findall(r"^```(?:sh)?\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
    async with ScriptedRelay() as relay:
        url = f"smtp://{relay.host}:{relay.port}?tls=off"
        first = write_campaign(tmp_path / "spring", ["ann@example.com"], relay=url)
        (first / "people.csv").write_text("email,name,first_name\nann@example.com,Ann,Ann\n")
        (tmp_path / "reminder").mkdir()
        (tmp_path / "reminder" / "campaign.toml").write_text(
            re.sub(r'^relay = ".*"$', f'relay = "{url}"', settings, flags=re.MULTILINE)
        )
        assert (await run("send", "spring", "--yes", cwd=tmp_path)).code == 0
        sent = await run(*shlex.split(command)[1:], "--yes", cwd=tmp_path, BULKMAIL_SUPPRESSIONS=str(tmp_path / "none"))
    assert sent.code == 0, sent.err
    before, after = (message_from_bytes(taken.content) for taken in relay.messages)
    assert after["In-Reply-To"] == after["References"] == before["Message-ID"]
    assert after["Subject"] == "Re: The tulips are here, Ann"
    assert "the subject is not that of spring" in " ".join(sent.err.split())
