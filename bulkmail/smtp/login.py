"""Logging in: what each mechanism says, which one is right here, and the exchange itself (RFC 4954, RFC 4422)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
import secrets
import stringprep
import unicodedata
from collections.abc import Awaitable, Callable, Collection
from typing import ClassVar, Protocol

from bulkmail.model.outcome import Breakage
from bulkmail.model.relay import Secret
from bulkmail.smtp.credentials import AccessToken, Credentials, is_token
from bulkmail.smtp.replies import Capabilities, RawReply

# -- SCRAM-SHA-256 on paper (RFC 5802, RFC 7677), with the password as SASLprep makes it (RFC 4013).


_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def saslprep(text: str, *, is_stored: bool) -> str:
    """`text` as both sides of a login write it.  Raises `ValueError`, which never repeats it, when it has no such form.

    A stored string, as a password is, must not use characters that Unicode 3.2 did not know; a query, as a user name
    is, may (RFC 3454 §7).
    """
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in text
        if not stringprep.in_table_b1(character)
    )
    # Unicode 3.2 and no later: both sides must come to the same form, also with tables of different years.
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    for character in prepared:
        if any(is_in_table(character) for is_in_table in _PROHIBITED):
            raise ValueError("a character in it is not allowed")
        if is_stored and stringprep.in_table_a1(character):
            raise ValueError("a character in it is newer than the login's rules")
    _check_direction(prepared)
    return prepared


def _check_direction(text: str) -> None:
    """Text from right to left begins and ends so, and has nothing from left to right in it (RFC 3454 §6)."""
    if not any(stringprep.in_table_d1(character) for character in text):
        return
    if any(stringprep.in_table_d2(character) for character in text):
        raise ValueError("it mixes directions of writing")
    if not (stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])):
        raise ValueError("it mixes directions of writing")


FEWEST_ITERATIONS = 4096  # RFC 7677 §4: fewer make the password cheap to guess for an eavesdropper
MOST_ITERATIONS = 2_000_000  # about a second of work; a server could ask for a week of it

_HEADER = "n,,"  # no channel binding, no other identity (RFC 5802 §7)
_CHALLENGE = re.compile(r"r=([\x21-\x2b\x2d-\x7e]+),s=([A-Za-z0-9+/=]+),i=([1-9][0-9]{0,9})(?:,[A-Za-z]=[^\0]*)?")


class ScramError(Exception):
    """The exchange cannot go on.  `str(error)` completes "the server …" and holds no secret."""


class Scram:
    """One login, sans I/O: `first`, then `answer(challenge)`, then `verify(final)`, each once and in this order.

    `nonce` is fresh and random for each login, printable ASCII without a comma.  Raises `ValueError` for a name or
    password that SASLprep has no form for (RFC 5802 §5.1, §2.2): then SCRAM cannot be used.
    """

    def __init__(self, username: str, password: str, *, nonce: str) -> None:
        name = saslprep(username, is_stored=False).replace("=", "=3D").replace(",", "=2C")
        self._password = saslprep(password, is_stored=True).encode()
        if not name or not self._password:
            raise ValueError("nothing is left of it")
        self._nonce = nonce
        self._bare = f"n={name},r={nonce}"
        self._signature = b""

    @property
    def first(self) -> bytes:
        """The first message, before any challenge."""
        return f"{_HEADER}{self._bare}".encode()

    def answer(self, challenge: bytes) -> bytes:
        """The proof, for the server's first message.  Takes up to a second: not for the loop.  Raises `ScramError`."""
        nonce, salt, iterations = self._read(challenge)
        salted = hashlib.pbkdf2_hmac("sha256", self._password, salt, iterations)
        binding = base64.b64encode(_HEADER.encode()).decode()
        unproven = f"c={binding},r={nonce}"
        signed = b",".join((self._bare.encode(), challenge, unproven.encode()))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        client_signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
        proof = bytes(key ^ signature for key, signature in zip(client_key, client_signature, strict=True))
        self._signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), signed, "sha256")
        return f"{unproven},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, final: bytes) -> bool:
        """Whether the server's last message proves that it knows the password, too."""
        kind, _, text = final.partition(b",")[0].partition(b"=")
        try:
            signature = base64.b64decode(text, validate=True)
        except ValueError:
            return False
        return kind == b"v" and bool(self._signature) and hmac.compare_digest(signature, self._signature)

    def _read(self, challenge: bytes) -> tuple[str, bytes, int]:
        """Nonce, salt and iteration count; an extension that must be understood is one too many (§5.1, `m=`)."""
        try:
            found = _CHALLENGE.fullmatch(challenge.decode())
            if found is None:
                raise ValueError
            nonce, salt, iterations = found[1], base64.b64decode(found[2], validate=True), int(found[3])
        except ValueError:
            raise ScramError("sent a challenge that is none of SCRAM") from None
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise ScramError("answered with another login's nonce: the connection may be intercepted")
        if not FEWEST_ITERATIONS <= iterations <= MOST_ITERATIONS:
            raise ScramError(
                f"wants the password hashed {iterations:,} times; from {FEWEST_ITERATIONS:,} to {MOST_ITERATIONS:,}"
                " is safe and bearable"
            )
        return nonce, salt, iterations


# -- Logging in: what each mechanism says, which one is right here, and the exchange itself (RFC 4954, RFC 4422).


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
