"""A stranger's hour with the docs alone, each task in under 30 lines; a new list format is in test_contributing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, blocks
from tests.e2e.commands import environment

PAGE = DOCS / "guides" / "python.md"


def block_with(words: str) -> str:
    (found,) = [block.body for block in blocks(PAGE, "python") if words in block.body]
    return found


@pytest.mark.parametrize("words", ["SELECT * FROM invoice", "def test_", "FastAPI(", "DataFrame", "sqlalchemy"])
def test_example_is_short(words: str) -> None:
    body = block_with(words).partition("async def try_it")[0]
    assert len([line for line in body.splitlines() if line.strip()]) < 30


@pytest.mark.slow
def test_tests_of_a_campaign_pass_with_the_plugin_alone(tmp_path: Path) -> None:
    (tmp_path / "test_campaign.py").write_text(block_with("def test_"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "bulkmail.testing.plugin", "-p", "no:asyncio"],
        cwd=tmp_path, env=environment(BULKMAIL_STATE_DIR=str(tmp_path / "state")), capture_output=True, text=True,
        timeout=50,
    )  # fmt: skip
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout


@pytest.mark.slow
def test_pdfs_of_the_example_are_enclosed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block_with("SELECT * FROM invoice")],
        cwd=tmp_path, env=environment(BULKMAIL_STATE_DIR=str(tmp_path / "state")), capture_output=True, text=True,
        timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sent = sorted(path.read_text(encoding="utf-8") for path in (tmp_path / "sent").rglob("new/*"))
    assert len(sent) == 2 and all("Content-Type: application/pdf" in text for text in sent)
