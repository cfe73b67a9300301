"""Which relays a campaign goes through, and how each is reached: `[relay]`, `[[relay]]` or `--relay`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from bulkmail.model.delivery import parse_dsn
from bulkmail.model.errors import AddressError, ConfigError
from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.model.quota import parse_quota
from bulkmail.model.rate import Rate
from bulkmail.model.recipient import has_control, parse_mailbox
from bulkmail.model.relay import (
    Kind,
    Oauth,
    Relay,
    SecretKind,
    SecretSource,
    Tls,
    check_requiretls,
    parse_connections,
    parse_proxy,
    parse_source,
)
from bulkmail.model.route import Route, clashes, parse_count, parse_name, parse_patterns, split_url
from bulkmail.settings.campaign_files import FileReader, resolve
from bulkmail.settings.key_types import Table
from bulkmail.settings.layers import Sources
from bulkmail.settings.parsers import at_least_one, parse_positive
from bulkmail.settings.presets import FROM, expanded, named_preset, say_login
from bulkmail.settings.problems import Said
from bulkmail.settings.schema import RelayTable

T = TypeVar("T")


def build_routes(sources: Sources, reader: FileReader) -> tuple[Route, ...]:
    """The relays in the order they were named; none when none is named.  Faults are reported."""
    asides = list(_asides(sources))
    found = [(route, aside) for aside in asides if (route := _build_route(aside, reader)) is not None]
    routes = tuple(route for route, _ in found)
    for clash in clashes(routes):
        first, second = routes[clash.first].label, routes[clash.second].label
        named = f"{first} and {second}" if first != second else "two relays"
        sources.problems.add(f"{found[clash.second][1].place}: {named} {clash.what}", clash.fix)
    return routes


@dataclass(frozen=True, slots=True)
class _Aside:
    """What is said of one relay, as if it were the only one; `options` are those of its URL that are not the relay's.

    `place` is where the relay as a whole is named.
    """

    sources: Sources
    place: str
    options: dict[str, str]


def _asides(sources: Sources) -> Sequence[_Aside]:
    overrides = sources.overrides
    typed = overrides.relays or ((overrides.relay,) if overrides.relay is not None else ())
    if typed:
        return [_typed_aside(sources, url) for url in typed]
    tables = sources.file.relays
    if not tables:
        named = sources.environ.get(VARIABLE, "")
        url, options = split_url(_from_preset(sources, named, RelayTable(), place=VARIABLE))
        environ = {**sources.environ, VARIABLE: url}
        return [_Aside(replace(sources, environ=environ), VARIABLE, options)]
    return [_written_aside(sources, table, number) for number, table in enumerate(tables)]


def _from_preset(sources: Sources, text: str, table: RelayTable, *, place: str) -> str:
    """The URL of a relay that is named as a preset (`gmail`, `ses:eu-west-1`); any other as it is."""
    try:
        preset = named_preset(text)
        if preset is None:
            return text
        url = expanded(text)
        if "@" not in url and table.username is None:
            user = _address_of_from(sources) if preset.username == FROM else ""
            if user:
                url = expanded(f"{text.strip()}:{user}")
            else:
                fix = f"write username below [relay]; {say_login(preset)}"
                sources.problems.add(f"{place}: {preset.title} wants a login", fix)
        if sources.file.sending.quota is not None or sources.overrides.quota is not None:
            url = re.sub(r"quota=[^&]*&?", "", url).rstrip("?&")
        return url
    except ConfigError as error:
        sources.problems.add(f"{place}: {error}", error.hint)
        return "null:"


def _address_of_from(sources: Sources) -> str:
    """The address of From, if it is the same for every row."""
    said = sources.pick(("message", "from"), sources.file.message.sender, typed=sources.overrides.sender)
    try:
        return parse_mailbox(said.value)[1].wire if said is not None else ""
    except AddressError:
        return ""


def _typed_aside(sources: Sources, url: str) -> _Aside:
    rest, options = split_url(_from_preset(sources, url, RelayTable(), place="--relay"))
    return _Aside(replace(sources, overrides=replace(sources.overrides, relay=rest)), "--relay", options)


def _written_aside(sources: Sources, table: RelayTable, number: int) -> _Aside:
    """What stands in table number `number` stands for it where a lonely `[relay]` would."""
    place = sources.place(("relay", number))
    file, lines, broken = sources.file, sources.lines, sources.broken
    rest, options = split_url(_from_preset(sources, table.url or "", table, place=place))
    table = table.model_copy(update={"url": None if table.url is None else rest})
    update: dict[str, object] = {"relays": [table]}
    if len(file.relays) > 1 and table.connections is not None:  # what holds for all gives way to what holds for one
        update["sending"] = file.sending.model_copy(update={"connections": None})
    if ("relay", 0) in lines:  # [[relay]]
        mine = ("relay", number)
        lines = {
            ("relay", *path[2:]) if path[:2] == mine else path: line
            for path, line in lines.items()
            if path[:1] != ("relay",) or path[:2] == mine
        }
        broken = frozenset(("relay", *path[2:]) if path[:2] == mine else path for path in broken)
    aside = replace(sources, file=file.model_copy(update=update), lines=lines, broken=broken)
    return _Aside(aside, place, options)


def _build_route(aside: _Aside, reader: FileReader) -> Route | None:
    relay = build_relay(aside.sources, reader)
    if relay is None:
        return None
    table = aside.sources.file.relay if aside.sources.overrides.relay is None else None
    table = table or RelayTable.model_construct()
    return Route(
        relay,
        name=_read(aside, "name", table.name, parse_name, ""),
        weight=_read(aside, "weight", table.weight, lambda value: parse_count(str(value), "weight"), None),
        priority=_read(aside, "priority", table.priority, lambda value: parse_count(str(value), "priority"), 1),
        rate=_read(aside, "rate", table.rate, Rate.parse, None),
        quota=_read(aside, "quota", table.quota, parse_quota, None),
        messages_per_session=_read(aside, "messages_per_session", table.messages_per_session, at_least_one, None),
        session_age=_read(aside, "session_age", table.session_age, parse_positive, None),
        senders=_read(aside, "senders", table.senders, _parse_list, ()),
        recipients=_read(aside, "recipients", table.recipients, _parse_list, ()),
    )


def _parse_list(value: list[str] | str) -> tuple[str, ...]:
    return parse_patterns(value.split(",") if isinstance(value, str) else value)


def _read(aside: _Aside, key: str, written: object, parse: Callable[..., T], usual: T) -> T:
    """What the file says of `key`, or else the URL."""
    sources = aside.sources
    said = sources.pick(("relay", key), written)
    if said is None and key in aside.options:
        said = Said(aside.options[key], f"{aside.place}: {key}", sources.home)
    if said is None:
        return usual
    try:
        return parse(said.value)
    except ConfigError as error:
        sources.problems.add(f"{said}: {error}", error.hint)
        return usual


VARIABLE = "BULKMAIL_RELAY"

_EHLO_NAME = lazy_pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,253}|\[(?:IPv6:)?[0-9A-Fa-f:.]+\]")


def build_relay(sources: Sources, reader: FileReader) -> Relay | None:
    """The relay, or None when none is named.  Reported faults never have the text of a URL: it may hold a password.

    `--relay` replaces the whole `[relay]` table, so that the password of one server is never shown to another.
    """
    typed = sources.overrides.relay
    table = (sources.file.relay if typed is None else None) or RelayTable.model_construct()
    url = sources.pick(("relay", "url"), table.url, flag="--relay", typed=typed, is_secret=True)
    if url is None and sources.environ.get(VARIABLE):
        url = Said(sources.environ[VARIABLE], VARIABLE, Path("."), is_secret=True)
    if url is None:
        _tell_lonely_table(sources, table)
        return None
    try:
        relay = Relay.parse(url.value)
    except ConfigError as error:
        # A password with a ? in it makes options of its rest, and the error may repeat one.
        what = "cannot be read; is there a password in it?" if "@" in url.value.partition("?")[2] else str(error)
        sources.problems.add(f"{url}: {what}", error.hint)
        return None
    if relay.directory:
        relay = replace(relay, directory=str(resolve(replace(url, value=relay.directory))))
    relay = _with_connections(sources, relay, table)
    if relay.kind is not Kind.SMTP:
        return relay  # the rest of the table waits for the day when the rehearsal is over
    relay = _with_ca_file(sources, reader, relay, table=table, url=url)
    relay = _with_names(sources, relay, table=table, url=url)
    relay = with_wishes(sources, _with_tls(sources, relay, table), table)
    relay = _with_source_address(sources, relay, table)
    relay = _with_proxy(sources, relay, table)
    relay = _with_client_certificate(sources, reader, relay, table=table, url=url)
    return with_login(sources, relay, table)


def _tell_lonely_table(sources: Sources, table: RelayTable) -> None:
    if table != RelayTable.model_construct() and not any(path[0] == "relay" for path in sources.broken):
        place = sources.place(("relay",))
        sources.problems.add(f"{place}: has no url", 'write url = "smtp://user@mail.example.com:587" below [relay]')


def _with_connections(sources: Sources, relay: Relay, table: RelayTable) -> Relay:
    sending = sources.file.sending.connections
    typed = sources.overrides.connections
    if sending is not None and table.connections not in (None, sending):
        sources.problems.add(
            f"{sources.place(('sending', 'connections'))} = {sending}: [relay] says {table.connections}",
            "keep one of them",
        )
    said = sources.pick(("sending", "connections"), sending, flag="--connections", typed=typed) or sources.pick(
        ("relay", "connections"), table.connections
    )
    if said is None:
        return relay
    try:
        return replace(relay, connections=parse_connections(str(said.value)))
    except ConfigError as error:
        sources.problems.add(f"{said}: out of range", error.hint)
        return relay


def _with_ca_file(sources: Sources, reader: FileReader, relay: Relay, *, table: RelayTable, url: Said[str]) -> Relay:
    said = sources.pick(("relay", "ca_file"), table.ca_file)
    if said is None and relay.ca_file:
        said = Said(relay.ca_file, f"{url.place}: ca_file", url.folder)
    if said is None:
        return relay
    path = reader.exists(said, fix="name a file of certificates in PEM form")
    return relay if path is None else replace(relay, ca_file=str(path.absolute()))


def _with_source_address(sources: Sources, relay: Relay, table: RelayTable) -> Relay:
    said = sources.pick(("relay", "source_address"), table.source_address)
    if said is None:
        return relay
    try:
        return replace(relay, source_address=parse_source(said.value))
    except ConfigError as error:
        sources.problems.add(f"{said}: is not an IP address", error.hint)
        return relay


def _with_proxy(sources: Sources, relay: Relay, table: RelayTable) -> Relay:
    said = sources.pick(("relay", "proxy"), table.proxy, is_secret=True)
    if said is None:
        return relay
    try:
        return replace(relay, proxy=parse_proxy(said.value))
    except ConfigError as error:
        sources.problems.add(f"{said}: {error}", error.hint)
        return relay


def _with_client_certificate(
    sources: Sources, reader: FileReader, relay: Relay, *, table: RelayTable, url: Said[str]
) -> Relay:
    paths: dict[str, str] = {}
    for key in ("client_certificate", "client_key"):
        said = sources.pick(("relay", key), getattr(table, key))
        if said is None and getattr(relay, key):
            said = Said(getattr(relay, key), f"{url.place}: {key}", url.folder)
        if said is None:
            continue
        if key == "client_key" and not (table.client_certificate or relay.client_certificate):
            sources.problems.add(f"{said}: the certificate it belongs to is not named", "name client_certificate too")
        path = reader.exists(said, fix="name a file in PEM form")
        if path is not None:
            paths[key] = str(path.absolute())
    return replace(
        relay,
        client_certificate=paths.get("client_certificate", relay.client_certificate),
        client_key=paths.get("client_key", relay.client_key),
    )


def _with_names(sources: Sources, relay: Relay, *, table: RelayTable, url: Said[str]) -> Relay:
    username = relay.username if table.username is None else table.username
    if has_control(username):  # the file's: the URL's would have been refused
        place = sources.place(("relay", "username"))
        sources.problems.add(f"{place}: the user name holds a control character", "type it again")
    ehlo_name = relay.ehlo_name if table.ehlo is None else table.ehlo
    if ehlo_name and not _EHLO_NAME.fullmatch(ehlo_name):
        said = sources.pick(("relay", "ehlo"), table.ehlo) or Said(ehlo_name, f"{url.place}: ehlo", url.folder)
        sources.problems.add(f"{said}: is not a host name", 'write for example "mail.example.com", or leave it out')
        ehlo_name = ""
    return replace(relay, username=username, ehlo_name=ehlo_name)


def _with_tls(sources: Sources, relay: Relay, table: RelayTable) -> Relay:
    said = sources.pick(("relay", "tls"), table.tls)
    if said is None or said.value == relay.tls.value:
        return relay
    if relay.tls is Tls.IMPLICIT or said.value == Tls.IMPLICIT.value:
        fix = 'write the URL as "smtps://HOST" and leave tls out, or as "smtp://HOST" for STARTTLS'
        sources.problems.add(f"{said}: does not go with this URL", fix)
        return relay
    try:
        return replace(relay, tls=Tls(said.value))
    except ValueError:
        sources.problems.add(f"{said}: is not a kind of TLS", 'write "required", "opportunistic" or "off"')
        return relay


def with_wishes(sources: Sources, relay: Relay, table: RelayTable) -> Relay:
    """`relay` with what the table says of `dsn`, `dsn_return` and `requiretls`.  Faults are reported."""
    relay = _with_dsn(sources, relay, table)
    requires_tls = relay.requires_tls if table.requiretls is None else table.requiretls
    said = sources.pick(("relay", "requiretls"), table.requiretls)
    where = said.place if said else "requiretls"
    try:
        if relay.socket_path and requires_tls:
            raise ConfigError("does not go with a Unix socket", hint="leave it out")
        check_requiretls("yes" if requires_tls else "no", tls=relay.tls)
    except ConfigError as error:
        sources.problems.add(f"{where}: {error}", error.hint)
        return relay
    if relay.socket_path and relay.tls is not Tls.OFF:
        sources.problems.add(f"{sources.place(('relay', 'tls'))}: does not go with a Unix socket", "leave it out")
    return replace(relay, requires_tls=requires_tls)


def _with_dsn(sources: Sources, relay: Relay, table: RelayTable) -> Relay:
    said = sources.pick(("relay", "dsn"), table.dsn)
    if said is None:
        if table.dsn_return is not None and relay.dsn is None:
            place = sources.place(("relay", "dsn_return"))
            sources.problems.add(f"{place}: says nothing without dsn", 'add dsn = "failure", or leave it out')
            return relay
        returns = sources.pick(("relay", "dsn_return"), table.dsn_return)
        if returns is None or relay.dsn is None:
            return relay
        said = replace(returns, value=", ".join(relay.dsn.events) or "never")
    kept = "full" if relay.dsn is not None and relay.dsn.returns_full else "headers"
    try:
        return replace(relay, dsn=parse_dsn(said.value, returns=table.dsn_return or kept))
    except ConfigError as error:
        sources.problems.add(f"{said.place.rpartition(':')[0] or said.place}: {error}", error.hint)
        return relay


_VARIABLE_NAME = lazy_pattern(r"[A-Za-z_][A-Za-z0-9_]*")
_OAUTH = ("relay", "oauth")


def with_login(sources: Sources, relay: Relay, table: RelayTable) -> Relay:
    """`relay` with where its secrets are.  Faults never repeat a value: one may be the secret itself."""
    password_from = secret_place(sources, ("relay",), table, noun="password")
    if table.keyring:
        if password_from:
            _tell_two(sources, ("relay", "keyring"), "password", f"{_key_of(password_from, 'password')} and keyring")
        password_from = password_from or str(SecretSource(SecretKind.KEYRING))
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
    return str(SecretSource(SecretKind(way), value))


def _tell_two(sources: Sources, path: tuple[str, ...], noun: str, keys: str) -> None:
    words = noun.replace("_", " ")
    sources.problems.add(f"{sources.place(path)}: the {words} cannot come from two places, {keys}", "keep one of them")


def _key_of(place: str, noun: str) -> str:
    source = SecretSource.parse(place)
    return f"{noun}_{source.kind.value}" if source is not None else noun
