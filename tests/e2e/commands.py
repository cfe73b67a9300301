"""Running bulkmail as people do: as a process of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


def environment(**more: str) -> dict[str, str]:
    """This process's, without what its user has set for bulkmail, and with the ledgers of the test that runs it."""
    ours = "BULKMAIL_STATE_DIR"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BULKMAIL_") or name == ours}
    paths = [Path(__file__).parents[2]]
    if "TESTED_CORE" in os.environ:  # by which processes of these tests are put into a setting of the core
        paths.append(Path(__file__).parents[1] / "faults" / "way")
    return {**kept, "PYTHONPATH": os.pathsep.join(map(str, paths)), **more}


async def start(
    *arguments: str | Path, cwd: Path, stdin: bytes | None = None, **env: str
) -> asyncio.subprocess.Process:
    """Starts `bulkmail` with `arguments`; its standard input is empty, or closed after `stdin`."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bulkmail",
        *map(str, arguments),
        cwd=cwd,
        env=environment(**env),
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run(*arguments: str | Path, cwd: Path, stdin: bytes | None = None, **env: str) -> Result:
    """Runs `bulkmail` to its end."""
    process = await start(*arguments, cwd=cwd, stdin=stdin, **env)
    out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return Result(process.returncode, out.decode(), err.decode())


def write_list(path: Path, addresses: Sequence[str]) -> Path:
    """A list of these people, each called after the first part of the address."""
    rows = "".join(f"{address},{address.partition('@')[0].title()}\n" for address in addresses)
    path.write_text(f"email,first_name\n{rows}", encoding="utf-8")
    return path


def write_campaign(folder: Path, addresses: Sequence[str], *, relay: str, settings: str = "") -> Path:
    """A campaign folder: a short message, a list and a relay."""
    folder.mkdir(parents=True, exist_ok=True)
    write_list(folder / "people.csv", addresses)
    (folder / "message.txt").write_text("Dear {{ first_name }},\n\nhow are you?\n", encoding="utf-8")
    (folder / "campaign.toml").write_text(
        f"""
relay = "{relay}"
recipients = "people.csv"
[message]
from = "Shop <shop@example.com>"
subject = "Hello {{{{ first_name }}}}"
text = "message.txt"
[sending]
{settings}
""",
        encoding="utf-8",
    )
    return folder
