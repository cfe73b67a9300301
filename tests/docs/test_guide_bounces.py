"""The guide's way from a bounce mailbox to the first suppressed recipient, typed as it stands there."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from bulkmail.testing import ScriptedRelay
from tests.e2e.commands import environment, write_campaign
from tests.e2e.test_bounces import bounce

GUIDE = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")


@pytest.mark.slow
async def test_guide_leads_from_a_mailbox_to_the_first_suppressed_recipient(tmp_path: Path) -> None:
    (block,) = re.findall(r"```sh\n(mkdir -p ~/.config/bulkmail\n.*?)```", GUIDE, re.DOTALL)
    steps = block.splitlines()
    assert len(steps) <= 8
    command = tmp_path / "bin" / "bulkmail"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bulkmail "$@"\n')
    command.chmod(0o755)
    for name in ("new", "cur", "tmp"):
        (tmp_path / "Maildir" / name).mkdir(parents=True)
    env = environment(HOME=str(tmp_path), BULKMAIL_STATE_DIR=str(tmp_path / "state"))
    env |= {"PATH": f"{command.parent}:{env['PATH']}", "XDG_CONFIG_HOME": ""}
    said = dict[str, str]()
    async with ScriptedRelay() as relay:
        people = ["ann@example.org", "gone@example.org"]
        write_campaign(tmp_path / "spring", people, relay=f"smtp://{relay.host}:{relay.port}?tls=off")
        for step in steps:
            process = await asyncio.create_subprocess_shell(
                step, cwd=tmp_path, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            out = (await process.communicate())[0].decode()
            assert process.returncode == 0, f"{step}: {out}"
            said[step] = out
            for message in relay.messages:
                if message.forward_paths == ("gone@example.org",) or list(message.forward_paths) == [
                    "gone@example.org"
                ]:
                    (tmp_path / "Maildir" / "new" / "1").write_bytes(
                        bounce("gone@example.org", to=message.reverse_path, content=message.content)
                    )
    assert "1  hard bounces" in said["bulkmail bounces"]
    assert "gone@example.org" in said["bulkmail suppress list"] and "ann@" not in said["bulkmail suppress list"]
    assert "1 came back as unknown" in said["bulkmail report spring"]
