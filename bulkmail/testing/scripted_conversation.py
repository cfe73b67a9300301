"""One session of a scripted relay: the commands of RFC 5321 by the book, and every answer as scripted."""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from bulkmail.model.delivery import Envelope
from bulkmail.testing.answers import Answer, Drop, Hang, Lines, Reset, Slow, code
from bulkmail.testing.logins import take_login
from bulkmail.testing.scripted_connection import Gone, ScriptedConnection

LONGEST_RESPONSE = 12_288 + 2  # bytes with CRLF, RFC 4954 §4
LONGEST_LINE = 1000  # bytes with CRLF, RFC 5321 §4.5.3.1.6
_STRAY = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")


@dataclass(frozen=True, slots=True)
class TakenMessage:
    """A message that the relay has taken.  `content` is as sent, the dot-stuffing undone; `session` counts from 1."""

    reverse_path: str
    forward_paths: tuple[str, ...]
    parameters: tuple[str, ...]
    content: bytes
    session: int

    @property
    def envelope(self) -> Envelope:
        """The reverse path and the first forward path."""
        return Envelope(self.reverse_path, self.forward_paths[0])


@dataclass(slots=True)
class Notes:
    """What all sessions of a relay have seen."""

    messages: list[TakenMessage] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    auth_attempts: int = 0


@dataclass(frozen=True, slots=True)
class RelayPart:
    """What a relay plays: its scripts by step, what it offers, whom it knows."""

    scripts: Mapping[str, Lines]
    extensions: Sequence[str]
    logins: Mapping[str, str]
    mechanisms: Sequence[str]
    tls: ssl.SSLContext | None
    is_implicit: bool
    is_lmtp: bool = False


class ScriptedConversation:
    """Talks until the client leaves."""

    def __init__(self, connection: ScriptedConnection, part: RelayPart, notes: Notes, *, number: int) -> None:
        self._connection = connection
        self._part = part
        self._notes = notes
        self._number = number
        self._is_secure = part.is_implicit
        self._is_known = not part.logins
        self._is_piped = False
        self._forget()

    def _forget(self) -> None:
        """No transaction is open."""
        self._reverse_path: str | None = None
        self._parameters: tuple[str, ...] = ()
        self._forward_paths: list[str] = []

    async def run(self) -> None:
        """From the greeting to the end of the connection."""
        try:
            said = await self._say("greeting", "220 relay.test ESMTP")
            if self._connection.has_input:
                self._violation("the client spoke before it was greeted")
            if not said.startswith("2"):
                return
            while await self._command():
                pass
        except Gone:
            pass
        finally:
            self._connection.close()

    async def _command(self) -> bool:
        """One command; whether the session goes on."""
        line = await self._connection.line()
        self._check_line(line)
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        verb, _, argument = text.partition(" ")
        verb = verb.upper()
        self._notes.commands.append(" ".join(text.split(" ")[:2]) if verb == "AUTH" else text)
        if self._connection.has_input and not (self._is_piped and verb in ("MAIL", "RCPT", "RSET")):
            self._violation(f"the client did not wait for the answer to {text}")
        handler = {
            **({"LHLO": self._ehlo} if self._part.is_lmtp else {"EHLO": self._ehlo, "HELO": self._helo}),
            "STARTTLS": self._starttls,
            "AUTH": self._auth,
            "MAIL": self._mail,
            "RCPT": self._rcpt,
            "DATA": self._data,
            "RSET": self._rset,
            "NOOP": self._noop,
            "QUIT": self._quit,
        }.get(verb, self._unknown)
        said = await handler(argument)
        return not said.startswith(("221", "421"))

    async def _say(self, step: str, usual: str, argument: str = "") -> str:
        """Answers as scripted, or as usual; the code said."""
        answer = self._part.scripts[step].next(argument)
        return await self._give(usual if answer is None else answer)

    async def _give(self, answer: Answer) -> str:
        await self._connection.say(answer)
        return code(answer)

    # The commands.

    async def _ehlo(self, name: str) -> str:
        self._forget()
        extensions = list(self._part.extensions)
        if self._part.tls is not None and not self._is_secure:
            extensions.append("STARTTLS")
        if self._part.logins:
            extensions.append(f"AUTH {' '.join(self._part.mechanisms)}")
        self._is_piped = "PIPELINING" in extensions
        lines = ["relay.test", *extensions]
        usual = "\n".join(f"250{' ' if line is lines[-1] else '-'}{line}" for line in lines)
        return await self._say("ehlo", usual, name)

    async def _helo(self, name: str) -> str:
        self._forget()
        return await self._say("helo", "250 relay.test", name)

    async def _starttls(self, _: str) -> str:
        context = self._part.tls
        said = await self._say("starttls", "220 2.0.0 go ahead" if context else "502 5.5.1 not offered")
        if said == "220" and context is not None:
            await self._connection.secure(context)
            self._is_secure = True
            self._forget()
        return said

    async def _auth(self, argument: str) -> str:
        self._notes.auth_attempts += 1
        mechanism, _, initial = argument.partition(" ")
        if mechanism.upper() not in self._part.mechanisms or not self._part.logins:
            return await self._say("auth", "504 5.5.4 no such mechanism")
        is_right = await take_login(mechanism.upper(), initial, logins=self._part.logins, ask=self._ask)
        said = await self._say("auth", "235 2.7.0 welcome" if is_right else "535 5.7.8 wrong user or password")
        self._is_known = self._is_known or said == "235"
        return said

    async def _ask(self, challenge: str) -> str:
        await self._give(f"334 {base64.b64encode(challenge.encode()).decode()}")
        line = await self._connection.line()
        if len(line) > LONGEST_RESPONSE:
            self._violation(f"a response of {len(line)} bytes in the login")
        return line.decode("ascii", "replace").strip()

    async def _mail(self, argument: str) -> str:
        path, parameters = _path(argument, "FROM:")
        if not self._is_known:
            return await self._give("530 5.7.0 authentication required")
        if self._reverse_path is not None:
            return await self._give("503 5.5.1 nested MAIL command")
        said = await self._say("mail", "250 2.1.0 sender ok", path)
        if said.startswith("2"):
            self._reverse_path, self._parameters = path, parameters
        return said

    async def _rcpt(self, argument: str) -> str:
        path, _ = _path(argument, "TO:")
        if self._reverse_path is None:
            return await self._give("503 5.5.1 need MAIL first")
        said = await self._say("rcpt", "250 2.1.5 recipient ok", path)
        if said.startswith("2"):
            self._forward_paths.append(path)
        return said

    async def _data(self, _: str) -> str:
        if not self._forward_paths:
            return await self._give("503 5.5.1 need RCPT first")
        said = await self._say("data", "354 end with a dot", self._forward_paths[0])
        if not said.startswith("3"):
            return said
        content = await self._content()
        self._notes.commands.append(".")
        if self._connection.has_input and not self._is_piped:
            self._violation("the client did not wait for the answer to the end of the message")
        return await self._end(content)

    async def _content(self) -> bytes:
        lines: list[bytes] = []
        behaviour: Answer | None = None
        has_begun = False
        is_eight_bit = any(parameter.upper() == "BODY=8BITMIME" for parameter in self._parameters)
        while True:
            if not has_begun:
                behaviour = await self._at_body()
                has_begun = True
            line = await self._slow_line(behaviour) if isinstance(behaviour, Slow) else await self._connection.line()
            self._check_line(line)
            if line == b".\r\n":
                return b"".join(lines)
            if not is_eight_bit and not line.isascii():
                self._violation("8-bit content without BODY=8BITMIME")
            lines.append(line.removeprefix(b"."))

    async def _at_body(self) -> Answer | None:
        """What is scripted for the moment when the content begins to arrive."""
        answer = self._part.scripts["body"].next(self._forward_paths[0])
        if answer is not None and not isinstance(answer, Slow):
            await self._connection.wait()
            await self._give(answer)
        return answer

    async def _slow_line(self, pace: Slow) -> bytes:
        return await self._connection.line(most=pace.size, pause=pace.pause)

    async def _end(self, content: bytes) -> str:
        """One reply, or by LMTP one a recipient."""
        said = ""
        taken: list[str] = []
        paths, parameters = self._forward_paths, self._parameters
        message = TakenMessage(self._reverse_path or "", (), parameters, content, self._number)
        number = len(self._notes.messages) + 1
        self._forget()
        for path in paths if self._part.is_lmtp else paths[:1]:
            answer = self._part.scripts["end"].next(path)
            if answer is None:
                answer = f"250 2.0.0 queued as {number}"
            keeps = answer.keeps if isinstance(answer, (Drop, Hang, Reset)) else code(answer).startswith("2")
            if keeps:
                if taken:
                    self._notes.messages.pop()
                taken += [path] if self._part.is_lmtp else paths
                self._notes.messages.append(replace(message, forward_paths=tuple(taken)))
            said = await self._give(answer)
        return said

    async def _rset(self, _: str) -> str:
        said = await self._say("rset", "250 2.0.0 reset")
        if said.startswith("2"):
            self._forget()
        return said

    async def _noop(self, _: str) -> str:
        return await self._give("250 2.0.0 ok")

    async def _quit(self, _: str) -> str:
        return await self._say("quit", "221 2.0.0 bye")

    async def _unknown(self, _: str) -> str:
        return await self._give("500 5.5.2 not a command")

    # The rules.

    def _check_line(self, line: bytes) -> None:
        if _STRAY.search(line):
            self._violation(f"a bare CR, a bare LF or a NUL: {line[:80]!r}")
        if len(line) > LONGEST_LINE:
            self._violation(f"a line of {len(line)} bytes")

    def _violation(self, what: str) -> None:
        self._notes.violations.append(what)


def _path(argument: str, keyword: str) -> tuple[str, tuple[str, ...]]:
    """The path between the angle brackets, and the parameters behind it."""
    found = re.fullmatch(rf"{keyword}<([^<>]*)>((?: [^ ]+)*)", argument, re.IGNORECASE)
    return (found[1], tuple(found[2].split())) if found else (argument, ())
