"""How a campaign logs in, as `[relay]` says it: the places of password, token and key, never what they hold."""

from __future__ import annotations

from dataclasses import replace

from bulkmail.model.address import has_control
from bulkmail.model.errors import ConfigError
from bulkmail.model.pattern import lazy_pattern
from bulkmail.model.relay import Oauth, Relay
from bulkmail.settings.files import resolve
from bulkmail.settings.problems import Said
from bulkmail.settings.schema import RelayTable
from bulkmail.settings.sources import Sources
from bulkmail.settings.table import Table

_VARIABLE_NAME = lazy_pattern(r"[A-Za-z_][A-Za-z0-9_]*")
_OAUTH = ("relay", "oauth")


def with_login(sources: Sources, relay: Relay, table: RelayTable) -> Relay:
    """`relay` with where its secrets are.  Faults never repeat a value: one may be the secret itself."""
    password_from = secret_place(sources, ("relay",), table, noun="password")
    if table.keyring:
        if password_from:
            _tell_two(sources, ("relay", "keyring"), "password", f"{_key_of(password_from, 'password')} and keyring")
        password_from = password_from or "keyring:"
    token_from = secret_place(sources, ("relay",), table, noun="token")
    oauth = _oauth(sources, table)
    if (token_from or table.oauth) and (password_from or (token_from and table.oauth)):
        key = "oauth" if table.oauth else _key_of(token_from, "token")
        sources.problems.add(
            f"{sources.place(('relay', key))}: a login is by password, by token or by oauth, and two of them are here",
            "keep one of them",
        )
    if (token_from or table.oauth) and not relay.username:
        key = "oauth" if table.oauth else _key_of(token_from, "token")
        sources.problems.add(
            f"{sources.place(('relay', key))}: whose token this is, is not said",
            "write username, the address of the account, below [relay]",
        )
    return replace(
        relay,
        password_from=password_from,
        token_from=token_from,
        oauth=oauth,
        key_password_from=secret_place(sources, ("relay",), table, noun="client_key_password"),
        proxy_password_from=secret_place(sources, ("relay",), table, noun="proxy_password"),
    )


def _oauth(sources: Sources, table: RelayTable) -> Oauth | None:
    oauth = table.oauth
    if oauth is None:
        return None
    client_secret_from = secret_place(sources, _OAUTH, oauth, noun="client_secret")
    refresh_token_from = secret_place(sources, _OAUTH, oauth, noun="refresh_token")
    for key, value in (("token_url", oauth.token_url), ("client_id", oauth.client_id)):
        if value is None or not value.strip():
            sources.problems.add(f"{sources.place(_OAUTH)}: {key} is missing", f"write {key} as the provider gives it")
    for key in ("client_id", "scope"):
        if has_control(getattr(oauth, key) or ""):
            sources.problems.add(f"{sources.place((*_OAUTH, key))}: holds a control character", "type it again")
    if not refresh_token_from and not any(key.startswith("refresh_token_") for key in oauth.model_fields_set):
        sources.problems.add(
            f"{sources.place(_OAUTH)}: nothing says where the refresh token is",
            "write refresh_token_file, refresh_token_env or refresh_token_command",
        )
    try:
        return Oauth(
            oauth.token_url or "https://missing.invalid",
            oauth.client_id or "",
            scope=oauth.scope or "",
            client_secret_from=client_secret_from,
            refresh_token_from=refresh_token_from,
        )
    except ConfigError as error:
        place = sources.place((*_OAUTH, "token_url"))
        sources.problems.add(f"{place}: is not an address that secrets may be sent to", error.hint)
        return None


_WAYS = {
    "env": "the name of an environment variable",
    "file": "the name of a file",
    "command": "a command",
}


def secret_place(sources: Sources, path: tuple[str, ...], table: Table, *, noun: str) -> str:
    """`"env:NAME"`, `"file:PATH"` or `"command:…"` for the secret `noun`; empty when no place is named."""
    given = {way: getattr(table, f"{noun}_{way}", None) for way in _WAYS}
    named = [way for way, value in given.items() if value is not None]
    if len(named) > 1:
        _tell_two(sources, (*path, f"{noun}_{named[1]}"), noun, f"{noun}_{named[0]} and {noun}_{named[1]}")
    if not named:
        return ""
    way = named[0]
    key, value = f"{noun}_{way}", str(given[way])
    if not value.strip() or "\0" in value or (way == "env" and not _VARIABLE_NAME.fullmatch(value)):
        fix = f'write {key} = "SHOP_MAIL_{noun.upper()}"' if way == "env" else f"fill it in, or leave {key} out"
        sources.problems.add(f"{sources.place((*path, key))}: is not {_WAYS[way]}", fix)
        return ""
    if way == "file":
        value = str(resolve(Said(value, key, sources.home)).absolute())
    return f"{way}:{value}"


def _tell_two(sources: Sources, path: tuple[str, ...], noun: str, keys: str) -> None:
    words = noun.replace("_", " ")
    sources.problems.add(f"{sources.place(path)}: the {words} cannot come from two places, {keys}", "keep one of them")


def _key_of(place: str, noun: str) -> str:
    return f"{noun}_{place.partition(':')[0]}"
