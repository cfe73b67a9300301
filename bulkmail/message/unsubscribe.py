"""Signed links to unsubscribe by (RFC 2369, RFC 8058), and the proof of whom one was written to."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from hashlib import sha256

from bulkmail.message.header.headers import plain_field
from bulkmail.message.verp import without
from bulkmail.model.campaign import Unsubscribe
from bulkmail.model.errors import AddressError, ConfigError
from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.model.recipient import LONGEST_LOCAL_PART, Address
from bulkmail.model.relay import Secret

PLACEHOLDER = "{token}"
SHORTEST_KEY = 16  # bytes: 128 bits, as many as the tag has

_BEFORE_LIST = b"\0"  # between address and list: no address has it
_ID = 4  # characters of a token that name its key
_TAG = 22  # characters of 128 bits
_LONGEST_TOKEN = 1_000
_LONGEST_SETTING = 400
_HTTPS = lazy_pattern(r"https://[A-Za-z0-9.:\[\]-]+(?:[/?#][!#-;=?-~]*)?")  # no space, quote or angle bracket
_QUERY = lazy_pattern(r"[A-Za-z0-9%&=_.~+{}/:-]+")


@dataclass(frozen=True, slots=True)
class UnsubscribeRequest:
    """Who unsubscribes by a token, and from which list: its id in lower case, empty for all lists."""

    address: Address
    list_id: str = ""


def make_token(address: Address, key: bytes, *, list_id: str = "") -> str:
    """A text of letters, digits, `-` and `_` that only a holder of `key` can make for `address`.

    The same for one mailbox and one list (as `model.suppression.list_scope` names it), empty for all lists, in all
    campaigns.  It ends in a letter, so that no reader cuts a link short.
    """
    return _key_id(key) + _signed(address, key, list_id)


def _signed(address: Address, key: bytes, list_id: str) -> str:
    who = address.key.encode()
    if list_id:
        who += _BEFORE_LIST + list_id.encode()
    return f"{_base64(who)}{_tag(who, key)}"


def verify_unsubscribe(token: str, keys: Iterable[str | bytes]) -> Address | None:
    """Whom `token` was made for; None when none of `keys` has signed it.

    The address is in lower case, as a stop list takes it.  The time taken tells nothing about keys or tags.
    """
    request = read_unsubscribe(token, keys)
    return request.address if request is not None else None


def read_unsubscribe(token: str, keys: Iterable[str | bytes]) -> UnsubscribeRequest | None:
    """Whom `token` was made for, and for which list; otherwise as `verify_unsubscribe()`.

    A token of before lists had one counts for all lists.
    """
    token = token.strip()
    if not _ID + _TAG < len(token) <= _LONGEST_TOKEN or not token.isascii():
        return None
    signed_by, body, tag = token[:_ID], token[_ID:-_TAG], token[-_TAG:]
    try:
        who = urlsafe_b64decode(body + "=" * (-len(body) % 4))
    except ValueError:
        return None
    is_signed = False
    for key in keys:
        raw = key.encode() if isinstance(key, str) else key
        made = f"{_key_id(raw)}{_base64(who)}{_tag(who, raw)}"
        is_signed |= hmac.compare_digest(made, f"{signed_by}{body}{tag}")
    if not is_signed:
        return None
    whom, _, list_id = who.partition(_BEFORE_LIST)
    try:
        return UnsubscribeRequest(Address.parse(whom.decode()), list_id.decode())
    except (AddressError, UnicodeDecodeError):  # signed, but by something else than a campaign
        return None


def _key_id(key: bytes) -> str:
    return _base64(hmac.digest(key, b"bulkmail key id", "sha256"))[:_ID]


def _tag(who: bytes, key: bytes) -> str:
    return _base64(hmac.digest(key, b"bulkmail unsubscribe\0" + who, sha256)[:16])


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).decode("ascii").rstrip("=")


class Unsubscriber:
    """Writes the links of one campaign's setting."""

    def __init__(self, setting: Unsubscribe, key: Secret | None, *, list_id: str = "") -> None:
        """`list_id` is the list that tokens are for unless one is given to `token()`; empty is all lists.

        Raises `ConfigError` for a setting that makes no link, or a key that is missing or short.
        """
        self._list_id = list_id
        self._https = setting.https.strip()
        self._mailto = setting.mailto.strip().removeprefix("mailto:")
        if not (self._https or self._mailto):
            raise ConfigError("unsubscribe says neither https nor mailto", hint=_EXAMPLE)
        if max(len(self._https), len(self._mailto)) > _LONGEST_SETTING:
            raise ConfigError(f"unsubscribe has a link of more than {_LONGEST_SETTING} characters")
        if self._https and not (_HTTPS.fullmatch(self._https) and self._https.count(PLACEHOLDER) == 1):
            raise ConfigError(f"unsubscribe: https = {self._https!r} is no web address with {{token}}", hint=_EXAMPLE)
        self._plain, self._query = _check_mailto(self._mailto) if self._mailto else ("", "")
        self._key = b"" if key is None else key.reveal().encode()
        if len(self._key) < SHORTEST_KEY:
            what = "is missing" if key is None else f"has {len(self._key)} bytes, and {SHORTEST_KEY} are needed"
            raise ConfigError(
                f"the key that signs unsubscribe links {what}",
                hint="write key_file, key_env or key_command below [message.unsubscribe]; "
                "to make a key type: openssl rand -hex 32",
            )
        self._key_id = _key_id(self._key)

    def url(self, token: str) -> str:
        """The link to put into a message: the web's, or else the mail's."""
        return self._https.replace(PLACEHOLDER, token) if self._https else self._mail_url(token)

    def token(self, address: Address, list_id: str | None = None) -> str:
        """What stands for `{token}` in the links to `address`."""
        return self._key_id + _signed(address, self._key, self._list_id if list_id is None else list_id)

    def fields(self, token: str) -> bytes:
        """List-Unsubscribe, and List-Unsubscribe-Post where there is a link that takes it."""
        links = [f"<{self._https.replace(PLACEHOLDER, token)}>"] if self._https else []
        if self._mailto:
            links.append(f"<{self._mail_url(token)}>")
        field = plain_field("List-Unsubscribe", ", ".join(links))
        return field + b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" if self._https else field

    def _mail_url(self, token: str) -> str:
        filled = self._mailto.replace(PLACEHOLDER, token)
        if len(filled.partition("@")[0]) > LONGEST_LOCAL_PART:
            # RFC 5321 §4.5.3.1.1: not every server would take it, the subject has room.
            return f"mailto:{self._plain}?subject={token}"
        if PLACEHOLDER not in self._mailto and not self._query:
            return f"mailto:{filled}?subject={token}"
        return f"mailto:{filled}"


_EXAMPLE = 'write https = "https://shop.example/u/{token}", mailto = "unsubscribe+{token}@shop.example" or both'


def _check_mailto(mailto: str) -> tuple[str, str]:
    """The address without the token, and the query.  Raises `ConfigError`."""
    address, _, query = mailto.partition("?")
    plain = without(address, PLACEHOLDER)
    try:
        if not address.isascii() or PLACEHOLDER in address.partition("@")[2] or mailto.count(PLACEHOLDER) > 1:
            raise AddressError("has {token} where it cannot be")
        Address.parse(plain)
        Address.parse(address.replace(PLACEHOLDER, "a"))
    except AddressError as error:
        raise ConfigError(f"unsubscribe: mailto = {mailto!r}: the address {error}", hint=_EXAMPLE) from None
    if query and not _QUERY.fullmatch(query):
        raise ConfigError(
            f"unsubscribe: mailto = {mailto!r}: what is behind the ? has signs that a link cannot have",
            hint="write a space as %20",
        )
    return plain, query
