"""Where the keys come from that letters are signed with: environment, file or command, looked up late."""

from __future__ import annotations

import os
from collections.abc import Mapping

from bulkmail.config.places import LONGEST_SECRET, Wanted, secret_at
from bulkmail.model.campaign import Campaign
from bulkmail.model.errors import ConfigError
from bulkmail.model.keys import NO_KEYS, Keys
from bulkmail.model.relay import Secret


def find_keys(campaign: Campaign | None, *, environ: Mapping[str, str] = os.environ) -> Keys:
    """The keys that `campaign` names the places of.  May wait for a command.

    Raises `ConfigError` that says what to do, and never what a key is.
    """
    if campaign is None or not (campaign.unsubscribe or campaign.dkim):
        return NO_KEYS
    unsubscribe = None
    if campaign.unsubscribe:
        wanted = Wanted("key", whose="the key that signs unsubscribe links")
        unsubscribe = _key(campaign.unsubscribe.key_from, wanted, "[message.unsubscribe]", environ=environ)
    dkim = tuple(
        _key(
            each.key_from,
            Wanted("key", whose=f"the DKIM key of {each.selector}._domainkey.{each.domain}", has_lines=True),
            "[message.dkim]",
            environ=environ,
        )
        for each in campaign.dkim
    )
    return Keys(unsubscribe, dkim)


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
