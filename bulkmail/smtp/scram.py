"""SCRAM-SHA-256 on paper (RFC 5802, RFC 7677), with the password as SASLprep makes it (RFC 4013)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import stringprep
import unicodedata

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
    # Unicode 3.2 and no later: both sides must come to the same form, whatever year their tables are from.
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
