"""SCRAM-SHA-256, the client's side: proves the password without saying it, and has the server do so too (RFC 5802)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

from bulkmail.smtp.saslprep import saslprep

FEWEST_ITERATIONS = 4096  # RFC 7677 §4: fewer make the password cheap to guess for anyone who listens
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
            raise ScramError("answered with another login's nonce: someone may be in between")
        if not FEWEST_ITERATIONS <= iterations <= MOST_ITERATIONS:
            raise ScramError(
                f"wants the password hashed {iterations:,} times; from {FEWEST_ITERATIONS:,} to {MOST_ITERATIONS:,}"
                " is safe and bearable"
            )
        return nonce, salt, iterations
