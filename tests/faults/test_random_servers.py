"""A server that answers at random and cuts its bytes anywhere; what bulkmail says of each address is what it did.

CI takes some seeds; `BULKMAIL_SEEDS=1000` takes this many, from BULKMAIL_SEED on.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections import Counter
from typing import Any

import pytest

import bulkmail
from bulkmail.model.pace import Pace
from bulkmail.model.tally import Status
from tests.chance import SEED

pytestmark = pytest.mark.slow

SEEDS = int(os.environ.get("BULKMAIL_SEEDS", "24"))
LONGEST = 30  # seconds for which one campaign may take


class _Gone(Exception):
    """The connection is over."""


class RandomServer:
    """Takes mail by SMTP or LMTP, in the words and pieces that the dice give, and counts who got which message.

    `got` and `lost` are by subject and address: `lost` was neither taken nor refused, the connection was closed.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.is_lmtp = rng.random() < 0.3
        self.has_chunking = not self.is_lmtp and rng.random() < 0.4
        self.is_faulty = rng.random() < 0.6
        self.got: Counter[tuple[str, str]] = Counter()
        self.lost: Counter[tuple[str, str]] = Counter()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            await _Conversation(self, reader, writer).hold()
        except (_Gone, ConnectionError):
            pass
        finally:
            writer.close()


class _Conversation:
    def __init__(self, server: RandomServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server, self._reader, self._writer = server, reader, writer
        self._rng = server.rng
        self._read = b""
        self._unsaid = b""
        self._paths: list[str] = []

    async def hold(self) -> None:
        self._say("220 mail.test ESMTP")
        while True:
            line = await self._take(b"\n")
            if self._rng.random() < 0.1:
                await self._flush()
            await self._answer(line.strip().decode())

    async def _answer(self, line: str) -> None:
        match line.upper().split(maxsplit=1)[0] if line else "":
            case "EHLO" | "LHLO":
                offered = ["PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES"]
                offered += ["CHUNKING"] if self._server.has_chunking else []
                self._say(*("250-" + name for name in ["mail.test", *offered]), "250 SIZE 10000000")
            case "MAIL":
                self._paths = []
                self._say("250 2.1.0 Ok")
            case "RCPT":
                self._recipient(re.findall("<(.*?)>", line)[0])
            case "RSET":
                self._paths = []
                self._say("250 2.0.0 Ok")
            case "DATA" if self._paths:
                self._say("354 go on")
                await self._ends((await self._take(b"\r\n.\r\n")).replace(b"\n..", b"\n."))
            case "DATA":
                self._say("554 5.5.1 no valid recipients")
            case "BDAT":
                content = await self._take_bytes(int(line.split()[1]))
                if self._paths:
                    await self._ends(content)
                else:
                    self._say("503 5.5.1 no valid recipients")
            case "QUIT":
                self._say("221 2.0.0 bye")
                await self._flush()
                raise _Gone
            case _:
                self._say("500 5.5.2 what?")

    def _recipient(self, path: str) -> None:
        if path.startswith("gone"):
            self._say("550 5.1.1 no such user")
        elif self._fails(0.03):
            self._say("450 4.2.1 mailbox busy")
        else:
            self._paths.append(path)
            self._say(*(["250 2.1.5 Ok"] if self._rng.random() < 0.9 else ["250-2.1.5 Ok", "250 2.1.5 certainly"]))

    async def _ends(self, content: bytes) -> None:
        subject = re.findall(rb"^Subject: (\S+)", content, re.MULTILINE)[0].decode()
        paths, self._paths = self._paths, []
        for together in [[path] for path in paths] if self._server.is_lmtp else [paths]:
            keys = [(subject, path) for path in together]
            if self._fails(0.02):
                self._say("451 4.3.0 try later")
            elif self._fails(0.01):
                self._server.lost.update(keys)
                await self._flush()
                raise _Gone
            else:
                self._server.got.update(keys)
                self._say("250 2.0.0 Ok: queued")

    def _fails(self, share: float) -> bool:
        return self._server.is_faulty and self._rng.random() < share

    def _say(self, *lines: str) -> None:
        self._unsaid += "".join(f"{line}\r\n" for line in lines).encode()

    async def _flush(self) -> None:
        """Says what is unsaid, in any pieces."""
        said, self._unsaid = self._unsaid, b""
        while said:
            size = len(said) if self._rng.random() < 0.7 else self._rng.randint(1, len(said))
            self._writer.write(said[:size])
            said = said[size:]
            await asyncio.sleep(self._rng.choice([0, 0, 0.001]))

    async def _take(self, end: bytes) -> bytes:
        while end not in self._read:
            await self._more()
        taken, _, self._read = self._read.partition(end)
        return taken + end

    async def _take_bytes(self, size: int) -> bytes:
        while len(self._read) < size:
            await self._more()
        taken, self._read = self._read[:size], self._read[size:]
        return taken

    async def _more(self) -> None:
        await self._flush()
        received = await self._reader.read(65_536)
        if not received:
            raise _Gone
        self._read += received


def make_list(rng: random.Random) -> list[dict[str, Any]]:
    """People, some with copies, a few of whom no one knows."""
    share, rows = rng.choice([0.0, 0.2, 0.6, 1.0]), []
    for number in range(rng.choice([1, 2, 5, 30, 120])):
        others = [f"boss{rng.randint(0, 3)}", f"gone{rng.randint(0, 3)}", f"friend{number}"]
        copies = rng.sample(others, rng.randint(1, 3)) if rng.random() < share else []
        rows.append(
            {
                "email": f"{'gone' if rng.random() < 0.05 else 'p'}{number}@example.org",
                "subject": f"m{number}",
                "copies": ", ".join(f"{name}@example.com" for name in copies),
            }
        )
    return rows


@pytest.mark.timeout(LONGEST * 2)
@pytest.mark.parametrize("seed", range(SEED, SEED + SEEDS))
async def test_what_is_said_of_each_address_is_what_the_server_did(seed: int) -> None:
    rng = random.Random(seed)
    server, rows = RandomServer(rng), make_list(rng)
    has_copies = any(row["copies"] for row in rows)
    campaign = bulkmail.compose(
        from_="shop@example.org",
        subject="{{ subject }}",
        text="Hello {{ subject }}\n.\n",
        cc="{{ copies }}" if has_copies else None,
    )
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        url = f"lmtp://127.0.0.1:{port}?" if server.is_lmtp else f"smtp://127.0.0.1:{port}?tls=off&"
        sending = bulkmail.Mailer(f"{url}connections={rng.choice([1, 2, 4])}", pace=Pace(wait=0)).send(campaign, rows)
        report = await asyncio.wait_for(sending, LONGEST)
    found = Counter[tuple[str, str]]()
    for row in report.rows():
        for path in (row, *row.copies):
            key = str(row.fields["subject"]), path.address
            found[key] += path.status is Status.ACCEPTED
            assert path.status is Status.IN_DOUBT or not server.lost[key] or server.got[key]
    assert +found == server.got
    assert server.got.total() == len(server.got), "someone got it twice"
