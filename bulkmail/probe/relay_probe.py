"""What a relay is like, found out by talking to it without sending anything."""

from __future__ import annotations

import asyncio
import datetime
import re
import ssl
import statistics
import time
from dataclasses import replace
from enum import Enum

from bulkmail.model.lazy import dataclass
from bulkmail.model.outcome import Breakage, Fault, Reason, Reply, Stage, make_reply
from bulkmail.model.recipient import Address
from bulkmail.model.relay import Relay, Secret, Tls
from bulkmail.model.shaper import Feedback
from bulkmail.probe.certificate import Certificate, read_certificate
from bulkmail.smtp.credentials import Credentials
from bulkmail.smtp.dialling import DialError, Tried, reach, try_all
from bulkmail.smtp.login import PASSWORD_MECHANISMS, TOKEN_MECHANISMS
from bulkmail.smtp.opening import (
    Access,
    Timeouts,
    check_requiretls,
    ehlo_name,
    make_tls_context,
    open_dialogue,
    speaks_tls,
    trusting,
)
from bulkmail.smtp.peer_policy import Mode, PeerPolicy
from bulkmail.smtp.protocol import PROBE
from bulkmail.smtp.replies import Capabilities, Dialogue, RawReply, SessionRefused
from bulkmail.text import printable

PATIENCE = Timeouts(connect=10.0, greeting=60.0, ehlo=30.0, mail=30.0, quit=3.0)
_FIRST_PATIENCE = 6.0  # seconds for a greeting before we look whether something else than SMTP is spoken
_GLANCE = 3.0  # seconds for a closer look
_ROUND_TRIPS = 5
_MOST_EXTENSIONS = 40  # lines of an EHLO answer that are kept


class Clue(Enum):
    """What a port turned out to speak when it was looked at more closely."""

    NOTHING = "nothing"
    CLEAR = "SMTP that begins without TLS"
    TLS = "TLS from the first byte"
    IMAP = "IMAP"
    POP3 = "POP3"
    SSH = "SSH"
    OTHER = "something else"


def guess(first: bytes) -> Clue:
    """What speaks by its first bytes, before anything was said to it."""
    for start, clue in ((b"220", Clue.CLEAR), (b"* ", Clue.IMAP), (b"+OK", Clue.POP3), (b"SSH-", Clue.SSH)):
        if first.startswith(start):
            return clue
    # A TLS server that tires of waiting says so in an alert record: type 21, version 3.x (RFC 8446 §5.1).
    if re.match(rb"\x15\x03[\x00-\x04]", first):
        return Clue.TLS
    return Clue.OTHER if first else Clue.NOTHING


class Login(Enum):
    """What became of the login."""

    NOT_WANTED = "not wanted"  # the relay URL names no user
    NO_PASSWORD = "no password"  # noqa: S105 - so there was nothing to try
    WORKS = "works"
    REFUSED = "refused"
    NOT_REACHED = "not reached"  # something else came in between


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What ended the look: `event`, judged as in a run; `clue` to what speaks at the port instead of SMTP."""

    event: Reply | Fault
    reason: Reason
    clue: Clue
    seen_at: datetime.datetime


@dataclass(frozen=True, slots=True)
class RelayFacts:
    """All that was found out, as far as it went; `obstacle` is what stands in the way, None if nothing does.

    `extensions` are the lines of the EHLO answer, safe to print, `limits` those of RFC 9422.  `mechanism` is the login
    that would be used, empty if there is none.  `probe_passed` says whether several messages may be under way at a
    time, None if that was not tried.  `round_trip` is in seconds.
    """

    relay: Relay
    addresses: tuple[Tried, ...] = ()
    connected_to: str = ""
    tls_version: str = ""
    cipher: str = ""
    certificate: Certificate | None = None
    server: str = ""
    extensions: tuple[str, ...] = ()
    capabilities: Capabilities | None = None
    limits: tuple[tuple[str, str], ...] = ()
    mechanism: str = ""
    login: Login = Login.NOT_WANTED
    mode: Mode | None = None
    probe_passed: bool | None = None
    round_trip: float | None = None
    sender: Reply | None = None
    recipient: Reply | None = None
    obstacle: Obstacle | None = None

    @property
    def is_usable(self) -> bool:
        """Whether mail could be sent now, as far as is known without sending any."""
        return self.obstacle is None and self.login is not Login.NO_PASSWORD


async def look_at(
    relay: Relay,
    credentials: Credentials | None,
    *,
    feedback: Feedback,
    sender: Address | None = None,
    recipient: Address | None = None,
    timeouts: Timeouts = PATIENCE,
    key_password: Secret | None = None,
    proxy_password: Secret | None = None,
) -> RelayFacts:
    """Talks to `relay`, an SMTP one, and says what it is like.  One login attempt at most, and never a message.

    `feedback` judges what it says, as in a run.  With `sender`, MAIL is tried, with `recipient` RCPT too, and taken
    back.  Raises `ConfigError` for settings that no server could do anything about.
    """
    facts = RelayFacts(relay, login=Login.NOT_REACHED if relay.username else Login.NOT_WANTED)
    if not relay.socket_path and not relay.proxy:  # which looks the name up by itself
        try:
            facts = replace(
                facts,
                addresses=tuple(
                    await try_all(relay.host, relay.port, timeout=timeouts.connect, source=relay.source_address)
                ),
            )
        except DialError as error:
            return replace(facts, obstacle=_obstacle(Fault(Stage.CONNECT, error.kind, str(error)), feedback))
        kinds = {tried.kind for tried in facts.addresses}
        if None not in kinds:
            kind = next((kind for kind in (Breakage.REFUSED, Breakage.TIMEOUT) if kind in kinds), Breakage.UNREACHABLE)
            return replace(facts, obstacle=_obstacle(Fault(Stage.CONNECT, kind, "no answer"), feedback))
    look = _Look(facts, timeouts, feedback=feedback, sender=sender, recipient=recipient, proxy_password=proxy_password)
    return await look.run(credentials, key_password)


class _Look:
    """One look at one relay; `facts` grow while it lasts."""

    def __init__(
        self,
        facts: RelayFacts,
        timeouts: Timeouts,
        *,
        feedback: Feedback,
        sender: Address | None,
        recipient: Address | None,
        proxy_password: Secret | None,
    ) -> None:
        self._proxy_password = proxy_password
        self.facts = facts
        self._relay = facts.relay
        self._timeouts = timeouts
        self._feedback = feedback
        self._sender = sender
        self._recipient = recipient
        self._context: ssl.SSLContext | None = None

    async def run(self, credentials: Credentials | None, key_password: Secret | None) -> RelayFacts:
        if self._relay.tls is not Tls.OFF:
            self._context = await asyncio.to_thread(make_tls_context, self._relay, key_password)
        try:
            dialogue = await self._open_slowly()
        except SessionRefused as error:
            self._note(obstacle=await self._look_into(error.event))
            return self.facts
        try:
            await self._describe(dialogue)
            check_requiretls(self._relay, dialogue.transport, self.facts.capabilities or Capabilities())
            if not self._relay.username:
                await self._try(dialogue)
                return self.facts
        except SessionRefused as error:
            self._note(obstacle=_obstacle(error.event, self._feedback))
            return self.facts
        finally:
            await dialogue.leave(patience=self._timeouts.quit)
        await self._log_in(credentials)
        return self.facts

    def _note(self, **changes: object) -> None:
        self.facts = replace(self.facts, **changes)  # type: ignore[arg-type]

    # The session.

    async def _open(self, credentials: Credentials | None, timeouts: Timeouts) -> Dialogue:
        access = Access(self._relay, credentials, self._context, self._proxy_password, timeouts)
        dialogue, capabilities = await open_dialogue(access, [])
        self._note(capabilities=capabilities)
        return dialogue

    async def _open_slowly(self) -> Dialogue:
        """Without a login.  A server that greets late gets the time for it, unless it speaks another protocol."""
        quick = replace(self._timeouts, greeting=min(_FIRST_PATIENCE, self._timeouts.greeting))
        try:
            return await self._open(None, quick)
        except SessionRefused as error:
            is_late = isinstance(error.event, Fault) and error.event.kind is Breakage.TIMEOUT
            if not is_late or quick == self._timeouts or await self._look_closer() is not Clue.NOTHING:
                raise
        return await self._open(None, self._timeouts)

    async def _log_in(self, credentials: Credentials | None) -> None:
        if credentials is None:
            self._note(login=Login.NO_PASSWORD)
            return
        try:
            dialogue = await self._open(credentials, self._timeouts)
        except SessionRefused as error:
            is_login = error.event.stage is Stage.AUTH
            self._note(
                login=Login.REFUSED if is_login else Login.NOT_REACHED,
                obstacle=_obstacle(error.event, self._feedback),
            )
            return
        self._note(login=Login.WORKS)
        try:
            await self._try(dialogue)
        except SessionRefused as error:
            self._note(obstacle=_obstacle(error.event, self._feedback))
        finally:
            await dialogue.leave(patience=self._timeouts.quit)

    # What is asked.

    async def _describe(self, dialogue: Dialogue) -> None:
        transport = dialogue.transport
        secured = transport.get_extra_info("ssl_object")
        if secured is not None:
            der = secured.getpeercert(True)
            cipher = secured.cipher() or ("",)
            self._note(
                tls_version=secured.version() or "",
                cipher=cipher[0],
                certificate=read_certificate(der) if der else None,
            )
        try:
            name = ehlo_name(self._relay, transport.get_extra_info("socket"))
        except OSError:  # it is gone already; the next command will fail
            name = "localhost"
        peer = transport.get_extra_info("peername")
        self._note(connected_to=str(peer[0]) if isinstance(peer, tuple) else printable(str(peer or ""), 100))
        verb = "LHLO" if self._relay.is_lmtp else "EHLO"
        hello = await self._ask(dialogue, f"{verb} {name}\r\n".encode(), Stage.EHLO)
        if hello.code < 300:
            self._note(
                server=printable(hello.lines[0], 100).split(" ")[0],
                extensions=tuple(printable(line, 100) for line in hello.lines[1 : _MOST_EXTENSIONS + 1]),
            )
        capabilities = self.facts.capabilities or Capabilities()
        known = TOKEN_MECHANISMS if self._relay.wants_token else PASSWORD_MECHANISMS
        self._note(
            limits=_limits(self.facts.extensions),
            mechanism=next((name for name in known if name in capabilities.auth_mechanisms), ""),
            mode=PeerPolicy(depth=self._relay.depth).mode(capabilities, is_lmtp=self._relay.is_lmtp),
        )
        taken = []
        for _ in range(_ROUND_TRIPS):
            begun = time.perf_counter()  # uvloop's own clock knows milliseconds only
            await self._ask(dialogue, b"NOOP\r\n", Stage.EHLO)
            taken.append(time.perf_counter() - begun)
        self._note(round_trip=statistics.median(taken))

    async def _try(self, dialogue: Dialogue) -> None:
        """What may want a login first."""
        if self._sender is not None:
            await self._try_addresses(dialogue, self._sender)
        if self.facts.mode is Mode.DEEP:
            await self._probe(dialogue)

    async def _try_addresses(self, dialogue: Dialogue, sender: Address) -> None:
        smtputf8 = sender.needs_smtputf8 or (self._recipient is not None and self._recipient.needs_smtputf8)
        command = f"MAIL FROM:<{sender.wire}>{' SMTPUTF8' if smtputf8 else ''}\r\n"
        answer = await self._answer(dialogue, command, Stage.MAIL)
        self._note(sender=answer)
        if answer.is_positive and self._recipient is not None:
            answer = await self._answer(dialogue, f"RCPT TO:<{self._recipient.wire}>\r\n", Stage.RCPT)
            self._note(recipient=answer)
        if not answer.is_positive:
            self._note(obstacle=_obstacle(answer, self._feedback))
        await self._ask(dialogue, b"RSET\r\n", Stage.MAIL)

    async def _probe(self, dialogue: Dialogue) -> None:
        """Whether a chunk may be written ahead of the answers; see `smtp.protocol.PROBE`."""
        patience = self._timeouts.mail
        chunk, fence = await dialogue.ask(PROBE, stage=Stage.MAIL, patience=patience, replies=2)
        if fence.code >= 500:  # it took the chunk for a command; the answer to RSET is still to come
            await dialogue.answer(stage=Stage.MAIL, patience=patience)
        passed = chunk.code >= 500 and fence.code < 300
        self._note(probe_passed=passed, mode=Mode.DEEP if passed else Mode.PIPELINING)

    async def _ask(self, dialogue: Dialogue, command: bytes, stage: Stage) -> RawReply:
        (reply,) = await dialogue.ask(command, stage=stage, patience=self._timeouts.mail)
        return reply

    async def _answer(self, dialogue: Dialogue, command: str, stage: Stage) -> Reply:
        reply = await self._ask(dialogue, command.encode(), stage)
        return make_reply(stage, reply.code, reply.lines)

    # What went wrong.

    async def _look_into(self, event: Reply | Fault) -> Obstacle:
        clue = Clue.NOTHING
        if isinstance(event, Fault):
            if event.kind in (Breakage.UNTRUSTED, Breakage.WRONG_NAME):
                self._note(certificate=await self._shown_certificate())
            elif event.stage is not Stage.AUTH and event.kind in _WORTH_A_LOOK and self.facts.connected_to == "":
                clue = await self._look_closer()
        return _obstacle(event, self._feedback, clue)

    async def _shown_certificate(self) -> Certificate | None:
        """The certificate of a server that we do not trust, to say what is wrong with it; nothing else is sent."""
        try:
            access = Access(self._relay, None, trusting(), self._proxy_password, self._timeouts)
            dialogue, _ = await open_dialogue(access, [])
        except SessionRefused:
            return None
        secured = dialogue.transport.get_extra_info("ssl_object")
        der = secured.getpeercert(True) if secured is not None else None
        await dialogue.leave(patience=self._timeouts.quit)
        return read_certificate(der) if der else None

    async def _look_closer(self) -> Clue:
        """What speaks at this port: listens first, then tries TLS."""
        loop = asyncio.get_running_loop()
        if self._relay.socket_path:
            return Clue.NOTHING
        try:
            connection = await reach(self._relay, self._proxy_password, timeout=_GLANCE)
        except DialError:
            return Clue.NOTHING
        try:
            async with asyncio.timeout(min(_GLANCE, self._timeouts.greeting)):
                clue = guess(await loop.sock_recv(connection, 64))
        except (TimeoutError, OSError):
            clue = Clue.NOTHING
        finally:
            connection.close()
        if clue not in (Clue.NOTHING, Clue.OTHER) or self._relay.tls is Tls.IMPLICIT:
            return clue
        return Clue.TLS if await speaks_tls(self._relay, self._proxy_password, timeout=_GLANCE) else clue


def _obstacle(event: Reply | Fault, feedback: Feedback, clue: Clue = Clue.NOTHING) -> Obstacle:
    return Obstacle(event, feedback.decide(event).verdict.reason, clue, datetime.datetime.now(datetime.UTC))


_WORTH_A_LOOK = {Breakage.TIMEOUT, Breakage.LOST, Breakage.DESYNC, Breakage.TLS, Breakage.WRONG_TLS}


def _limits(extensions: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Name and value of each limit that the server announces (RFC 9422 §3)."""
    for line in extensions:
        words = line.upper().split()
        if words[:1] == ["LIMITS"]:
            parts = (word.partition("=") for word in words[1:])
            return tuple((name, value) for name, _, value in parts if value)
    return ()
