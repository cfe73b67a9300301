"""A canary for a password: through a good run, a refused one, a crash and every report, and then it is looked for."""

from __future__ import annotations

import asyncio
import base64
import stat
from pathlib import Path

import pytest

from tests.e2e.commands import run, start
from tests.faults.oracle import make_campaign, witness

pytestmark = pytest.mark.slow

CANARY = "Kanarienvogel-7c1f9d-geheim"
PEOPLE = [f"p{n}@example.com" for n in range(60)]


def forms() -> list[bytes]:
    """As itself and as it goes over the wire."""
    plain = [CANARY.encode(), f"\0shop\0{CANARY}".encode(), f"{CANARY}".encode("utf-16-le")]
    encoded = [base64.b64encode(text).rstrip(b"=")[:-2] for text in plain[:2]]
    return [*plain, *encoded]


def assert_nowhere(folder: Path, *said: str, kept: frozenset[str] = frozenset()) -> int:
    """Looks into every file below `folder` but those that are to hold it, and into what was said."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in kept]
    for form in forms():
        assert not [path for path in files if form in path.read_bytes()]
        assert not [text for text in said if form in text.encode()]
    return len(files)


async def test_canary_password_is_in_nothing_that_a_run_leaves(tmp_path: Path) -> None:
    said: list[str] = []
    secret = tmp_path / "secret.txt"
    secret.write_text(CANARY)
    secret.chmod(0o600)
    campaign = make_campaign(tmp_path / "spring", PEOPLE)
    settings = (campaign / "campaign.toml").read_text()
    async with witness(tmp_path / "log", auth={"shop": CANARY}, delay=0.01, syncs=False) as seen:
        url = f"smtp://shop@127.0.0.1:{seen.port}?tls=off&auth=plaintext&connections=2"
        table = f'[relay]\nurl = "{url}"\npassword_file = "{secret}"\n'
        (campaign / "campaign.toml").write_text(settings.replace('relay = "null:"\n', "") + table)
        command = ("send", campaign, "--yes", "--debug", "--trace", tmp_path / "trace.log")
        sending = await start(*command, cwd=tmp_path)
        while seen.size < 2000:
            await asyncio.sleep(0.01)
        sending.kill()
        out, err = await sending.communicate()
        said += [out.decode(), err.decode()]
        for words in (
            command,
            ("status", campaign),
            ("report", campaign, "--format", "json"),
            ("relay", campaign),
            ("check", campaign),
            ("resume", campaign, "--yes", "--in-doubt", "accepted"),
        ):
            result = await run(*words, cwd=tmp_path)
            said += [result.out, result.err]
            assert result.code in (0, 2, 4), result.err
    # Refused: another password is wanted than ours.
    async with witness(tmp_path / "log2", auth={"shop": "another"}) as seen:
        wrong = f"smtp://shop@127.0.0.1:{seen.port}?tls=off&auth=plaintext"
        result = await run(
            "send", campaign, "--new", "--yes", "--debug", "--relay", wrong, cwd=tmp_path, BULKMAIL_PASSWORD=CANARY
        )
        assert result.code == 3, result.err
        said += [result.out, result.err]
    # Given where it does not belong: in an address, and as the name of a variable.
    misplaced = f"smtp://shop:{CANARY}@127.0.0.1:{seen.port}"
    for words in (("send", campaign, "--new", "--yes", "--relay", misplaced), ("relay", misplaced)):
        result = await run(*words, cwd=tmp_path)
        assert result.code == 2, result.err
        said += [result.out, result.err]
    number = assert_nowhere(tmp_path, *said, kept=frozenset({"secret.txt"}))
    assert number >= 8, "there was nothing to look into"
    assert (tmp_path / "trace.log").exists()
    for path in [*(campaign / "runs").glob("*.outbox"), tmp_path / "trace.log"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
