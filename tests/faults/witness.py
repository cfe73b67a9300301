"""An SMTP server that believes nothing and writes down what it took before it says so: the oracle of the fault tests.

Run as a process of its own: `python witness.py LOG [PLAN]`.  It prints its port.  LOG gets a line of JSON for each
recipient of each message taken, and one for each breach of the rules.  PLAN is JSON: `port`, `extensions`, `auth`
(user → password), `tls` (certificate and key file), `delay` (seconds between writing down and answering), `syncs`
(whether each line is on the disk before the answer), `seed`, and `faults`, each of which has

    stage         connect ehlo auth mail rcpt data body end answered rset quit; `answered` is after it was written down
    nth, every, probability     which one at that stage, counted over all connections; `once_each`: the first of a path
    does          a reply, "drop", "reset", "hang", or "die": the whole server, by SIGKILL
"""

from __future__ import annotations

import asyncio
import base64
import email
import hashlib
import json
import os
import random
import re
import signal
import socket
import ssl
import struct
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

EXTENSIONS = ("PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "SIZE 10000000")
_STRAY = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")
_PATH = re.compile(r"(FROM|TO):<([^<>\s]*)>((?: [A-Z0-9-]+(?:=[^\s=]+)?)*)", re.IGNORECASE)


class Gone(Exception):
    """The connection is over."""


class Witness:
    """What all connections share."""

    def __init__(self, log: str, plan: Mapping[str, Any]) -> None:
        self.plan = plan
        self.extensions: list[str] = list(plan.get("extensions", EXTENSIONS))
        self.delay: float = plan.get("delay", 0.0)
        self.logins: Mapping[str, str] = plan.get("auth", {})
        self.sessions = 0
        self.tls: ssl.SSLContext | None = None
        if "tls" in plan:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(*plan["tls"])
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._syncs: bool = plan.get("syncs", True)
        self._rng = random.Random(plan.get("seed", 0))
        self._counts: Counter[str] = Counter()
        self._seen: set[tuple[int, str]] = set()

    def write(self, *entries: Mapping[str, object]) -> None:
        """Durable when it returns; one write, so that a killed server leaves no half of a message."""
        os.write(self._log, "".join(json.dumps(entry) + "\n" for entry in entries).encode())
        if self._syncs:
            os.fdatasync(self._log)

    def fault(self, stage: str, path: str = "") -> str | None:
        """What the script wants done now."""
        self._counts[stage] += 1
        for number, fault in enumerate(self.plan.get("faults", ())):
            if fault["stage"] == stage and self._is_due(number, fault, self._counts[stage], path):
                return str(fault["does"])
        return None

    def _is_due(self, number: int, fault: Mapping[str, Any], count: int, path: str) -> bool:
        if "nth" in fault:
            return bool(count == fault["nth"])
        if "every" in fault:
            return bool(count % fault["every"] == 0)
        if self._rng.random() >= fault.get("probability", 1.0):
            return False
        if fault.get("once_each"):
            if (number, path) in self._seen:
                return False
            self._seen.add((number, path))
        return True


class Connection:
    """One client, from its greeting to its end."""

    def __init__(self, witness: Witness, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        witness.sessions += 1
        self.number = witness.sessions
        self._witness = witness
        self._reader = reader
        self._writer = writer
        self._is_secure = False
        self._is_known = not witness.logins
        self._has_greeted = False
        self._forget()

    def _forget(self) -> None:
        self._reverse_path: str | None = None
        self._parameters: list[str] = []
        self._forward_paths: list[str] = []
        self._chunks = b""

    async def run(self) -> None:
        """Talks until the client leaves or the script ends it."""
        try:
            await self._answer("connect", "220 witness.test ESMTP")
            if self._waiting():
                self._breach("spoke before it was greeted")
            while True:
                await self._command()
        except (Gone, ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            self._writer.close()
            with suppress(OSError, ssl.SSLError):
                await self._writer.wait_closed()

    # The line.

    def _waiting(self) -> bool:
        return bool(self._reader._buffer)  # type: ignore[attr-defined]

    def _breach(self, what: str) -> None:
        self._witness.write({"breach": what, "session": self.number})

    async def _line(self) -> bytes:
        try:
            line = await self._reader.readuntil(b"\n")
        except asyncio.LimitOverrunError:
            self._breach("a line without end")
            raise Gone from None
        if _STRAY.search(line):
            self._breach(f"a bare CR, a bare LF or a NUL: {line[:80]!r}")
        return line

    async def _say(self, text: str) -> None:
        self._writer.write("".join(f"{line}\r\n" for line in text.split("\n")).encode())
        await self._writer.drain()
        if text.startswith(("221", "421")):
            raise Gone

    async def _answer(self, stage: str, usual: str, path: str = "") -> str:
        """The usual answer, or what the script wants; the answer given."""
        fault = self._witness.fault(stage, path)
        if fault is not None:
            await self._fail(fault)
        await self._say(fault or usual)
        return fault or usual

    async def _fail(self, does: str) -> None:
        """Returns if `does` is only a reply."""
        match does:
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                await asyncio.Event().wait()
            case "reset":
                raw = self._writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._writer.transport.abort()
                raise Gone
            case "drop":
                raise Gone

    # The commands.

    async def _command(self) -> None:
        line = await self._line()
        if len(line) > 1002:
            self._breach(f"a command of {len(line)} bytes")
        try:
            text = line.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            self._breach(f"a command that is not UTF-8: {line[:80]!r}")
            return await self._say("500 5.5.2 not text")
        verb, _, argument = text.partition(" ")
        verb = verb.upper()
        may_go_on = ("MAIL", "RCPT", "RSET", "BDAT") if "PIPELINING" in self._witness.extensions else ("BDAT",)
        if self._waiting() and verb not in may_go_on:  # DATA is the last of its group, RFC 2920 §3.1
            self._breach(f"did not wait for the answer to {verb}")
        handler = getattr(self, f"_do_{verb.lower()}", None) if verb.isalpha() else None
        if handler is None:
            self._breach(f"no command: {text[:80]!r}")
            return await self._say("500 5.5.2 no such command")
        await handler(argument)
        return None

    async def _do_ehlo(self, name: str) -> None:
        if not name.strip():
            self._breach("EHLO without a name")
        self._forget()
        self._has_greeted = True
        lines = ["witness.test", *self._witness.extensions]
        if self._witness.tls and not self._is_secure:
            lines.append("STARTTLS")
        if self._witness.logins:
            lines.append("AUTH PLAIN")
        await self._answer("ehlo", "\n".join(f"250{'-' if line is not lines[-1] else ' '}{line}" for line in lines))

    async def _do_helo(self, _: str) -> None:
        self._forget()
        self._has_greeted = True
        await self._say("250 witness.test")

    async def _do_starttls(self, _: str) -> None:
        if self._witness.tls is None or self._is_secure:
            return await self._say("503 5.5.1 not now")
        if self._waiting():
            self._breach("bytes behind STARTTLS")
        await self._say("220 2.0.0 go ahead")
        await self._writer.start_tls(self._witness.tls)
        self._is_secure, self._has_greeted = True, False
        return None

    async def _do_auth(self, argument: str) -> None:
        mechanism, _, initial = argument.partition(" ")
        if mechanism != "PLAIN" or not initial:
            return await self._say("504 5.5.4 only PLAIN, at once")
        _, user, password = base64.b64decode(initial).decode().split("\0")
        is_right = self._witness.logins.get(user) == password
        said = await self._answer("auth", "235 2.7.0 welcome" if is_right else "535 5.7.8 wrong")
        self._is_known = self._is_known or said.startswith("235")
        return None

    async def _do_mail(self, argument: str) -> None:
        found = _PATH.fullmatch(argument)
        if found is None or found[1].upper() != "FROM":
            self._breach(f"MAIL {argument[:80]!r}")
            return await self._say("501 5.5.4 what?")
        if not self._has_greeted or not self._is_known:
            return await self._say("530 5.7.0 not before you logged in")
        if self._reverse_path is not None:
            return await self._say("503 5.5.1 nested MAIL")  # its RCPT would still join the open transaction
        offered = {name.split()[0].upper() for name in self._witness.extensions}
        allowed = {"SIZE": "SIZE", "BODY": "8BITMIME", "SMTPUTF8": "SMTPUTF8", "RET": "DSN", "ENVID": "DSN"}
        parameters = found[3].split()
        for parameter in parameters:
            if allowed.get(parameter.partition("=")[0].upper()) not in offered:
                self._breach(f"a parameter that was not offered: {parameter}")
        said = await self._answer("mail", "250 2.1.0 ok", found[2])
        if said.startswith("2"):
            self._reverse_path, self._parameters = found[2], parameters
        return None

    async def _do_rcpt(self, argument: str) -> None:
        found = _PATH.fullmatch(argument)
        if found is None or found[1].upper() != "TO" or not found[2]:
            self._breach(f"RCPT {argument[:80]!r}")
            return await self._say("501 5.5.4 what?")
        if not found[2].isascii() and not any(p.upper() == "SMTPUTF8" for p in self._parameters):
            self._breach(f"an address outside ASCII without SMTPUTF8: {found[2]!r}")
        if self._reverse_path is None:
            return await self._say("503 5.5.1 MAIL first")
        if (await self._answer("rcpt", "250 2.1.5 ok", found[2])).startswith("2"):
            self._forward_paths.append(found[2])
        return None

    async def _do_data(self, _: str) -> None:
        if not self._forward_paths:
            return await self._say("554 5.5.1 no valid recipients")
        if not (await self._answer("data", "354 go on", self._forward_paths[0])).startswith("3"):
            return None
        lines: list[bytes] = []
        if (fault := self._witness.fault("body")) is not None:
            lines.append(await self._line())
            await self._fail(fault)
        while (line := await self._line()) != b".\r\n":
            if len(line) > 1000 + line.startswith(b"."):
                self._breach(f"a line of {len(line)} bytes")
            lines.append(line.removeprefix(b"."))
        return await self._taken(b"".join(lines))

    async def _do_bdat(self, argument: str) -> None:
        words = argument.upper().split()
        if not words or not words[0].isdigit() or words[1:] not in ([], ["LAST"]):
            self._breach(f"BDAT {argument[:80]!r}")
            return await self._say("501 5.5.4 what?")
        if "CHUNKING" not in self._witness.extensions:
            self._breach("BDAT was not offered")
        if self._forward_paths and (fault := self._witness.fault("body")) is not None:
            await self._fail(fault)
        chunk = await self._reader.readexactly(int(words[0]))  # swallowed also when it is refused, RFC 3030 §2
        if not self._forward_paths:
            return await self._say("503 5.5.1 no valid recipients")
        self._chunks += chunk
        if words[1:]:
            if _STRAY.search(self._chunks):
                self._breach("a bare CR, a bare LF or a NUL in chunks")
            return await self._taken(self._chunks)
        return await self._say("250 2.0.0 chunk taken")

    async def _taken(self, content: bytes) -> None:
        """Written down, then answered; the transaction is over either way."""
        if not content.isascii() and not any(p.upper() == "BODY=8BITMIME" for p in self._parameters):
            self._breach("8-bit content without BODY=8BITMIME")
        paths = self._forward_paths
        self._forget()
        fault = self._witness.fault("end", paths[0])
        if fault is not None:
            await self._fail(fault)
            if not fault.startswith("2"):
                return await self._say(fault)
        header = content.partition(b"\r\n\r\n")[0]
        named = re.findall(rb"^Message-ID: (\S+)\r$", header + b"\r", re.MULTILINE | re.IGNORECASE)
        if len(named) != 1:
            self._breach(f"a message with {len(named)} Message-IDs")
        entry = {
            "id": named[0].decode() if named else "",
            "digest": hashlib.sha256(content).hexdigest(),
            "text": hashlib.sha256(_text(content)).hexdigest(),
            "session": self.number,
            "at": time.time(),
        }
        self._witness.write(*({**entry, "path": path} for path in paths))
        if self._witness.delay:
            await asyncio.sleep(self._witness.delay)
        await self._answer("answered", fault or "250 2.0.0 written down", paths[0])
        return None

    async def _do_rset(self, _: str) -> None:
        await self._answer("rset", "250 2.0.0 forgotten")
        self._forget()

    async def _do_noop(self, _: str) -> None:
        await self._say("250 2.0.0 ok")

    async def _do_quit(self, _: str) -> None:
        await self._answer("quit", "221 2.0.0 bye")
        raise Gone


def _text(content: bytes) -> bytes:
    """What the recipient reads: the body, its transfer encoding undone, with LF."""
    body = email.message_from_bytes(content).get_payload(decode=True)
    return body.replace(b"\r\n", b"\n").rstrip(b"\n") if isinstance(body, bytes) else b"(several parts)"


async def main(log: str, plan: Mapping[str, Any]) -> None:
    """Serves until it is killed."""
    witness = Witness(log, plan)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Connection(witness, reader, writer).run()

    server = await asyncio.start_server(serve, "127.0.0.1", plan.get("port", 0), limit=1 << 20)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}))
