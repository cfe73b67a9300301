"""`[notify]` of a campaign and of the user: whom to notify of a run, and where the secrets for it are."""

from __future__ import annotations

import os
import shutil
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bulkmail.model.errors import AddressError, ConfigError
from bulkmail.model.notification import NotifySettings
from bulkmail.model.quantities import parse_duration
from bulkmail.model.recipient import parse_mailbox
from bulkmail.model.relay import Secret, SecretKind, SecretSource
from bulkmail.settings.problems import Problems
from bulkmail.settings.secrets import Wanted, secret_at

if TYPE_CHECKING:
    from bulkmail.settings.layers import Sources
    from bulkmail.settings.schema import NotifyTable

SHORTEST_STILLNESS = 60.0  # seconds; retries and slow relays make shorter pauses in every run
SECRET_PREFIX = "whsec_"  # noqa: S105 - Standard Webhooks: what a key begins with, before its base64
_SHORTEST_KEY, _LONGEST_KEY = 24, 64  # bytes, by Standard Webhooks
_MOST_WORDS = 100


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
    """What `table` says.  Faults are reported, and never repeat an address that may be a secret."""
    from bulkmail.settings.relay_settings import secret_place

    webhook_from = secret_place(sources, ("notify",), table, noun="webhook")
    secret_from = secret_place(sources, ("notify",), table, noun="secret")
    if table.webhook is not None:
        if webhook_from:
            sources.problems.add(
                f"{sources.place(('notify', 'webhook'))}: the webhook is named twice", "keep one of its settings"
            )
        webhook_from = str(SecretSource(SecretKind.URL, _checked_url(table.webhook, sources)))
    if secret_from and not webhook_from:
        key = next(key for key in table.model_fields_set if key.startswith("secret_"))
        sources.problems.add(
            f"{sources.place(('notify', key))}: signs a webhook, and there is none here",
            'write webhook = "https://…" below [notify]',
        )
    return NotifySettings(
        mail=_mail(table, sources),
        webhook_from=webhook_from,
        secret_from=secret_from,
        command=_command(table, sources),
        after=_after(table, sources),
    )


def _mail(table: NotifyTable, sources: Sources) -> str:
    said = sources.pick(("notify", "mail"), table.mail)
    if said is None:
        return ""
    try:
        return parse_mailbox(said.value)[1].readable
    except AddressError as error:
        sources.problems.add(f"{said}: {error}", 'write mail = "me@shop.example"')
        return ""


def _checked_url(url: str, sources: Sources) -> str:
    try:
        return https_url(url)
    except ConfigError as error:
        sources.problems.add(f"{sources.place(('notify', 'webhook'))}: {error}", error.hint)
        return ""


def https_url(url: str) -> str:
    """`url`, stripped, if a webhook may be there.  Raises `ConfigError` that does not repeat it."""
    url = url.strip()
    hint = 'write webhook = "https://hooks.example.com/bulkmail"'
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError("is not an address", hint=hint) from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError("holds a password that others may read", hint="leave it out; secret_env signs the call")
    is_plain = url.isascii() and url.isprintable() and " " not in url and port != 0
    if parts.scheme != "https" or not parts.hostname or not is_plain:
        raise ConfigError("is not an https address", hint=hint)
    return url


def _command(table: NotifyTable, sources: Sources) -> tuple[str, ...]:
    command = tuple(table.command or ())
    if table.command is None:
        return ()
    place = sources.place(("notify", "command"))
    if not command or not command[0].strip() or any("\0" in word for word in command) or len(command) > _MOST_WORDS:
        sources.problems.add(
            f"{place}: is not a program with its arguments", 'write command = ["notify-send", "bulkmail", "{text}"]'
        )
        return ()
    if shutil.which(command[0]) is None:
        sources.problems.add(
            f"{place}: there is no program {command[0]!r}", "name one that is installed, by its whole path if need be"
        )
        return ()
    return command


def _after(table: NotifyTable, sources: Sources) -> float | None:
    said = sources.pick(("notify", "after"), table.after)
    if said is None:
        return None
    try:
        seconds = parse_duration(said.value)
        if seconds < SHORTEST_STILLNESS:
            raise ConfigError("is shorter than a minute", hint='write after = "30min"')
        return seconds
    except ConfigError as error:
        sources.problems.add(f"{said}: {error}", error.hint)
        return None


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
            url = https_url(found)
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
