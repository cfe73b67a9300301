"""What the user's own settings say of `bulkmail serve` and of the mailboxes that `bulkmail bounces` reads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from bulkmail.mailbox.imap import Mailbox
from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy import dataclass
from bulkmail.model.relay import Secret, SecretKind, SecretSource
from bulkmail.settings.parsers import LISTEN, parse_listen
from bulkmail.settings.problems import Problems, show
from bulkmail.settings.secrets import LONGEST_SECRET, Wanted, one_place, secret_at

if TYPE_CHECKING:
    from bulkmail.settings.layers import Sources
    from bulkmail.settings.schema import ServeTable


_SHORTEST_KEY = 16  # bytes, as of a key that signs


@dataclass(frozen=True, slots=True)
class HookSettings:
    """One `[[webhook]]`: `topics` are those of SNS that are ours, `secret` proves the others."""

    provider: str
    secret: Secret | None = field(default=None, repr=False)
    topics: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """`host` and `port` to listen at; `keys` sign unsubscribe links, old ones among them."""

    host: str
    port: int
    keys: tuple[Secret, ...] = field(default=(), repr=False)
    hooks: tuple[HookSettings, ...] = ()
    trusts_proxy: bool = False


def load_serving(
    path: Path | None = None, *, listen: str = "", trusts_proxy: bool = False, environ: Mapping[str, str] = os.environ
) -> ServeSettings:
    """Reads the settings at `path`, by default the user's `config.toml`, and the secrets that they name the places of.

    `listen` and `trusts_proxy` are what flags say.  Raises `ConfigError` with every fault there is, and no secret.
    """
    from bulkmail.settings.suppressions import open_user_file

    problems = Problems()
    file, sources = open_user_file(path, environ, problems)
    host, port = file.serve.listen or parse_listen(LISTEN)
    if listen:
        try:
            host, port = parse_listen(listen)
        except ConfigError as error:
            problems.add(f"{sources.typed('--listen', listen)}: {error}", error.hint)
    keys = _keys(file.serve, sources, environ, problems)
    hooks: list[HookSettings] = []
    for number, table in enumerate(file.webhook):
        place = sources.place(("webhook", number, "provider"))
        if table.provider is None:
            if not {("webhook", number, "provider"), ("webhook", "provider")} & sources.broken:
                problems.add(f"{sources.place(('webhook', number))}: names no provider", 'write provider = "ses"')
            continue
        if any(hook.provider == table.provider for hook in hooks):
            problems.add(f"{place}: {show(table.provider)} stands there twice", "keep one of them")
            continue
        secret = None
        if table.provider == "ses":
            if not table.topics:
                hint = 'write topics = ["arn:aws:sns:eu-west-1:1234:ses-bounces"]'
                problems.add(f"{place}: without topics a signature of any topic would do", hint)
        else:
            found = one_place(sources, ("webhook", number), table, "secret", is_needed=True)
            if found is None:
                continue
            secret = _secret(found, place, environ, problems)
        hooks.append(HookSettings(table.provider, secret, tuple(table.topics)))
    if not keys and not hooks and not file.bounces and not len(problems):
        problems.add(
            f"{sources.path}: has neither [serve] keys nor a [[webhook]] nor [[bounces]], so that there is nothing to"
            " serve",
            'write keys = ["unsubscribe.key"] below [serve]: the key_file of [message.unsubscribe]',
        )
    problems.raise_if_any(next_command="bulkmail serve")
    return ServeSettings(host, port, tuple(keys), tuple(hooks), trusts_proxy or file.serve.trust_proxy)


def load_serve_keys(environ: Mapping[str, str] = os.environ) -> tuple[Secret, ...]:
    """The keys that [serve] of the user's `config.toml` names, for unsubscribe requests by mail; its command is run.

    Raises `ConfigError` with every fault there is.
    """
    from bulkmail.settings.suppressions import has_user_file, open_user_file

    if not has_user_file(environ):
        return ()
    problems = Problems()
    file, sources = open_user_file(None, environ, problems)
    keys = _keys(file.serve, sources, environ, problems)
    problems.raise_if_any(next_command="bulkmail bounces")
    return tuple(keys)


def _keys(serve: ServeTable, sources: Sources, environ: Mapping[str, str], problems: Problems) -> list[Secret]:
    """The keys of unsubscribe links; those that cannot be read are reported."""
    keys = [
        _secret(_file(name, sources), sources.place(("serve", "keys", number)), environ, problems)
        for number, name in enumerate(serve.keys)
    ]
    if serve.key_command:
        place = sources.place(("serve", "key_command"))
        keys.append(_secret(serve.key_command, place, environ, problems))
    return [key for key in keys if key is not None]


def is_served(key: Secret, environ: Mapping[str, str] = os.environ) -> bool | None:
    """Whether `key`, which signs unsubscribe links, is among the keys of [serve]; None where nothing is known of them.

    No command is run for it, and a key file that cannot be read is passed over: `bulkmail serve` says so.
    """
    from bulkmail.settings.suppressions import has_user_file, open_user_file

    if not has_user_file(environ):
        return None
    problems = Problems()
    file, sources = open_user_file(None, environ, problems)
    if not file.serve.keys or file.serve.key_command:
        return None
    served = [_secret(_file(name, sources), "", environ, problems) for name in file.serve.keys]
    return key.reveal() in [each.reveal() for each in served if each is not None]


def _file(name: str, sources: Sources) -> SecretSource:
    return SecretSource(SecretKind.FILE, str((sources.home / name).absolute()))


def _secret(source: SecretSource, place: str, environ: Mapping[str, str], problems: Problems) -> Secret | None:
    try:
        text = secret_at(source, Wanted("key", whose="the key"), environ=environ).strip()
        if len(text.encode()) < _SHORTEST_KEY or len(text) > LONGEST_SECRET or "\n" in text:
            raise ConfigError(f"the key is not one line of {_SHORTEST_KEY} to {LONGEST_SECRET:,} characters")
    except ConfigError as error:
        problems.add(f"{place}: {error}", error.hint)
        return None
    return Secret(text)


@dataclass(frozen=True, slots=True)
class BounceMailbox:
    """One mailbox: exactly one of `imap`, `maildir` and `mbox` is given.

    `password_from` is where the password of `imap` is; None where nothing says it.
    `then` is what becomes of mail that was matched, as `--then` takes it.
    """

    imap: Mailbox | None = None
    maildir: Path | None = None
    mbox: Path | None = None
    folder: str = "INBOX"
    then: str = "keep"
    password_from: SecretSource | None = None


def load_mailboxes(path: Path | None = None, *, environ: Mapping[str, str] = os.environ) -> tuple[BounceMailbox, ...]:
    """The mailboxes of the settings at `path`, by default the user's `config.toml`.

    Raises `ConfigError` with every fault there is.
    """
    from bulkmail.settings.suppressions import open_user_file

    problems = Problems()
    file, sources = open_user_file(path, environ, problems)
    found: list[BounceMailbox] = []
    for number, table in enumerate(file.bounces):
        place = sources.place(("bounces", number))
        named = [name for name in ("imap", "maildir", "mbox") if getattr(table, name)]
        if len(named) != 1 and not {("bounces", number, "imap"), ("bounces", "imap")} & sources.broken:
            what = "names no mailbox" if not named else f"names several mailboxes, {' and '.join(named)}"
            problems.add(
                f"{place}: {what}", 'write imap = "imaps://USER@HOST", maildir or mbox; a [[bounces]] for each'
            )
            continue
        password = one_place(sources, ("bounces", number), table, "password")
        if password is not None and not table.imap:
            fix = "keep one of password_env, password_file and password_command, beside imap"
            problems.add(f"{place}: a password is for imap", fix)
        found.append(
            BounceMailbox(
                imap=table.imap,
                maildir=sources.home / table.maildir if table.maildir else None,
                mbox=sources.home / table.mbox if table.mbox else None,
                folder=table.folder or "INBOX",
                then=table.then or "keep",
                password_from=password,
            )
        )
    problems.raise_if_any(next_command="bulkmail bounces")
    return tuple(found)
