"""Keys to sign with, and a verifier that is not ours."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from bulkmail.model.relay import Secret

PrivateKey = RSAPrivateKey | Ed25519PrivateKey


@pytest.fixture(scope="session")
def rsa_key() -> RSAPrivateKey:
    return generate_private_key(65537, 2048)


@pytest.fixture(scope="session")
def ed25519_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def pem(key: PrivateKey) -> Secret:
    """The private key as a file has it."""
    return Secret(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


def record(key: PrivateKey) -> bytes:
    """The public key as the DNS has it."""
    if isinstance(key, Ed25519PrivateKey):
        raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return b"v=DKIM1; k=ed25519; p=" + b64encode(raw)
    return b"v=DKIM1; k=rsa; p=" + b64encode(
        key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )


@pytest.fixture(scope="session")
def verifies(rsa_key: RSAPrivateKey, ed25519_key: Ed25519PrivateKey) -> Callable[..., bool]:
    """Whether dkimpy takes signature number `index` of a message, the keys being at rsa. and ed. of shop.example."""
    zone = {b"rsa._domainkey.shop.example.": record(rsa_key), b"ed._domainkey.shop.example.": record(ed25519_key)}

    def look_up(name: bytes, timeout: int = 5) -> bytes | None:
        return zone.get(name)

    def verify(content: bytes, index: int = 0) -> bool:
        try:
            return bool(dkim.DKIM(content).verify(index, dnsfunc=look_up))
        except dkim.ValidationError:
            return False

    return verify
