"""The guide's dialogue with `bulkmail compose` is the one that a terminal shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e.test_compose import compose

GUIDE = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")


@pytest.mark.slow
async def test_guide_dialogue_with_compose_sends_what_it_says(tmp_path: Path) -> None:
    section = GUIDE.partition("### Written at the terminal\n")[2].partition("\n## ")[0]
    (transcript,) = re.findall(r"^```text\n\$ bulkmail compose\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    before, ends_it, after = transcript.partition("ends it:\n")
    text, _, last = after.partition("\n.\n")
    turns = [tuple(line.rsplit(": ", 1)) for line in before.splitlines()[:-1]]
    turns += [(before.splitlines()[-1] + ends_it.strip(), f"{text}\n."), (last.strip(), "")]
    dialogue = await compose(tmp_path)
    await dialogue.says(*turns)
    assert await dialogue.terminal.ends() == 0
    assert "2 accepted" in dialogue.terminal.screen
