"""Opening a session with aiosmtplib: connect, TLS, EHLO, login; what comes out is a transport for our own use."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

import aiosmtplib

from bulkmail.model.errors import ConfigError
from bulkmail.model.relay import Relay, Secret, Tls
from bulkmail.model.reply import Breakage, Fault, Reply, Stage, make_reply
from bulkmail.model.units import say_duration
from bulkmail.smtp.capabilities import Capabilities, parse_capabilities
from bulkmail.smtp.credentials import AccessToken, Credentials, TokenError
from bulkmail.smtp.dialling import DialError
from bulkmail.smtp.listening import Client, Listener
from bulkmail.smtp.login import choose_mechanism, log_in
from bulkmail.smtp.mechanisms import LoginError
from bulkmail.smtp.proxying import reach
from bulkmail.smtp.replies import RawReply
from bulkmail.smtp.tap import Tap
from bulkmail.smtp.timeouts import Timeouts
from bulkmail.smtp.tls import alert_behind, make_tls_context, tls_breakage
from bulkmail.smtp.tls_mode import speaks_tls, wrong_mode
from bulkmail.smtp.trace import Trace, connected, hidden, not_connected, tapped, watch
from bulkmail.text import printable

QUIET = 5.0  # seconds without a greeting after which a port is looked at more closely


class SessionRefused(Exception):
    """No session: `event` is the reply or the fault, with the stage at which it happened.  Nothing was sent."""

    def __init__(self, event: Reply | Fault) -> None:
        super().__init__(str(event))
        self.event = event


class _How(TypedDict):
    """What is the same for each attempt."""

    tls_context: ssl.SSLContext | None
    timeouts: Timeouts
    trace: Trace | None
    proxy_password: Secret | None
    said: list[str]


async def open_transport(
    relay: Relay,
    credentials: Credentials | None,
    *,
    tls_context: ssl.SSLContext | None,
    timeouts: Timeouts,
    trace: Trace | None = None,
    proxy_password: Secret | None = None,
    said: list[str] | None = None,
) -> tuple[asyncio.Transport, Capabilities]:
    """A transport on which nothing is outstanding, and what the server at its end offers.  Raises `SessionRefused`.

    `said` gets what the login said, which no later reply may be shown to repeat.
    One login attempt; a second one only where an access token was refused and a newer one can be had.
    """
    if tls_context is None and relay.tls is not Tls.OFF:
        tls_context = await asyncio.to_thread(make_tls_context, relay)
    if credentials is not None and not credentials.username:
        credentials = None
    how: _How = {
        "tls_context": tls_context,
        "timeouts": timeouts,
        "trace": trace,
        "proxy_password": proxy_password,
        "said": [] if said is None else said,
    }
    if credentials is None or credentials.tokens is None:
        return await _open(relay, credentials, None, **how)
    tokens = credentials.tokens
    token: AccessToken | None
    try:
        token = await tokens.current()
        try:
            opened = await _open(relay, credentials, token, **how)
        except SessionRefused as refusal:
            if not _is_bad_login(refusal.event) or (token := await tokens.instead_of(token)) is None:
                raise
            opened = await _open(relay, credentials, token, **how)
    except TokenError as error:
        raise SessionRefused(Fault(Stage.AUTH, error.kind, str(error))) from None
    tokens.accepted(token)
    return opened


def _is_bad_login(event: Reply | Fault) -> bool:
    return isinstance(event, Reply) and event.stage is Stage.AUTH and event.code == 535


async def _open(
    relay: Relay,
    credentials: Credentials | None,
    token: AccessToken | None,
    *,
    tls_context: ssl.SSLContext | None,
    timeouts: Timeouts,
    trace: Trace | None,
    proxy_password: Secret | None,
    said: list[str],
) -> tuple[asyncio.Transport, Capabilities]:
    try:
        connection = await reach(relay, proxy_password, timeout=timeouts.connect)
    except DialError as error:
        not_connected(trace, str(error))
        raise SessionRefused(Fault(Stage.CONNECT, error.kind, str(error))) from None
    known = (credentials.password if credentials else None, token.secret if token else None, proxy_password)
    tap = connected(
        trace,
        relay.peer,
        connection,
        secrets=[secret.reveal() for secret in known if secret is not None],
        username=credentials.username if credentials else "",
    )
    try:
        opening = _Opening(
            relay,
            connection,
            tls_context=tls_context,
            timeouts=timeouts,
            tap=tap,
            proxy_password=proxy_password,
            said=said,
        )
        return await opening.run(credentials, token)
    except BaseException:
        connection.close()
        raise


class _Opening:
    """One attempt to open a session over a connected socket."""

    def __init__(
        self,
        relay: Relay,
        connection: socket.socket,
        *,
        tls_context: ssl.SSLContext | None,
        timeouts: Timeouts,
        tap: Tap | None,
        proxy_password: Secret | None,
        said: list[str],
    ) -> None:
        self._relay = relay
        self._proxy_password = proxy_password
        self._tap = tap
        self._connection = connection
        self._timeouts = timeouts
        self._peer = relay.place
        self._is_secure = relay.tls is Tls.IMPLICIT
        self._stage = Stage.CONNECT if self._is_secure else Stage.GREETING
        self._listener: Listener | None = None
        self._capabilities = Capabilities()
        self._said = said  # in the login, as it went over the line
        self._client = Client(
            hostname=relay.host or None,
            local_hostname=ehlo_name(relay, connection),
            sock=connection,
            use_tls=self._is_secure,
            start_tls=False,  # None, aiosmtplib's own default, would go on in clear text where STARTTLS is stripped
            tls_context=tls_context,
            timeout=timeouts.greeting,
        )

    async def run(
        self, credentials: Credentials | None, token: AccessToken | None
    ) -> tuple[asyncio.Transport, Capabilities]:
        """The whole opening, in order.  The connection is dropped if it does not come to its end."""
        try:
            async with self._reported():
                greeting = await self._greeting()
                self._listen()
                if self._tap is not None:
                    self._tap.greeted(greeting.code, greeting.message)
            await self._say_hello()
            if not self._is_secure and self._relay.tls is not Tls.OFF:
                await self._secure()
            if credentials is not None:
                await self._log_in(credentials, token)
            async with self._reported():
                return tapped(self._tap, self._client.raw_transport), self._capabilities
        except BaseException as error:
            self._client.close()
            if self._tap is not None:
                # What is said of a login may repeat what a server repeated of it.
                self._tap.closed("given up" if self._stage is Stage.AUTH else f"given up: {error}")
            raise

    async def _greeting(self) -> aiosmtplib.SMTPResponse:
        """The greeting.  A port that is silent is looked at more closely: it may wait for TLS to begin.

        Not port 25: servers there let clients wait, and take it ill when one speaks first.
        """
        connecting = asyncio.ensure_future(self._client.connect())
        try:
            if not self._is_secure and self._relay.port != 25 and not self._relay.socket_path:
                await asyncio.wait({connecting}, timeout=min(QUIET, self._timeouts.greeting / 2))
                if not connecting.done() and await speaks_tls(self._relay, self._proxy_password, timeout=QUIET):
                    raise self._in_wrong_mode()
            return await connecting
        finally:
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)

    def _in_wrong_mode(self) -> SessionRefused:
        return SessionRefused(Fault(self._stage, Breakage.WRONG_TLS, "; ".join(wrong_mode(self._relay))))

    def _listen(self) -> None:
        protocol, transport = self._client.protocol, self._client.raw_transport
        if protocol is None:  # it was lost while we were woken
            raise aiosmtplib.SMTPServerDisconnected("lost")
        # What came in one piece with the greeting answers no command; aiosmtplib would keep it for the next one.
        if getattr(protocol, "_buffer", b""):
            raise self._refused(Breakage.DESYNC, "said more than its greeting before it was asked")
        self._listener = Listener(protocol, transport, self._tap)
        if self._tap is not None:
            watch(self._tap, protocol, transport)
        transport.set_protocol(self._listener)

    async def _say_hello(self) -> None:
        async with self._reported(Stage.EHLO):
            self._expect(1)
            try:
                await (self._client.lhlo if self._relay.is_lmtp else self._client.ehlo)(timeout=self._timeouts.ehlo)
            except aiosmtplib.SMTPHeloError as error:
                if not 500 <= error.code <= 599 or not self._client.is_connected or self._relay.is_lmtp:
                    raise
                self._expect(1)  # a server from before 1995 (RFC 5321 §3.2)
                await self._client.helo(timeout=self._timeouts.ehlo)
                self._capabilities = Capabilities()
            else:
                self._capabilities = parse_capabilities(self._replied().lines)
            self._replied()

    async def _secure(self) -> None:
        if not self._capabilities.starttls:
            if self._relay.tls is Tls.OPPORTUNISTIC:
                return
            raise self._refused(
                Breakage.NO_TLS,
                "does not offer STARTTLS, so everything would go in clear text; is it the right port?"
                " (tls=off in the relay URL allows it)",
                stage=Stage.STARTTLS,
            )
        async with self._reported(Stage.STARTTLS):
            self._expect(1)
            await self._client.starttls(timeout=self._timeouts.ehlo)
            # Anything after the 220 was put there by someone on the way (CVE-2011-0411).
            self._replied()
            self._is_secure = True
            self._listen()
        await self._say_hello()  # what was offered in clear text is not to be believed (RFC 3207 §4.2)

    async def _log_in(self, credentials: Credentials, token: AccessToken | None) -> None:
        self._stage = Stage.AUTH
        if not self._is_secure and not (
            # A proxy on this machine says nothing about where the relay is.
            self._relay.plaintext_login and not self._relay.proxy and is_loopback(self._connection)
        ):
            raise self._refused(
                Breakage.NO_LOGIN,
                "is reached in clear text, where a password would be seen by others;"
                " leave tls=off out of the relay URL, or use smtps://",
            )
        if (secret := token.secret if token is not None else credentials.password) is not None:
            self._said.append(secret.reveal())
        try:
            mechanism = choose_mechanism(
                credentials,
                token,
                self._capabilities,
                is_secure=self._is_secure,
                host=self._relay.host,
                port=self._relay.port,
            )
            async with self._reported(Stage.AUTH):
                with hidden(self._tap, mechanism.name):
                    reply = await log_in(mechanism, self._say)
        except LoginError as error:
            raise self._refused(error.kind, str(error)) from None
        if reply.code != 235:
            raise self._judged(reply.without(self._said))

    async def _say(self, line: bytes) -> RawReply:
        """One line of the login, and the reply to it."""
        self._said += line.decode("ascii").split(" ")[2 if line.startswith(b"AUTH ") else 0 :]
        self._expect(1)
        await self._client.execute_command(line, timeout=self._timeouts.ehlo)
        return self._replied()

    # What the server says, and what becomes of it.

    def _expect(self, replies: int) -> None:
        assert self._listener is not None  # noqa: S101
        self._listener.expect(replies)

    def _replied(self) -> RawReply:
        """The last reply.  Raises `SessionRefused` if anything came beside those that were expected."""
        assert self._listener is not None  # noqa: S101
        if self._listener.violation:
            raise self._refused(Breakage.DESYNC, self._listener.violation)
        if not self._listener.replies:
            raise self._refused(Breakage.DESYNC, "answered in a way that cannot be read")
        return self._listener.replies[-1]

    @asynccontextmanager
    async def _reported(self, stage: Stage | None = None) -> AsyncIterator[None]:
        """Whatever aiosmtplib raises inside, told as a `SessionRefused`."""
        self._stage = stage or self._stage
        try:
            yield
        except SessionRefused:
            raise
        except (OSError, aiosmtplib.SMTPException) as error:
            raise self._translated(error) from None

    def _translated(self, error: OSError | aiosmtplib.SMTPException) -> SessionRefused:
        cause = error.__cause__ if isinstance(error, aiosmtplib.SMTPConnectError) else error
        cause = alert_behind(error) or cause
        if isinstance(error, aiosmtplib.SMTPResponseException) and self._listener is None:
            return self._judged(RawReply(error.code, tuple(error.message.split("\n"))))  # the greeting
        if self._listener is not None and self._listener.violation:
            return self._refused(Breakage.DESYNC, self._listener.violation)
        if isinstance(error, aiosmtplib.SMTPResponseException):
            return self._judged(self._replied())
        if isinstance(cause, ssl.SSLError):
            kind, what = tls_breakage(cause, host=self._relay.host, port=self._relay.port)
            if kind is Breakage.WRONG_TLS:
                return self._in_wrong_mode()
            return SessionRefused(Fault(self._stage, kind, what))
        if self._stage is Stage.CONNECT and isinstance(cause, aiosmtplib.SMTPException):
            self._stage = Stage.GREETING  # not the network's or the handshake's error: TLS stood, and then
        if isinstance(error, TimeoutError):
            return self._refused(Breakage.TIMEOUT, self._overdue())
        return self._refused(Breakage.LOST, f"closed the connection {_MOMENTS[self._stage]}")

    def _judged(self, raw: RawReply) -> SessionRefused:
        """A reply that aiosmtplib does not go on after."""
        if 400 <= raw.code <= 599:
            stage = Stage.GREETING if self._listener is None else self._stage
            return SessionRefused(make_reply(stage, raw.code, raw.lines))
        words = printable(f"{raw.code} {' '.join(raw.lines)}", 80)
        return self._refused(Breakage.DESYNC, f"answered {words} {_MOMENTS[self._stage]}")

    def _overdue(self) -> str:
        seconds = self._timeouts.greeting if self._listener is None else self._timeouts.ehlo
        return f"did not go on {_MOMENTS[self._stage]} within {say_duration(seconds)}"

    def _refused(self, kind: Breakage, what: str, *, stage: Stage | None = None) -> SessionRefused:
        return SessionRefused(Fault(stage or self._stage, kind, f"{self._peer} {what}"))


_MOMENTS = {
    Stage.CONNECT: "in the TLS handshake",
    Stage.GREETING: "where a server greets",
    Stage.EHLO: "after EHLO",
    Stage.STARTTLS: "after STARTTLS",
    Stage.AUTH: "in the middle of the login",
}


def is_loopback(connection: socket.socket) -> bool:
    """Whether the other end is on this machine, by the address connected to, whatever name it went by."""
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return True  # a Unix socket
    return ipaddress.ip_address(connection.getpeername()[0].partition("%")[0]).is_loopback


_EHLO_NAME = re.compile(r"(?=.{1,255}$)(\[[0-9A-Za-z.:-]+\]|[0-9A-Za-z]([0-9A-Za-z.-]*[0-9A-Za-z])?)")


def ehlo_name(relay: Relay, connection: socket.socket) -> str:
    """What we call ourselves: as the relay says, else our host's full name, else the address we connect from.

    A name costs nothing here; looking a better one up in the DNS could cost seconds.
    """
    if relay.ehlo_name:
        if not _EHLO_NAME.fullmatch(relay.ehlo_name):
            raise ConfigError(
                f"ehlo={printable(relay.ehlo_name, 60)!r} is not the name of a host",
                hint='write a name like "mail.example.com"',
            )
        return relay.ehlo_name
    name = socket.gethostname()
    if "." in name and _EHLO_NAME.fullmatch(name):
        return name
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return "localhost"  # over a Unix socket there is no address to name
    ours = connection.getsockname()[0].partition("%")[0]
    return f"[IPv6:{ours}]" if ":" in ours else f"[{ours}]"  # RFC 5321 §4.1.3
