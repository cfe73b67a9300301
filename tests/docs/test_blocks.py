"""Every code block of README and docs is run, or at least read by what would run it."""

from __future__ import annotations

import ast
import csv
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import jinja2
import pytest

from bulkmail.cli import main
from bulkmail.cli.program import COMMANDS
from tests.docs.pages import DOCS, PAGES, Block, blocks
from tests.e2e.commands import environment

BLOCKS = [block for page in PAGES for block in blocks(page)]
_READ = {"python", "toml", "json", "sh", "console", "csv", "jinja", ""}
_SHOWN = {"text", "mermaid", "diff", "dockerfile", "ini", "html"}  # what is said, drawn, or read by no part of Python
_GUIDES = DOCS / "guides"
_RUN = [page for page in PAGES if page.parent == _GUIDES and any(blocks(page, "python"))]

_RUNNER = """\
import ast, asyncio, inspect
def run(source, name):
    found = eval(compile(source, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), {"__name__": "example"})
    if inspect.iscoroutine(found):
        asyncio.run(found)
"""


def of(*languages: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("block", [each for each in BLOCKS if each.language in languages], ids=str)


def test_every_block_is_in_a_language_that_is_read() -> None:
    assert {block.language for block in BLOCKS} <= _READ | _SHOWN


@of("python")
def test_python_can_be_read(block: Block) -> None:
    compile(block.body, str(block), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("page", _RUN, ids=lambda page: page.stem)
def test_python_of_the_guides_runs(page: Path, tmp_path: Path) -> None:
    """The blocks of a guide one after the other, in one process and a folder of their own; `await` as in a notebook."""
    runs = [_RUNNER, *(f"run({block.body!r}, {str(block)!r})" for block in blocks(page, "python"))]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(runs)],
        cwd=tmp_path, env=environment(BULKMAIL_STATE_DIR=str(tmp_path / "state")), capture_output=True, text=True,
        timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@of("toml")
def test_toml_can_be_read(block: Block) -> None:
    tomllib.loads(block.body)


@of("json")
def test_json_can_be_read(block: Block) -> None:
    json.loads(block.body)


@of("jinja")
def test_templates_can_be_read(block: Block) -> None:
    jinja2.Environment().parse(block.body)  # noqa: S701 - nothing is rendered


@of("csv")
def test_lists_have_cells_for_every_column(block: Block) -> None:
    for delimiter in ",;":
        if delimiter in block.body.splitlines()[0]:
            assert len({len(line) for line in csv.reader(block.body.splitlines(), delimiter=delimiter)}) == 1


def command_lines(block: Block) -> list[list[str]]:
    """What is said to bulkmail in a block of a shell: the words behind its name."""
    text = re.sub(r"\\\n\s*", "", block.body)
    found = []
    for line in text.splitlines():
        line = (
            line.removeprefix("$ ").strip() if block.language == "console" and line.startswith("$ ") else line.strip()
        )
        for match in re.finditer(r"(?:^|[|;&(] ?|&& |--no-open |bin/|\d )bulkmail ([a-z].*)$", line):
            try:
                found.append(shlex.split(re.split(r" [|>#] ?| && |\s{3,}", match[1])[0].rstrip(")`"), comments=True))
            except ValueError:
                continue  # half a sentence
    return found


@of("sh", "console", "")
def test_shell_can_be_read_and_its_commands_and_flags_exist(block: Block) -> None:
    if block.language == "sh":
        done = subprocess.run(["bash", "-n"], input=block.body, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    for words in command_lines(block):
        command: click.Command | None = main
        if words[0] in COMMANDS:
            command = main.get_command(click.Context(main), words[0])
        assert command is not main, f"bulkmail {words[0]}"
        if isinstance(command, click.Group) and len(words) > 1 and words[1] in command.commands:
            command = command.commands[words[1]]
        assert command is not None
        known = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)} | {
            "--help",
            "-h",
        }
        for word in words[1:]:
            if word.startswith("--") and word != "--":
                assert word.partition("=")[0] in known, f"{block}: bulkmail {' '.join(words)}"
