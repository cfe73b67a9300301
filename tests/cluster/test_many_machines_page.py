"""The recipe for many machines is what happens: from an empty PostgreSQL to two workers in five commands."""

from __future__ import annotations

import asyncio
import json
import shlex
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, blocks
from tests.e2e.commands import run, start
from tests.servers.postgresql import Database

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


async def test_recipe_leads_from_an_empty_database_to_two_workers(postgresql: Database, tmp_path: Path) -> None:
    url = await asyncio.to_thread(postgresql.make, "recipe")
    (recipe,) = blocks(DOCS / "many-machines.md", "console")
    export, *commands = [line.removeprefix("$ ") for line in recipe.body.splitlines() if line.startswith("$ ")]
    assert export.startswith("export BULKMAIL_STORE=") and len(commands) <= 5
    known = {"cwd": tmp_path, "BULKMAIL_STORE": url}
    for command in commands[:-1]:
        done = await run(*shlex.split(command)[1:], **known)
        assert done.code == 0, done.err
    worker = shlex.split(commands[-1])[1:]
    workers = [await start(*worker, "--drain", **known) for _ in range(2)]
    said = [await each.communicate() for each in workers]
    assert [each.returncode for each in workers] == [0, 0], said
    state = json.loads((await run("status", "spring", "--store", "--json", **known)).out)
    assert state["totals"]["accepted"] == state["totals"]["rows"] > 0
