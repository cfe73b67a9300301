"""`[notify]` of a campaign and of the user: whom to notify of a run, and where the secrets for it are."""

from __future__ import annotations

import os
import shutil
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from typing import TYPE_CHECKING

from bulkmail.model.errors import ConfigError
from bulkmail.model.notification import NotifySettings
from bulkmail.model.relay import Secret, SecretKind, SecretSource
from bulkmail.settings.parsers import parse_webhook
from bulkmail.settings.problems import Problems
from bulkmail.settings.secrets import Wanted, one_place, secret_at

if TYPE_CHECKING:
    from bulkmail.settings.layers import Sources
    from bulkmail.settings.schema import NotifyTable

SECRET_PREFIX = "whsec_"  # noqa: S105 - Standard Webhooks: what a key begins with, before its base64
_SHORTEST_KEY, _LONGEST_KEY = 24, 64  # bytes, by Standard Webhooks


def load_notify(environ: Mapping[str, str] = os.environ) -> NotifySettings:
    """What the user's own settings say for all campaigns.  Raises `ConfigError`."""
    from bulkmail.settings.suppressions import has_user_file, open_user_file

    if not has_user_file(environ):
        return NotifySettings()
    problems = Problems()
    file, sources = open_user_file(None, environ, problems)
    settings = build_notify(file.notify, sources)
    problems.raise_if_any(next_command="")
    return settings


def build_notify(table: NotifyTable, sources: Sources) -> NotifySettings:
    """What `table` says.  Faults are reported."""
    webhook = one_place(sources, ("notify",), table, "webhook")
    secret = one_place(sources, ("notify",), table, "secret")
    if table.webhook is not None:
        if webhook is not None:
            place = sources.place(("notify", "webhook"))
            sources.problems.add(f"{place}: the webhook is named twice", "keep one of its settings")
        webhook = SecretSource(SecretKind.URL, table.webhook)
    if secret is not None and webhook is None and ("notify", "webhook") not in sources.broken:
        place = sources.place(("notify", next(iter(table.places_of("secret")))))
        fix = 'write webhook = "https://…" below [notify]'
        sources.problems.add(f"{place}: signs a webhook, and there is none here", fix)
    if table.command is not None and shutil.which(table.command[0]) is None:
        place, fix = sources.place(("notify", "command")), "name one that is installed, by its whole path if need be"
        sources.problems.add(f"{place}: there is no program {table.command[0]!r}", fix)
    return NotifySettings(
        mail=table.mail or "",
        webhook_from=str(webhook or ""),
        secret_from=str(secret or ""),
        command=tuple(table.command or ()),
        after=table.after,
    )


def find_webhook(
    settings: NotifySettings, *, environ: Mapping[str, str] = os.environ
) -> tuple[str, Secret | None] | None:
    """The webhook's address and the key that signs the call, if there is one; None without a webhook.

    May wait for a command.  Raises `ConfigError` that says what to do, and neither of the two.
    """
    webhook = SecretSource.parse(settings.webhook_from)
    if webhook is None:
        return None
    url = webhook.where
    if webhook.kind is not SecretKind.URL:
        found = secret_at(webhook, Wanted("webhook", whose="the webhook's address"), environ=environ)
        try:
            url = parse_webhook(found)
        except ConfigError as error:
            raise ConfigError(f"the webhook's address {error}", hint=error.hint) from None
    secret = SecretSource.parse(settings.secret_from)
    if secret is None:
        return url, None
    key = secret_at(secret, Wanted("secret", whose="the webhook's secret"), environ=environ).strip()
    signing_key(key)
    return url, Secret(key)


def signing_key(secret: str) -> bytes:
    """The key in `"whsec_…"`, as Standard Webhooks writes it.  Raises `ConfigError`."""
    try:
        key = b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (Base64Error, ValueError):
        key = b""
    if not _SHORTEST_KEY <= len(key) <= _LONGEST_KEY:
        raise ConfigError(
            f"the webhook's secret is not {_SHORTEST_KEY} to {_LONGEST_KEY} bytes in base64",
            hint=f"make one: echo {SECRET_PREFIX}$(head -c 32 /dev/urandom | base64)",
        )
    return key
