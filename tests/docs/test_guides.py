"""The guides are what happens: their files are written, their commands run in order, their output compared.

A block below a line with a file's name is that file, `console` are commands with what they say.  A line `…` stands
for any lines.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import time
from pathlib import Path

import pytest

from bulkmail.cli import main
from tests.docs.pages import DOCS, Block, blocks
from tests.docs.test_tutorial import commands_of, plain

GUIDES = [page for page in sorted((DOCS / "guides").glob("*.md")) if any(blocks(page, "console"))]
# What is chance beyond that of the tutorial.
_CHANCES = (
    (re.compile(r"Message-ID: .*|Date: .*"), "HEADER"),
    (re.compile(r"\b\d{4}-\d\d-\d\d\b"), "DATE"),
)


def says(command: str) -> str:
    """What a command prints: bulkmail's in this process, which is ten times as fast as one of its own."""
    words = shlex.split(command)
    if words[0] != "bulkmail":
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
        return done.stdout
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
        main(words[1:], prog_name="bulkmail")
    said.flush()
    return said.buffer.getvalue().decode("utf-8").replace(f"{Path.cwd()}/", "")  # type: ignore[attr-defined]


def without_chance(text: str) -> list[str]:
    for pattern, name in _CHANCES:
        text = pattern.sub(name, text)
    return plain(text)


def agrees(shown: str, said: str) -> bool:
    """Whether `shown`, which may have `…` for any lines, is what was said."""
    pattern = "\n".join("(?:.*\n)*?.*" if line == "…" else re.escape(line) for line in without_chance(shown))
    return re.fullmatch(pattern, "\n".join(without_chance(said))) is not None


def play(block: Block) -> None:
    """Does what a block says, in the current folder."""
    if block.about:
        path = Path(block.about)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.body, encoding="utf-8")
        return
    for command, shown in commands_of(block.body):
        said = says(command)
        assert agrees(shown, said), f"{block}: $ {command}\n{said}"


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_guide_is_what_happens(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {"TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "80", "TZ": "UTC"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BULKMAIL_STATE_DIR", str(tmp_path / "state"))
    time.tzset()
    for block in blocks(page):
        if block.about or block.language == "console":
            play(block)
