"""The guide's example of a conversation prints every word of it."""

from __future__ import annotations

import asyncio
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

import bulkmail
from bulkmail.smtp import trace as conversation
from bulkmail.testing import ScriptedRelay

GUIDE = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
SECTION = GUIDE.partition("### The conversation with the relay\n")[2].partition("\n### ")[0]


async def test_guide_example_of_a_conversation_prints_what_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "people.csv").write_text("email\nann@example.com\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"^```python\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
    campaign = bulkmail.compose(from_="shop@example.com", subject="Hello", text="Hello.\n")
    async with ScriptedRelay() as relay:
        source = example.replace("localhost:1025", f"{relay.host}:{relay.port}")
        names: dict[str, Any] = {"asyncio": asyncio, "bulkmail": bulkmail, "campaign": campaign}
        exec(f"async def main():\n{textwrap.indent(source, '    ')}\n    return report", names)  # noqa: S102 - ours
        report = await names["main"]()
    assert report.accepted == 1
    assert "1 > RCPT TO:<ann@example.com>" in capsys.readouterr().out
    assert f"{conversation.LAG:,} lines behind" in " ".join(SECTION.split())
