"""Keys for signatures, and whether dkimpy, which is not ours, takes them."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from functools import cached_property

import dkim
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from bulkmail.model.campaign import Dkim, Keys
from bulkmail.model.relay import Secret

RSA, ED25519 = Dkim("shop.example", "rsa"), Dkim("shop.example", "ed")
UNSUBSCRIBE_KEY = "0123456789abcdef0123456789abcdef"


def pem(key: object) -> Secret:
    """A private key as its file has it."""
    raw = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # type: ignore[attr-defined]
    return Secret(raw.decode())


@dataclass
class KeyRing:
    """The keys behind `RSA` and `ED25519`, as a mailer has them and as the DNS does."""

    rsa: RSAPrivateKey = field(default_factory=lambda: generate_private_key(65537, 2048))
    ed25519: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    def keys_for(self, *signatures: Dkim) -> Keys:
        """What a composer is given to make them."""
        found = {RSA.selector: self.rsa, ED25519.selector: self.ed25519}
        return Keys(Secret(UNSUBSCRIBE_KEY), tuple(pem(found[each.selector]) for each in signatures))

    def verifies(self, content: bytes, index: int = 0) -> bool:
        """Whether dkimpy takes signature number `index`, from the top, of a message."""
        try:
            return bool(dkim.DKIM(content).verify(index, dnsfunc=lambda name, timeout=5: self.zone.get(name)))
        except dkim.ValidationError:
            return False

    @cached_property
    def zone(self) -> dict[bytes, bytes]:
        """What the DNS says of these keys: name and record."""
        rsa = self.rsa.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        edwards = self.ed25519.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return {
            b"rsa._domainkey.shop.example.": b"v=DKIM1; k=rsa; p=" + b64encode(rsa),
            b"ed._domainkey.shop.example.": b"v=DKIM1; k=ed25519; p=" + b64encode(edwards),
        }
