"""Whether a webhook call comes from the service that it says: each service's proof over the raw bytes."""

from __future__ import annotations

import hmac
import json
import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from dataclasses import field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from bulkmail.model.lazy import dataclass
from bulkmail.model.relay import Secret

TOLERANCE = 300.0  # seconds between the time that a call was signed and now

Fetch = Callable[[str], bytes]
"""Gets what is at an https address, without following redirects.  Blocks; raises `OSError`."""


class HookRefused(Exception):
    """A call without a good proof; `str(error)` says why, for the log, and never shows a secret."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """One `[[webhook]]`: the service, the secret that proves it, and for SNS the topics that are ours."""

    provider: str
    secret: Secret | None = field(default=None, repr=False)
    topics: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """A call as it came: `headers` by names in lower case, the raw `body`, and the wall-clock time in seconds."""

    headers: Mapping[str, str]
    body: bytes
    now: float


def verified(hook: Webhook, call: Call, *, fetch: Fetch) -> dict[str, Any]:
    """The JSON object that a call with a good proof has.  May fetch a certificate.  Raises `HookRefused`."""
    return _PROOFS[hook.provider](hook, call, fetch)


def _parsed(data: bytes | str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise HookRefused("the body is not JSON") from None
    if not isinstance(found, dict):
        raise HookRefused("the body is not a JSON object")
    return found


def _secret_of(hook: Webhook) -> str:
    if hook.secret is None:
        raise HookRefused("no secret is set for it")
    return hook.secret.reveal()


def _refuse_stale(at: float, now: float) -> None:
    if abs(now - at) > TOLERANCE:
        raise HookRefused(f"it was signed {abs(now - at):,.0f} s before or after now")


# Amazon SNS: RSA over a canonical string, in which each line ends with a line feed.

_SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    "UnsubscribeConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}
_SNS_HOST = re.compile(r"sns\.[a-z0-9-]{3,30}\.amazonaws\.com(\.cn)?")
_CERTIFICATE = re.compile(r"/SimpleNotificationService-[0-9a-f]{8,64}\.pem")


def is_sns_address(url: str) -> bool:
    """Whether an https address is one of the service itself."""
    try:
        parts = urlsplit(url)
        return (
            parts.scheme == "https"
            and parts.port in (None, 443)
            and parts.username is None
            and _SNS_HOST.fullmatch(parts.hostname or "") is not None
        )
    except ValueError:
        return False


def _sns(hook: Webhook, call: Call, fetch: Fetch) -> dict[str, Any]:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.hashes import SHA1, SHA256
    from cryptography.x509 import load_pem_x509_certificate

    reported = _parsed(call.body)
    kind = reported.get("Type")
    if kind not in _SIGNED or not all(isinstance(reported[name], str) for name in _SIGNED[kind] if name in reported):
        raise HookRefused("it is no message of SNS")
    if reported.get("TopicArn") not in hook.topics:  # a valid signature of another account's topic proves nothing
        raise HookRefused("its topic is not among topics")
    address = str(reported.get("SigningCertURL", ""))
    if not is_sns_address(address) or not _CERTIFICATE.fullmatch(urlsplit(address).path) or urlsplit(address).query:
        raise HookRefused("its certificate is not at SNS")
    _refuse_stale(_moment(reported.get("Timestamp")), call.now)
    signed = "".join(f"{name}\n{reported[name]}\n" for name in _SIGNED[kind] if name in reported)
    try:
        key = load_pem_x509_certificate(fetch(address)).public_key()
        signature = b64decode(str(reported.get("Signature", "")), validate=True)
        if not isinstance(key, RSAPublicKey):
            raise HookRefused("its certificate has no RSA key")
        # SignatureVersion 1 is SHA1 by the service's own definition.
        algorithm = SHA256() if reported.get("SignatureVersion") == "2" else SHA1()  # noqa: S303
        key.verify(signature, signed.encode(), PKCS1v15(), algorithm)
    except InvalidSignature:
        raise HookRefused("its signature is not good") from None
    except (OSError, ValueError, Base64Error) as error:
        raise HookRefused(f"its signature cannot be checked: {type(error).__name__}") from None
    return reported


def _moment(text: object) -> float:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        raise HookRefused("it has no time") from None


# Mailgun: HMAC-SHA256 over a time and a token.


def _mailgun(hook: Webhook, call: Call, fetch: Fetch) -> dict[str, Any]:
    key = _secret_of(hook)
    reported = _parsed(call.body)
    signature = reported.get("signature")
    if not isinstance(signature, dict):
        raise HookRefused("it is not signed")
    at, token = str(signature.get("timestamp", "")), str(signature.get("token", ""))
    made = hmac.digest(key.encode(), (at + token).encode(), "sha256").hex()
    if not hmac.compare_digest(made, str(signature.get("signature", ""))):
        raise HookRefused("its signature is not good")
    try:
        _refuse_stale(float(at), call.now)
    except ValueError:
        raise HookRefused("it has no time") from None
    return reported


# Postmark signs nothing: a secret that only it knows, as the password of Basic auth or in a header.


def _postmark(hook: Webhook, call: Call, fetch: Fetch) -> dict[str, Any]:
    wanted = _secret_of(hook).encode()
    given = [call.headers.get("x-webhook-secret", "").encode()]
    scheme, _, encoded = call.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        given.append(encoded.strip().encode())
    elif scheme.lower() == "basic":
        try:
            given.append(b64decode(encoded.strip(), validate=True).partition(b":")[2])
        except Base64Error:
            given.append(b"")
    if True not in [hmac.compare_digest(wanted, each) for each in given]:  # all are looked at, whichever is right
        raise HookRefused("it does not know the secret")
    return _parsed(call.body)


# Standard Webhooks (Resend, Svix): the library of the standard.

_STANDARD_HEADERS = ("id", "timestamp", "signature")


def _standard(hook: Webhook, call: Call, fetch: Fetch) -> dict[str, Any]:
    from standardwebhooks import Webhook as Verifier
    from standardwebhooks import WebhookVerificationError

    headers = {
        f"webhook-{name}": call.headers.get(f"webhook-{name}") or call.headers.get(f"svix-{name}", "")
        for name in _STANDARD_HEADERS
    }
    try:
        _refuse_stale(float(headers["webhook-timestamp"]), call.now)
        Verifier(_secret_of(hook)).verify(call.body, headers)
    except (WebhookVerificationError, ValueError, UnicodeError) as error:
        raise HookRefused(f"its signature is not good: {type(error).__name__}") from None
    return {**_parsed(call.body), "webhook-id": headers["webhook-id"]}


_PROOFS: dict[str, Callable[[Webhook, Call, Fetch], dict[str, Any]]] = {
    "ses": _sns,
    "mailgun": _mailgun,
    "postmark": _postmark,
    "standard": _standard,
}
PROVIDERS = tuple(_PROOFS)
