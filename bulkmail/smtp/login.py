"""Logging in over an open session: one mechanism, one attempt, and what must hold before a password is said at all."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable

from bulkmail.model.reply import Breakage
from bulkmail.smtp.capabilities import Capabilities
from bulkmail.smtp.credentials import AccessToken, Credentials
from bulkmail.smtp.mechanisms import (
    PASSWORD_MECHANISMS,
    TOKEN_MECHANISMS,
    LoginError,
    Mechanism,
    is_token,
    with_password,
    with_token,
)
from bulkmail.smtp.replies import RawReply

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
            raise LoginError(Breakage.NO_TOKEN, "was not told the access token: what we were given is none")
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
        raise LoginError(Breakage.NO_LOGIN, f"cannot be told the {what}: it is not valid text") from None
    # A NUL would end the name within PLAIN (RFC 4616 §2), a ^A the one within XOAUTH2.
    if "\0" in text or (what == "user name" and "\1" in text):
        raise LoginError(Breakage.NO_LOGIN, f"cannot be told a {what} with a NUL or ^A in it")


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
