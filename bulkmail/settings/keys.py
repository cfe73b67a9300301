"""Where the keys come from that messages are signed with: environment, file or command, looked up late."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping

from bulkmail.model.campaign import Campaign
from bulkmail.model.errors import ConfigError
from bulkmail.model.keys import NO_KEYS, Keys
from bulkmail.model.relay import Secret
from bulkmail.settings.places import LONGEST_SECRET, Wanted, secret_at


def find_keys(
    campaign: Campaign | None, *, environ: Mapping[str, str] = os.environ, runs_commands: bool = True
) -> Keys:
    """The keys that `campaign` names the places of.  May wait for a command.

    Without `runs_commands`, for messages that are only looked at, a new key stands in for one that a command prints.
    Raises `ConfigError` that says what to do, and never what a key is.
    """
    if campaign is None or not (campaign.unsubscribe or campaign.dkim):
        return NO_KEYS
    unsubscribe = None
    if campaign.unsubscribe:
        wanted = Wanted("key", whose="the key that signs unsubscribe links")
        place = campaign.unsubscribe.key_from
        is_stood_for = place.startswith("command:") and not runs_commands
        unsubscribe = (
            Secret(secrets.token_hex(32))
            if is_stood_for
            else _key(place, wanted, "[message.unsubscribe]", environ=environ)
        )
    dkim = tuple(
        _signing_key()
        if each.key_from.startswith("command:") and not runs_commands
        else _key(
            each.key_from,
            Wanted("key", whose=f"the DKIM key of {each.selector}._domainkey.{each.domain}", has_lines=True),
            "[message.dkim]",
            environ=environ,
        )
        for each in campaign.dkim
    )
    return Keys(unsubscribe, dkim)


def _signing_key() -> Secret:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate()
    return Secret(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


def _key(place: str, wanted: Wanted, table: str, *, environ: Mapping[str, str]) -> Secret:
    if not place:
        raise ConfigError(
            f"nothing says where {wanted.whose} comes from",
            hint=f"write key_file, key_env or key_command below {table}",
        )
    key = secret_at(place, wanted, environ=environ).strip()
    if not key:
        raise ConfigError(f"{wanted.whose} is empty")
    if len(key) > LONGEST_SECRET or "\0" in key or ("\n" in key and not wanted.has_lines):
        lines = "a text" if wanted.has_lines else "one line"
        raise ConfigError(f"{wanted.whose} is not {lines} of at most {LONGEST_SECRET:,} characters")
    return Secret(key)
