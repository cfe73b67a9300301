"""The server's side of each login mechanism, written apart from the client's."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping

Ask = Callable[[str], Awaitable[str]]

_SALT = b"relay.test"
_ITERATIONS = 4096


async def take_login(mechanism: str, initial: str, *, logins: Mapping[str, str], ask: Ask) -> bool:
    """Whether the client shows a right name and password, or token; `ask` sends a challenge and gives the response."""
    match mechanism:
        case "PLAIN":
            parts = _decoded(initial or await ask("")).split("\0")
            return len(parts) == 3 and logins.get(parts[1]) == parts[2]
        case "LOGIN":
            user = _decoded(initial or await ask("Username:"))
            return logins.get(user) == _decoded(await ask("Password:"))
        case "CRAM-MD5":
            challenge = "<1.1@relay.test>"
            user, _, digest = _decoded(await ask(challenge)).rpartition(" ")
            secret = logins.get(user, "").encode()
            return user in logins and digest == hmac.digest(secret, challenge.encode(), "md5").hex()
        case "SCRAM-SHA-256":
            return await _scram(_decoded(initial or await ask("")), logins, ask)
        case "XOAUTH2" | "OAUTHBEARER":
            return await _bearer(mechanism, _decoded(initial or await ask("")), logins, ask)
    return False


async def _scram(first: str, logins: Mapping[str, str], ask: Ask) -> bool:
    """RFC 5802 with the hash of RFC 7677."""
    if (asked := re.fullmatch("n,,(n=([^,]+),r=([^,]+))", first)) is None:
        return False
    bare, user, nonce = asked[1], asked[2].replace("=2C", ",").replace("=3D", "="), asked[3] + secrets.token_hex(12)
    challenge = f"r={nonce},s={base64.b64encode(_SALT).decode()},i={_ITERATIONS}"
    final = _decoded(await ask(challenge))
    if user not in logins or (proven := re.fullmatch(r"(c=biws,r=([^,]+)),p=([^,]+)", final)) is None:
        return False
    salted = hashlib.pbkdf2_hmac("sha256", logins[user].encode(), _SALT, _ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    signed = f"{bare},{challenge},{proven[1]}".encode()
    signature = int.from_bytes(hmac.digest(stored, signed, "sha256"), "big")
    key = (int.from_bytes(base64.b64decode(proven[3]), "big") ^ signature).to_bytes(32, "big")
    if proven[2] != nonce or hashlib.sha256(key).digest() != stored:
        return False
    ours = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), signed, "sha256")
    return await ask(f"v={base64.b64encode(ours).decode()}") == ""


async def _bearer(mechanism: str, message: str, logins: Mapping[str, str], ask: Ask) -> bool:
    """`logins` have the token in place of the password; a wrong one is refused with an object that says so."""
    pattern = "n,a=([^,]*),\1(?:host=.*\1port=.*\1)?auth=Bearer (.*)\1\1"
    if mechanism == "XOAUTH2":
        pattern = "user=(.*)\1auth=Bearer (.*)\1\1"
    found = re.fullmatch(pattern, message)
    if found and logins.get(found[1].replace("=2C", ",").replace("=3D", "=")) == found[2]:
        return True
    await ask('{"status":"invalid_token"}' if mechanism == "OAUTHBEARER" else '{"status":"401","schemes":"bearer"}')
    return False


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except ValueError:
        return ""
