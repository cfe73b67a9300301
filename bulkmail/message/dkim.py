"""DKIM signatures (RFC 6376, RFC 8463), relaxed/relaxed, made on the buffers of a message."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING

from bulkmail.model.campaign import Dkim
from bulkmail.model.errors import AddressError, ConfigError
from bulkmail.model.lazy import lazy_pattern
from bulkmail.model.recipient import Address
from bulkmail.model.relay import Secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

# In this order.  From is named once more than it is there: a second one would break the signature.
SIGNED = (
    "from",
    "to",
    "cc",
    "reply-to",
    "sender",
    "subject",
    "date",
    "message-id",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "list-id",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "feedback-id",
)
PRESETS: dict[str, frozenset[str]] = {
    "": frozenset(),
    "ses": frozenset({"message-id", "date"}),  # Amazon SES writes its own
}
SHORTEST_RSA = 1024  # bits, RFC 8301 §3.2: verifiers accept no fewer

_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_LABELS = lazy_pattern(rf"{_LABEL}(?:\.{_LABEL})*")
_LINE = 76

Fields = dict[bytes, list[bytes]]
"""The canonical header fields by name, each name's from top to bottom."""


def canonical_fields(head: bytes) -> Fields:
    """The header, without the empty line behind it, as RFC 6376 §3.4.2 has it."""
    found: Fields = {}
    for line in _one_space(head.replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ")).split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon:
            name = name.rstrip(b" ").lower()
            found.setdefault(name, []).append(b"%b:%b\r\n" % (name, value.strip(b" ")))
    return found


def canonical_body(data: bytes) -> bytes:
    """Lines as RFC 6376 §3.4.4 has them, but for the empty ones at the end of a body."""
    return _one_space(data).replace(b" \r\n", b"\r\n")


def _one_space(data: bytes) -> bytes:
    """Every run of white space as one space.  Five times as fast as a pattern: most data has few."""
    if b"\t" in data:
        data = data.replace(b"\t", b" ")
    while b"  " in data:
        data = data.replace(b"  ", b" ")
    return data


def body_hash(buffers: Sequence[bytes], canonical: Sequence[bytes | None]) -> bytes:
    """The SHA-256 of the body in `buffers`, of which `canonical` has those that are known already."""
    pieces = [known or canonical_body(data) for data, known in zip(buffers, canonical, strict=True)]
    if any(_runs_on(one, other) for one, other in pairwise(filter(None, buffers))):
        pieces = [canonical_body(b"".join(buffers))]
    if pieces[-1] in (b"", b"\r\n") or pieces[-1].endswith(b"\r\n\r\n"):
        whole = b"".join(pieces).rstrip(b"\r\n")
        pieces = [whole + b"\r\n" if whole else b""]
    state = sha256()
    for piece in pieces:
        state.update(piece)
    return state.digest()


def _runs_on(one: bytes, other: bytes) -> bool:
    """Whether white space that counts as one lies in both."""
    return one.endswith((b" ", b"\t")) and other.startswith((b" ", b"\t", b"\r\n"))


class Signer:
    """Signs for one domain with one key."""

    def __init__(self, dkim: Dkim, key: Secret | None) -> None:
        """Raises `ConfigError` for a name that no DNS has and a key that cannot sign, and never shows the key."""
        self._name = f"{dkim.selector}._domainkey.{dkim.domain}"
        domain = _ascii_domain(dkim.domain)
        for what, text in (("domain", domain), ("selector", dkim.selector)):
            if not _LABELS.fullmatch(text) or len(text) > 253:
                raise ConfigError(f"DKIM: {text!r} is not a {what}", hint=_EXAMPLE)
        if dkim.preset not in PRESETS:
            known = ", ".join(f'"{name}"' for name in PRESETS if name)
            raise ConfigError(f"DKIM: there is no preset {dkim.preset!r}", hint=f"known are {known}; or leave it out")
        self._signed = [name.encode() for name in SIGNED if name not in PRESETS[dkim.preset]]
        algorithm, self._sign = _signing(self._name, key)
        self.is_slow = algorithm.startswith("rsa")
        self._intro = f"v=1; a={algorithm}; c=relaxed/relaxed;\r\n d={domain}; s={dkim.selector};".encode("ascii")
        self._folded: dict[tuple[bytes, ...], bytes] = {}

    def field(self, fields: Fields, body: bytes, seconds: int) -> bytes:
        """The DKIM-Signature of a message with these fields and this hash of its body.  `seconds` are wall clock."""
        names = [name for name in self._signed for _ in fields.get(name, ())]
        signed = [line for name in self._signed for line in reversed(fields.get(name, ()))]
        value = b"%b t=%d;\r\n h=%b;\r\n bh=%b;\r\n b=" % (
            self._intro,
            seconds,
            self._name_list((b"from", *names)),
            b64encode(body),
        )
        signed.append(b"dkim-signature:" + value.replace(b"\r\n", b""))
        signature = b64encode(self._sign(b"".join(signed)))
        lines = [signature[start : start + _LINE - 4] for start in range(0, len(signature), _LINE - 4)]
        return b"DKIM-Signature: %b%b\r\n" % (value, b"\r\n ".join(lines))

    def _name_list(self, names: tuple[bytes, ...]) -> bytes:
        folded = self._folded.get(names)
        if folded is None:
            lines = [b"h="]
            for name in names:
                if len(lines[-1]) + len(name) + 2 > _LINE:
                    lines.append(b"")
                lines[-1] += name + b":"
            folded = self._folded[names] = b"\r\n ".join(lines)[2:-1]
        return folded


class Signers:
    """Signs messages made on one plan; what of it is the same for everyone is made canonical once."""

    def __init__(self, signers: Sequence[Signer], segments: Sequence[object]) -> None:
        """`segments` are the plan's: those that are bytes are shared by all messages."""
        self._signers = signers
        self.are_slow = any(signer.is_slow for signer in signers)
        self._canonical = [canonical_body(part) if isinstance(part, bytes) else None for part in segments]

    def sign(self, buffers: Sequence[bytes], seconds: int) -> tuple[bytes, ...]:
        """`buffers` behind their signatures."""
        # What is behind the plan's own segments are the files of the row.
        known = [*self._canonical, *[None] * (len(buffers) - len(self._canonical))]
        first, *others = buffers
        end = first.find(b"\r\n\r\n")
        if end < 0 or len(known) != len(buffers):  # a header of its own buffer, or a message of another making
            first, others, known = b"".join(buffers), [], [None]
            end = first.index(b"\r\n\r\n")
        body = body_hash([first[end + 4 :], *others], [None, *known[1:]])
        fields = canonical_fields(first[:end])
        return (b"".join([signer.field(fields, body, seconds) for signer in self._signers]), *buffers)


def record_name(dkim: Dkim) -> str:
    """Where receivers look for the public key."""
    return f"{dkim.selector}._domainkey.{_ascii_domain(dkim.domain)}"


def public_key(dkim: Dkim, key: Secret | None) -> str:
    """What `p=` of that record must be (RFC 6376 §3.6.1, RFC 8463 §4).  Raises `ConfigError` for an unusable key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    private = _load(record_name(dkim), key)
    public = private.public_key()
    if isinstance(private, Ed25519PrivateKey):
        return b64encode(public.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode("ascii")
    return b64encode(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode("ascii")


_EXAMPLE = 'write domain = "shop.example", selector = "s1"'


def _ascii_domain(domain: str) -> str:
    try:
        return Address.parse(f"a@{domain}").domain
    except AddressError:
        return domain


def _signing(name: str, key: Secret | None) -> tuple[str, Callable[[bytes], bytes]]:
    """The algorithm's name and what signs with it."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    private = _load(name, key)
    if isinstance(private, Ed25519PrivateKey):
        edwards = private.sign
        return "ed25519-sha256", lambda data: edwards(sha256(data).digest())  # RFC 8463 §3
    if isinstance(private, RSAPrivateKey):
        if private.key_size < SHORTEST_RSA:
            raise ConfigError(f"the DKIM key of {name} has {private.key_size} bits", hint=_MAKE_ONE)
        rsa, padding, digest = private.sign, PKCS1v15(), hashes.SHA256()
        return "rsa-sha256", lambda data: rsa(data, padding, digest)
    raise ConfigError(f"the DKIM key of {name} is neither RSA nor Ed25519", hint=_MAKE_ONE)


_MAKE_ONE = "for one type: openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out dkim.pem"


def _load(name: str, key: Secret | None) -> PrivateKeyTypes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if key is None:
        raise ConfigError(
            f"the DKIM key of {name} is missing", hint="write key_file, key_env or key_command below [message.dkim]"
        )
    # In an environment variable line ends are often written as \n.
    text = key.reveal().replace("\\n", "\n").strip() + "\n"
    try:
        return load_pem_private_key(text.encode(), password=None)
    except TypeError:
        reason = "it is encrypted; no password is asked for here"
    except (ValueError, UnsupportedAlgorithm):
        reason = "it is not a private key in PEM form"
    raise ConfigError(f"the DKIM key of {name} cannot be read: {reason}", hint=_MAKE_ONE)
