"""Logging in: what each mechanism says, which one is right here, and the exchange itself (RFC 4954, RFC 4422)."""

from __future__ import annotations

import asyncio
import base64
import hmac
import secrets
from collections.abc import Awaitable, Callable, Collection
from typing import ClassVar, Protocol

from bulkmail.model.outcome import Breakage
from bulkmail.model.relay import Secret
from bulkmail.smtp.capabilities import Capabilities
from bulkmail.smtp.credentials import AccessToken, Credentials, is_token
from bulkmail.smtp.replies import RawReply
from bulkmail.smtp.scram import Scram, ScramError


class LoginError(Exception):
    """The login cannot go on.  `str(error)` completes "the server …" and holds no secret."""

    def __init__(self, kind: Breakage, what: str) -> None:
        super().__init__(what)
        self.kind = kind


class Mechanism(Protocol):
    """One login.  `first` is what the client says unasked, None where the server begins.

    `answer` takes the server's challenges in order, and raises `LoginError` for one that does not belong there;
    `is_slow` ones are answered off the loop.  `confirm` is asked after the server's yes, and raises `LoginError` if
    that yes is not to be believed.
    """

    name: ClassVar[str]
    is_slow: ClassVar[bool]
    first: bytes | None

    def answer(self, challenge: bytes) -> bytes: ...

    def confirm(self) -> None: ...


class _Plain:
    """RFC 4616."""

    name: ClassVar[str] = "PLAIN"
    is_slow: ClassVar[bool] = False

    def __init__(self, username: str, password: str) -> None:
        self.first: bytes | None = f"\0{username}\0{password}".encode()

    def answer(self, challenge: bytes) -> bytes:
        raise LoginError(Breakage.DESYNC, "asked for more than a user name and a password")

    def confirm(self) -> None:
        """A password that was said proves nothing about the server: its certificate did."""


class _Login(_Plain):
    """The name, then the password, each when it is asked for; never standardised, offered widely.

    The name does not go with AUTH: not every server that offers LOGIN takes it there.
    """

    name: ClassVar[str] = "LOGIN"

    def __init__(self, username: str, password: str) -> None:
        self.first: bytes | None = None
        self._answers = [password.encode(), username.encode()]

    def answer(self, challenge: bytes) -> bytes:
        if not self._answers:
            return super().answer(challenge)
        return self._answers.pop()


class _CramMd5(_Plain):
    """RFC 2195."""

    name: ClassVar[str] = "CRAM-MD5"

    def __init__(self, username: str, password: str) -> None:
        self.first: bytes | None = None
        self._username = username.encode()
        self._password: bytes | None = password.encode()

    def answer(self, challenge: bytes) -> bytes:
        password, self._password = self._password, None
        if password is None:
            return super().answer(challenge)
        return self._username + b" " + hmac.digest(password, challenge, "md5").hex().encode()


class _ScramSha256:
    """RFC 7677; the server's last message comes as one more challenge, answered with nothing (RFC 4954 §4)."""

    name: ClassVar[str] = "SCRAM-SHA-256"
    is_slow: ClassVar[bool] = True

    def __init__(self, username: str, password: str) -> None:
        self._scram = Scram(username, password, nonce=secrets.token_urlsafe(24))
        self.first: bytes | None = self._scram.first
        self._challenges = 0
        self._is_proven = False

    def answer(self, challenge: bytes) -> bytes:
        self._challenges += 1
        if self._challenges == 1:
            try:
                return self._scram.answer(challenge)
            except ScramError as error:
                raise LoginError(Breakage.IMPOSTOR, str(error)) from None
        if self._challenges > 2:
            raise LoginError(Breakage.DESYNC, "goes on asking when all is said")
        self._is_proven = self._scram.verify(challenge)
        if not self._is_proven and not challenge.startswith(b"e="):
            self.confirm()
        return b""  # after "e=…" comes the refusal itself, with its words

    def confirm(self) -> None:
        if not self._is_proven:
            raise LoginError(
                Breakage.IMPOSTOR, "cannot prove that it knows the password: it may not be the server it says it is"
            )


class _Bearer:
    """What OAUTHBEARER and XOAUTH2 share: one message, and a refusal that must be acknowledged before it comes."""

    is_slow: ClassVar[bool] = False
    first: bytes | None
    _acknowledgement: ClassVar[bytes]
    _is_refused = False

    def answer(self, challenge: bytes) -> bytes:
        if self._is_refused:
            raise LoginError(Breakage.DESYNC, "goes on asking when all is said")
        self._is_refused = True
        return self._acknowledgement

    def confirm(self) -> None:
        if self._is_refused:
            raise LoginError(Breakage.DESYNC, "refused the token and then said yes")


class _OauthBearer(_Bearer):
    """RFC 7628."""

    name: ClassVar[str] = "OAUTHBEARER"
    _acknowledgement: ClassVar[bytes] = b"\1"

    def __init__(self, username: str, token: str, *, host: str, port: int) -> None:
        identity = username.replace("=", "=3D").replace(",", "=2C")
        self.first = f"n,a={identity},\1host={host}\1port={port}\1auth=Bearer {token}\1\1".encode()


class _Xoauth2(_Bearer):
    """The form that providers had before RFC 7628."""

    name: ClassVar[str] = "XOAUTH2"
    _acknowledgement: ClassVar[bytes] = b""

    def __init__(self, username: str, token: str) -> None:
        self.first = f"user={username}\1auth=Bearer {token}\1\1".encode()


PASSWORD_MECHANISMS = ("SCRAM-SHA-256", "PLAIN", "LOGIN", "CRAM-MD5")
TOKEN_MECHANISMS = ("OAUTHBEARER", "XOAUTH2")

# SCRAM keeps the password from the server itself.  Of the others the plainest is the most widely right over TLS; where
# there is none, on loopback by the user's own word, one that does not say the password goes before one that does.
_OVER_TLS = PASSWORD_MECHANISMS
_IN_CLEAR_TEXT = ("SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN")


def with_password(username: str, password: Secret, *, offered: Collection[str], is_secure: bool) -> Mechanism | None:
    """The strongest of the `offered` ways that can be used with this name and password; None when there is none."""
    text = password.reveal()
    for name in _OVER_TLS if is_secure else _IN_CLEAR_TEXT:
        if name not in offered:
            continue
        match name:
            case "SCRAM-SHA-256":
                try:
                    return _ScramSha256(username, text)
                except ValueError:  # a password with an emoji in it, for one
                    continue
            case "PLAIN":
                return _Plain(username, text)
            case "LOGIN":
                return _Login(username, text)
            case _:
                return _CramMd5(username, text)
    return None


def with_token(username: str, token: Secret, *, offered: Collection[str], host: str, port: int) -> Mechanism | None:
    """The way to log in with an access token; None when none is offered."""
    if "OAUTHBEARER" in offered:
        return _OauthBearer(username, token.reveal(), host=host, port=port)
    return _Xoauth2(username, token.reveal()) if "XOAUTH2" in offered else None


LONGEST_COMMAND = 512  # bytes with CRLF, RFC 5321 §4.5.3.1.4: AUTH is not exempt from it (RFC 4954 §4)

Say = Callable[[bytes], Awaitable[RawReply]]


def choose_mechanism(
    credentials: Credentials,
    token: AccessToken | None,
    capabilities: Capabilities,
    *,
    is_secure: bool,
    host: str,
    port: int,
) -> Mechanism:
    """The one way in which we log in here.  Raises `LoginError` when there is none that is safe and known to both."""
    _check(credentials.username, "user name")
    offered = capabilities.auth_mechanisms
    known: tuple[str, ...]
    if token is not None:
        if not is_token(token.secret.reveal()):
            raise LoginError(Breakage.NO_TOKEN, "was not sent the access token: it is not a valid token")
        mechanism = with_token(credentials.username, token.secret, offered=offered, host=host, port=port)
        known, kind = TOKEN_MECHANISMS, "an access token"
    else:
        assert credentials.password is not None  # noqa: S101
        _check(credentials.password.reveal(), "password")
        mechanism = with_password(credentials.username, credentials.password, offered=offered, is_secure=is_secure)
        known, kind = PASSWORD_MECHANISMS, "a password"
    if mechanism is None:
        ways = f"only {', '.join(offered)}" if offered else "no login"
        raise LoginError(Breakage.NO_LOGIN, f"offers {ways}; we know {', '.join(known)}, and {kind} was given")
    return mechanism


def _check(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:  # its message would show the password
        raise LoginError(Breakage.NO_LOGIN, f"was not sent the {what}: it is not valid text") from None
    # A NUL would end the name within PLAIN (RFC 4616 §2), a ^A the one within XOAUTH2.
    if "\0" in text or (what == "user name" and "\1" in text):
        raise LoginError(Breakage.NO_LOGIN, f"was not sent the {what}: it contains a NUL or ^A")


async def log_in(mechanism: Mechanism, say: Say) -> RawReply:
    """The server's last word: 235, or a refusal.  Raises `LoginError`; `say` sends a line and gives the reply to it."""
    unsaid = mechanism.first
    command = b"AUTH " + mechanism.name.encode()
    if unsaid is not None:
        whole = command + b" " + base64.b64encode(unsaid)
        if len(whole) + 2 <= LONGEST_COMMAND:
            command, unsaid = whole, None
    reply = await say(command)
    while reply.code == 334:
        challenge = _challenge(reply)
        if unsaid is not None:
            answer, unsaid = unsaid, None
        elif mechanism.is_slow:
            answer = await asyncio.to_thread(mechanism.answer, challenge)
        else:
            answer = mechanism.answer(challenge)
        reply = await say(base64.b64encode(answer))
    if reply.code == 235:
        mechanism.confirm()
    return reply


def _challenge(reply: RawReply) -> bytes:
    try:
        return base64.b64decode("".join(reply.lines).strip(), validate=True)
    except ValueError:
        # Another attempt would be answered the same.
        raise LoginError(Breakage.NO_LOGIN, "sent a challenge that is not base64") from None
