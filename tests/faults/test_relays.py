"""Two relays, one of them killed in the middle: all accepted once, or named in doubt."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from bulkmail.model.tally import Status
from bulkmail.outbox.outbox_reader import OutboxReader
from tests.e2e.commands import start, write_campaign

pytestmark = pytest.mark.crash

PEOPLE = 2000
# A server of its own that writes down whom it took before it says so, a line for each, unbuffered.
SERVER = """
import asyncio, os, sys
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

async def serve(reader, writer):
    say = lambda *lines: writer.write("".join(f"{line}\\r\\n" for line in lines).encode())
    say("220 hello")
    path = ""
    while line := (await reader.readline()).decode().strip():
        word = line[:4].upper()
        if word == "EHLO":
            say("250-me", "250 PIPELINING")
        elif word == "RCPT":
            path = line.partition("<")[2].partition(">")[0]
            say("250 ok")
        elif word == "DATA":
            say("354 go on")
            while (await reader.readline()) != b".\\r\\n":
                pass
            await asyncio.sleep(0.005)
            os.write(log, f"{path}\\n".encode())
            say("250 taken")
        else:
            say("221 bye" if word == "QUIT" else "250 ok")
    writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def start_server(log: Path) -> tuple[asyncio.subprocess.Process, int]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, str(log), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    return process, int(await process.stdout.readline())


def taken(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


@pytest.mark.timeout(90)
async def test_relay_killed_in_the_middle_loses_no_recipient_and_duplicates_none(tmp_path: Path) -> None:
    people = [f"p{n}@example.com" for n in range(int(os.environ.get("RELAYS_PEOPLE", PEOPLE)))]
    logs = [tmp_path / "one", tmp_path / "other"]
    (doomed, port), (other, other_port) = [await start_server(log) for log in logs]
    try:
        campaign = write_campaign(tmp_path / "spring", people, relay="null:")
        urls = [f"smtp://127.0.0.1:{number}?tls=off&connections=5" for number in (port, other_port)]
        flags = ("--relay", f"{urls[0]}&name=one&weight=1", "--relay", f"{urls[1]}&name=other&weight=1")
        sending = await start("send", campaign, "--yes", "--progress", "plain", *flags, cwd=tmp_path)
        while len(taken(logs[0])) < len(people) // 4:
            await asyncio.sleep(0.01)
        doomed.send_signal(signal.SIGKILL)
        out, err = await sending.communicate()
    finally:
        for process in (doomed, other):
            if process.returncode is None:
                process.kill()
            await process.wait()
    got = [*taken(logs[0]), *taken(logs[1])]
    with OutboxReader.open(campaign / "runs" / "spring.outbox") as reader:
        assert reader.tally().adds_up
        rows = list(reader.rows())
    accepted = {row.address: row.relay for row in rows if row.status is Status.ACCEPTED}
    doubtful = {row.address: row.relay for row in rows if row.status is Status.IN_DOUBT}
    assert accepted.keys() | doubtful.keys() == set(people)
    assert len(got) == len(set(got))
    assert accepted.keys() <= set(got)
    assert all(address in taken(logs[relay == "other"]) for address, relay in accepted.items())
    assert set(doubtful.values()) <= {"one"}
    assert len(doubtful) <= 5 * 2  # PIPELINING: two a connection
    assert sending.returncode == (4 if doubtful else 0), err.decode()
    assert b"one fails, and is retried from time to time" in err
    assert b"Through one " in out
