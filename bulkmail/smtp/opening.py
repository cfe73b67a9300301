"""Opening a session: connect, TLS, EHLO, login; what comes out is a dialogue in which nothing is outstanding."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy import dataclass
from bulkmail.model.outcome import Breakage, Fault, Reply, Stage, make_reply
from bulkmail.model.relay import Relay, Secret, Tls
from bulkmail.smtp.credentials import AccessToken, Credentials, TokenError
from bulkmail.smtp.dialling import DialError, reach
from bulkmail.smtp.login import LoginError, choose_mechanism, log_in
from bulkmail.smtp.replies import Capabilities, Dialogue, RawReply, SessionRefused, alert_behind, parse_capabilities
from bulkmail.smtp.tap import Tap
from bulkmail.smtp.trace import Trace, connected, hidden, not_connected, note_security
from bulkmail.text import printable

# -- How a server is spoken to over TLS: what is trusted, what a failed handshake says, and where TLS begins.


# OpenSSL's X509_V_ERR_…
_EXPIRED, _NOT_YET_VALID, _WRONG_NAME, _WRONG_IP_ADDRESS = 10, 9, 62, 64
_SELF_SIGNED = 18
_UNKNOWN_ISSUER = {2, 19, 20, 21}

# The alerts in which a server says what it thinks of our certificate (RFC 8446 §6.2).
_NO_CERTIFICATE = {"TLSV13_ALERT_CERTIFICATE_REQUIRED"}
_BAD_CERTIFICATE = {
    "SSLV3_ALERT_BAD_CERTIFICATE",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
    "SSLV3_ALERT_CERTIFICATE_REVOKED",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
    "TLSV1_ALERT_UNKNOWN_CA",
}


def make_tls_context(relay: Relay, key_password: Secret | None = None) -> ssl.SSLContext:
    """A context that verifies the server, TLS 1.2 or newer; by `relay.ca_file` only, if given, else the system's store.

    It shows the server `relay.client_certificate`, if there is one; `key_password` opens that one's key.
    Reads files and takes some milliseconds: make one for all sessions.  Raises `ConfigError`.
    """
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=relay.ca_file or None)
    except ssl.SSLError:
        raise ConfigError(
            f"ca_file: {relay.ca_file} holds no certificate that can be read", hint="give a file of PEM certificates"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"ca_file: {relay.ca_file} cannot be read: {error.strerror}",
            hint="check ca_file= in the relay URL, or leave it out to trust what the system trusts",
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if relay.client_certificate:
        _show(context, relay, key_password)
    return context


def _show(context: ssl.SSLContext, relay: Relay, key_password: Secret | None) -> None:
    key = relay.client_key or relay.client_certificate
    asked: list[bool] = []

    def password() -> str:  # without one of ours, OpenSSL would ask at the terminal
        asked.append(True)
        return key_password.reveal() if key_password else ""

    try:
        context.load_cert_chain(relay.client_certificate, relay.client_key or None, password=password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            what, fix = "is not the key of the certificate", "give the two that were made together"
        elif asked and key_password is None:
            what, fix = "is locked with a password", "write client_key_password_file, _env or _command into [relay]"
        elif asked:
            what, fix = "cannot be opened with its password", "check where client_key_password_… takes it from"
        else:
            what, fix = "do not hold a certificate and its key", "give files in PEM form"
        raise ConfigError(f"client_certificate {relay.client_certificate}, key {key}: {what}", hint=fix) from None
    except OSError as error:
        raise ConfigError(
            f"client_certificate {relay.client_certificate} or key {key} cannot be read: {error.strerror}",
            hint="check the names and that you may read the files",
        ) from None
    except ValueError:  # a password that is longer than OpenSSL takes
        raise ConfigError(f"client_certificate: the password of key {key} is too long") from None


def tls_breakage(error: ssl.SSLError, *, host: str, port: int) -> tuple[Breakage, str]:
    """What a failed handshake was about, as a kind and a sentence."""
    if isinstance(error, ssl.SSLCertVerificationError):
        is_elsewhere = error.verify_code in (_WRONG_NAME, _WRONG_IP_ADDRESS)
        return Breakage.WRONG_NAME if is_elsewhere else Breakage.UNTRUSTED, _certificate_words(error, host=host)
    if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"):
        return Breakage.WRONG_TLS, (
            f"{host} port {port} does not speak TLS from the first byte; smtp:// instead of smtps:// begins without"
        )
    if error.reason in _NO_CERTIFICATE:
        return Breakage.TLS, (
            f"{host} port {port} wants a certificate of ours and was shown none;"
            " client_certificate= in the relay URL names it"
        )
    if error.reason in _BAD_CERTIFICATE:
        return Breakage.TLS, f"{host} port {port} does not accept the certificate that client_certificate= names"
    if error.reason and ("PROTOCOL" in error.reason or "VERSION" in error.reason):
        return Breakage.TLS, f"{host} port {port} and we have no TLS version in common; we need 1.2 or newer"
    return (
        Breakage.TLS,
        f"the TLS handshake with {host} port {port} failed: {printable(error.reason or 'no reason given', 80)}",
    )


def _certificate_words(error: ssl.SSLCertVerificationError, *, host: str) -> str:
    code = error.verify_code
    if code == _EXPIRED:
        return f"the certificate of {host} has expired"
    if code == _NOT_YET_VALID:
        return f"the certificate of {host} is not valid yet; check the clock of this computer"
    if code in (_WRONG_NAME, _WRONG_IP_ADDRESS):
        return f"the certificate that {host} shows is for another name; the relay URL must name the host it is for"
    if code == _SELF_SIGNED:
        return f"the certificate of {host} is vouched for only by itself; ca_file= in the relay URL can name it as good"
    if code in _UNKNOWN_ISSUER:
        return f"the certificate of {host} is from an issuer unknown here; ca_file= in the relay URL can name it"
    return f"the certificate of {host} cannot be trusted: {printable(error.verify_message, 80)}"


def relay_url(relay: Relay, port: int, *, is_implicit: bool = False) -> str:
    """The URL of `relay` at another port, with TLS from the first byte or without."""
    host = f"[{relay.host}]" if ":" in relay.host else relay.host
    user = f"{relay.username}@" if relay.username else ""
    return f"{'smtps' if is_implicit else 'smtp'}://{user}{host}:{port}"


def wrong_mode(relay: Relay) -> tuple[str, str]:
    """What is wrong when the port of `relay` speaks in the other way, and the fix."""
    if relay.tls is Tls.IMPLICIT:
        return (
            f"{relay.place} begins without TLS, and was spoken to with TLS from the first byte",
            f"write {relay_url(relay, relay.port)}, which goes over to TLS before anything is said",
        )
    return (
        f"{relay.place} speaks TLS from the first byte, and was spoken to without",
        f"write {relay_url(relay, relay.port, is_implicit=True)}",
    )


def trusting() -> ssl.SSLContext:
    """A context that believes any certificate: for looking at one, never for saying anything."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def speaks_tls(relay: Relay, proxy_password: Secret | None, *, timeout: float) -> bool:  # noqa: ASYNC109
    """Whether another connection to `relay` can be opened with TLS from the first byte, with any certificate."""
    try:
        async with asyncio.timeout(timeout):
            connection = await reach(relay, proxy_password, timeout=timeout)
            transport, _ = await asyncio.get_running_loop().create_connection(
                asyncio.Protocol, sock=connection, ssl=trusting(), server_hostname=relay.host
            )
    except (DialError, OSError, TimeoutError):  # SSLError is an OSError
        return False
    transport.abort()
    return True


# -- Opening a session: connect, TLS, EHLO, login; what comes out is a dialogue in which nothing is outstanding.


QUIET = 5.0  # seconds without a greeting after which a port is looked at more closely


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds without any progress, by stage; the defaults are those of RFC 5321 §4.5.3.2.

    `connect` is for reaching the host, all its addresses together; `block` for each piece of the body that is not
    taken; `end` for the reply to the end of the message: if that is too short, recipients get duplicates.
    """

    connect: float = 30.0
    greeting: float = 300.0
    ehlo: float = 300.0
    mail: float = 300.0
    rcpt: float = 300.0
    data: float = 120.0
    block: float = 180.0
    end: float = 600.0
    quit: float = 5.0


@dataclass(frozen=True, slots=True)
class Access:
    """How a relay is reached: what all connections to it have in common.

    `tls_context` is from `tls.make_tls_context`; None makes one for each connection.  `trace` gets the whole
    conversation.
    """

    relay: Relay
    credentials: Credentials | None = None
    tls_context: ssl.SSLContext | None = None
    proxy_password: Secret | None = None
    timeouts: Timeouts = Timeouts()
    trace: Trace | None = None


async def open_dialogue(access: Access, said: list[str]) -> tuple[Dialogue, Capabilities]:
    """A dialogue in which nothing is outstanding, and what the server offers.  Raises `SessionRefused`.

    `said` gets what the login said, which no later reply may be shown to repeat.
    One login attempt; a second one only where an access token was refused and a newer one can be had.
    """
    if access.tls_context is None and access.relay.tls is not Tls.OFF:
        access = replace(access, tls_context=await asyncio.to_thread(make_tls_context, access.relay))
    credentials = access.credentials
    if credentials is None or not credentials.username or credentials.tokens is None:
        return await _open(access, None, said)
    tokens = credentials.tokens
    token: AccessToken | None
    try:
        token = await tokens.current()
        try:
            opened = await _open(access, token, said)
        except SessionRefused as refusal:
            if not _is_bad_login(refusal.event) or (token := await tokens.instead_of(token)) is None:
                raise
            opened = await _open(access, token, said)
    except TokenError as error:
        raise SessionRefused(Fault(Stage.AUTH, error.kind, str(error))) from None
    tokens.accepted(token)
    return opened


def _is_bad_login(event: Reply | Fault) -> bool:
    return isinstance(event, Reply) and event.stage is Stage.AUTH and event.code == 535


async def _open(access: Access, token: AccessToken | None, said: list[str]) -> tuple[Dialogue, Capabilities]:
    relay, credentials = access.relay, access.credentials
    try:
        connection = await reach(relay, access.proxy_password, timeout=access.timeouts.connect)
    except DialError as error:
        not_connected(access.trace, str(error))
        raise SessionRefused(Fault(Stage.CONNECT, error.kind, str(error))) from None
    known = (credentials.password if credentials else None, token.secret if token else None, access.proxy_password)
    tap = connected(
        access.trace,
        relay.peer,
        connection,
        secrets=[secret.reveal() for secret in known if secret is not None],
        username=credentials.username if credentials else "",
    )
    try:
        opening = _Opening(access, connection, tap, said)
        return await opening.run(token)
    except BaseException:
        connection.close()
        raise


class _Opening:
    """One attempt to open a session over a connected socket."""

    def __init__(self, access: Access, connection: socket.socket, tap: Tap | None, said: list[str]) -> None:
        self._access = access
        self._relay = access.relay
        self._tap = tap
        self._connection = connection
        self._is_secure = access.relay.tls is Tls.IMPLICIT
        self._stage = Stage.CONNECT
        self._ehlo_name = ehlo_name(access.relay, connection).encode("ascii")
        self._capabilities = Capabilities()
        self._said = said  # in the login, as it went over the line
        self._dialogue = Dialogue(peer=access.relay.place, tap=tap)

    async def run(self, token: AccessToken | None) -> tuple[Dialogue, Capabilities]:
        """The whole opening, in order.  The connection is dropped if it does not come to its end."""
        credentials = self._access.credentials
        try:
            with self._explained():
                await self._connect()
                await self._greet()
                await self._say_hello()
                if not self._is_secure and self._relay.tls is not Tls.OFF:
                    await self._secure()
                if credentials is not None and credentials.username:
                    await self._log_in(credentials, token)
            self._dialogue.hide(self._said)
            return self._dialogue, self._capabilities
        except BaseException as error:
            self._dialogue.abort()
            if self._tap is not None:
                # What is said of a login may repeat what a server repeated of it.
                self._tap.closed("given up" if self._stage is Stage.AUTH else f"given up: {error}")
            raise

    async def _connect(self) -> None:
        """Puts the dialogue on the socket, over TLS where it begins with that."""
        patience = self._access.timeouts.greeting
        open_connection = partial(
            asyncio.get_running_loop().create_connection, lambda: self._dialogue, sock=self._connection
        )
        async with asyncio.timeout(patience):
            if self._is_secure:
                context, host = self._access.tls_context, self._relay.host
                await open_connection(ssl=context, server_hostname=host, ssl_handshake_timeout=patience)
            else:
                await open_connection()
        note_security(self._tap, self._dialogue.transport)

    async def _greet(self) -> None:
        """Waits for the greeting.  A port that is silent is looked at more closely: it may wait for TLS to begin.

        Not port 25: servers there let clients wait, and take it ill when one speaks first.
        """
        self._stage = Stage.GREETING
        patience = self._access.timeouts.greeting
        if not self._is_secure and self._relay.port != 25 and not self._relay.socket_path:
            quiet = min(QUIET, patience / 2)
            patience -= quiet
            if not await self._dialogue.comes(quiet) and await speaks_tls(
                self._relay, self._access.proxy_password, timeout=quiet
            ):
                raise self._in_wrong_mode()
        self._accept(await self._dialogue.answer(stage=Stage.GREETING, patience=patience), 220)
        self._dialogue.check(Stage.GREETING)

    async def _say_hello(self) -> None:
        verb = b"LHLO " if self._relay.is_lmtp else b"EHLO "
        reply = await self._ask(verb + self._ehlo_name, Stage.EHLO)
        if 500 <= reply.code <= 599 and not self._relay.is_lmtp and not self._dialogue.is_over:
            reply = await self._ask(b"HELO " + self._ehlo_name, Stage.EHLO)  # a server from before 1995 (RFC 5321 §3.2)
            self._capabilities = Capabilities()
        else:
            self._capabilities = parse_capabilities(reply.lines)
        self._accept(reply, 250)

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
        # Anything after the 220 was injected on the way (CVE-2011-0411): `_ask` refuses it.
        self._accept(await self._ask(b"STARTTLS", Stage.STARTTLS), 220)
        context = self._access.tls_context
        assert context is not None  # noqa: S101
        await self._dialogue.start_tls(context, self._relay.host, patience=self._access.timeouts.ehlo)
        self._is_secure = True
        note_security(self._tap, self._dialogue.transport)
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
            with hidden(self._tap, mechanism.name):
                reply = await log_in(mechanism, self._say)
        except LoginError as error:
            raise self._refused(error.kind, str(error)) from None
        self._accept(reply.without(self._said), 235)

    async def _say(self, line: bytes) -> RawReply:
        """One line of the login, and the reply to it."""
        self._said += line.decode("ascii").split(" ")[2 if line.startswith(b"AUTH ") else 0 :]
        return await self._ask(line, Stage.AUTH)

    # What the server says, and what becomes of it.

    async def _ask(self, line: bytes, stage: Stage) -> RawReply:
        """The reply to a line.  Raises `SessionRefused` if anything came beside it."""
        self._stage = stage
        [reply] = await self._dialogue.ask(line + b"\r\n", stage=stage, patience=self._access.timeouts.ehlo)
        self._dialogue.check(stage)
        return reply

    def _accept(self, reply: RawReply, code: int) -> None:
        """Raises `SessionRefused` unless the reply is the one with which the opening goes on."""
        if reply.code == code:
            return
        if 400 <= reply.code <= 599:
            raise SessionRefused(make_reply(self._stage, *reply))
        words = printable(f"{reply.code} {' '.join(reply.lines)}", 80)
        raise self._refused(Breakage.DESYNC, f"answered {words} when {code} was expected")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what transport and handshake raise inside into a `SessionRefused`."""
        try:
            yield
        except TimeoutError:  # of a handshake: replies are watched by the dialogue
            timeouts = self._access.timeouts
            seconds = timeouts.greeting if self._stage is Stage.CONNECT else timeouts.ehlo
            raise self._dialogue.overdue(self._stage, seconds) from None
        except OSError as error:  # SSLError is one
            raise self._broken(error) from None
        except SessionRefused as refusal:
            alert = self._dialogue.alert
            if alert is None or not isinstance(refusal.event, Fault) or refusal.event.kind is not Breakage.LOST:
                raise
            raise self._broken(alert) from None

    def _broken(self, error: OSError) -> SessionRefused:
        cause = alert_behind(error) or error
        if not isinstance(cause, ssl.SSLError):
            return self._dialogue.lost(self._stage)
        kind, what = tls_breakage(cause, host=self._relay.host, port=self._relay.port)
        if kind is Breakage.WRONG_TLS:
            return self._in_wrong_mode()
        return SessionRefused(Fault(self._stage, kind, what))

    def _in_wrong_mode(self) -> SessionRefused:
        return SessionRefused(Fault(self._stage, Breakage.WRONG_TLS, "; ".join(wrong_mode(self._relay))))

    def _refused(self, kind: Breakage, what: str, *, stage: Stage | None = None) -> SessionRefused:
        return self._dialogue.refused(stage or self._stage, kind, what)


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


def check_requiretls(relay: Relay, transport: asyncio.Transport, capabilities: Capabilities) -> None:
    """Raises `SessionRefused` where REQUIRETLS cannot be asked for (RFC 8689 §4.1): no row is at fault."""
    if not relay.requires_tls:
        return
    if transport.get_extra_info("ssl_object") is None:
        what = "is reached without TLS, and requiretls asks for it all the way"
    elif not capabilities.requiretls:
        what = "does not offer REQUIRETLS, so it does not promise to hand messages on over TLS only"
    else:
        return
    raise SessionRefused(Fault(Stage.EHLO, Breakage.NO_REQUIRETLS, f"{relay.place} {what}"))
