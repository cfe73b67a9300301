"""Intake killed at any instant: no event is lost, none is there twice, no mail is moved before its event is stored."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from pathlib import Path

import pytest

from bulkmail.testing import ScriptedRelay
from tests.e2e.commands import run, start, write_campaign
from tests.feedback import mails

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.timeout(900)]
MAILS = 600
KILLS = int(os.environ.get("BULKMAIL_KILLS", "24"))


def stored(state: Path) -> list[str]:
    """Whom the stored events are about."""
    if not (state / "suppressions.db").exists():
        return []
    with sqlite3.connect(f"file:{state / 'suppressions.db'}?mode=ro", uri=True) as connection:
        try:
            return [key for (key,) in connection.execute("SELECT key FROM event")]
        except sqlite3.OperationalError:  # killed before it was made
            return []


def lying(folder: Path) -> set[str]:
    """Whom the mails in a folder are about."""
    if not folder.exists():
        return set()
    return {f"p{path.name.partition(':')[0]}@example.org" for path in folder.iterdir()}


async def bounced(folder: Path, state: Path, people: list[str]) -> dict[str, bytes]:
    """A campaign that was sent, and the bounce of each of its messages."""
    async with ScriptedRelay() as relay:
        campaign = write_campaign(folder / "spring", people, relay=f"smtp://{relay.host}:{relay.port}?tls=off")
        settings = campaign / "campaign.toml"
        path = 'reverse_path = "bounces+{bounce}@shop.example"'
        settings.write_text(settings.read_text().replace("[message]\n", f"[message]\n{path}\n"))
        sent = await run("send", campaign, "--yes", cwd=folder, BULKMAIL_STATE_DIR=str(state))
        assert sent.code == 0, sent.err
        paths = {message.forward_paths[0]: message.reverse_path for message in relay.messages}
    return {
        person: mails.dsn(recipient=person, headers=f"Delivered-To: {paths[person]}\n", quoted="Subject: x\n")
        for person in people
    }


async def test_intake_can_be_killed_at_any_instant(tmp_path: Path, rng: random.Random) -> None:
    maildir, state = tmp_path / "Maildir", tmp_path / "state"
    people = [f"p{number}@example.org" for number in range(MAILS)]
    everyone = set(people)
    for name in ("new", "cur", "tmp"):
        (maildir / name).mkdir(parents=True)
    for number, mail in enumerate((await bounced(tmp_path, state, people)).values()):
        (maildir / "new" / str(number)).write_bytes(mail)
    arguments = ("bounces", "--maildir", maildir, "--then", "move=Done")
    for _ in range(KILLS):
        process = await start(*arguments, cwd=tmp_path, BULKMAIL_STATE_DIR=str(state))
        done = maildir / ".Done" / "cur"
        target = len(lying(done)) + rng.randint(0, MAILS // 2)  # half of them are there to be moved
        ended = asyncio.ensure_future(process.wait())
        while not ended.done() and len(lying(done)) < target:
            await asyncio.sleep(0.005)
        await asyncio.sleep(rng.uniform(0, 0.05))
        if process.returncode is None:
            process.kill()
        await process.communicate()
        keys = stored(state)
        assert len(keys) == len(set(keys))
        moved = lying(maildir / ".Done" / "cur")
        assert moved <= set(keys), "a mail was moved whose event is not stored"
        assert lying(maildir / "new") | moved == everyone, "a mail was lost"
        for path in list((maildir / ".Done" / "cur").glob("*"))[
            : MAILS // 2
        ]:  # so that there is always something to do
            path.rename(maildir / "new" / path.name.partition(":")[0])
    last = await run(*arguments, cwd=tmp_path, BULKMAIL_STATE_DIR=str(state))
    assert last.code == 0, last.err
    assert sorted(stored(state)) == sorted(everyone)
    assert lying(maildir / ".Done" / "cur") == everyone


async def test_two_intakes_at_once_come_to_the_same(tmp_path: Path) -> None:
    maildir, state = tmp_path / "Maildir", tmp_path / "state"
    people = [f"p{number}@example.org" for number in range(200)]
    for name in ("new", "cur", "tmp"):
        (maildir / name).mkdir(parents=True)
    for number, mail in enumerate((await bounced(tmp_path, state, people)).values()):
        (maildir / "new" / str(number)).write_bytes(mail)
    arguments = ("bounces", "--maildir", maildir, "--then", "move=Done")
    done = await asyncio.gather(*(run(*arguments, cwd=tmp_path, BULKMAIL_STATE_DIR=str(state)) for _ in range(3)))
    assert [each.code for each in done] == [0, 0, 0], [each.err for each in done]
    assert sorted(stored(state)) == sorted(people)
    assert lying(maildir / ".Done" / "cur") == set(people)
