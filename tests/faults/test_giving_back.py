"""What breakers and canaries give back is safe in the same instant: a kill right after it loses no one."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bulkmail.testing import Hang, ScriptedRelay
from tests.e2e.commands import run, start, write_campaign

pytestmark = pytest.mark.crash

REFUSAL = "550 5.7.1 Message looks like spam"


def statuses(outbox: Path) -> dict[str, int]:
    with closing(sqlite3.connect(f"file:{outbox}?mode=ro", uri=True)) as connection:
        return dict(connection.execute("SELECT status, count(*) FROM delivery GROUP BY status"))


def rejections(outbox: Path) -> int:
    """How many attempts the outbox has that came to a rejection or would have."""
    with closing(sqlite3.connect(f"file:{outbox}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM attempt WHERE code = 550").fetchone()[0])


@pytest.mark.parametrize(
    ("number", "settings", "refused"),
    [(60, "", 20), (12, "", 5), (40, "canary = 5", 5)],
    ids=["breaker", "short-list", "canary"],
)
async def test_kill_right_after_a_breaker_gave_back_loses_no_recipient(
    tmp_path: Path, number: int, settings: str, refused: int
) -> None:
    is_waiting = bool(settings == "" and number == 60)

    def rcpt(path: str) -> object:
        # One session waits for its last answer, so that the run cannot end by itself.
        return Hang() if is_waiting and path == "p0@example.com" else REFUSAL

    addresses = [f"p{n}@example.com" for n in range(number)]
    async with ScriptedRelay(rcpt=rcpt) as relay:
        url = f"smtp://127.0.0.1:{relay.port}?tls=off&connections=4"
        folder = write_campaign(tmp_path / "spring", addresses, relay=url, settings=settings)
        process = await start("send", folder, "--yes", cwd=tmp_path)
        ended = asyncio.ensure_future(process.communicate())
        outboxes = folder / "runs"
        while not ended.done():
            found = list(outboxes.glob("*.outbox")) if outboxes.exists() else []
            try:
                if found and rejections(found[0]) >= refused:
                    break
            except sqlite3.OperationalError:  # not laid down yet
                pass
            await asyncio.sleep(0.002)
        if process.returncode is None:
            process.kill()
        await ended
    (outbox,) = outboxes.glob("*.outbox")
    assert statuses(outbox) == {"pending": number}

    async with ScriptedRelay() as relay:
        text = (folder / "campaign.toml").read_text("utf-8")
        (folder / "campaign.toml").write_text(text.replace(url, f"smtp://127.0.0.1:{relay.port}?tls=off"), "utf-8")
        result = await run("send", folder, "--yes", cwd=tmp_path)
        assert result.code == 0, result.err
        assert sorted(message.forward_paths[0] for message in relay.messages) == sorted(addresses)
    assert statuses(outbox) == {"accepted": number}
