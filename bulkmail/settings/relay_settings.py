"""Which relays a campaign goes through, and how each is reached: `[relay]`, `[[relay]]` or `--relay`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from bulkmail.model.errors import AddressError, ConfigError
from bulkmail.model.lazy import dataclass
from bulkmail.model.recipient import parse_mailbox
from bulkmail.model.relay import Kind, Oauth, Relay, SecretKind, SecretSource, Tls, check_requiretls
from bulkmail.model.route import Route, clashes, split_url
from bulkmail.settings.campaign_files import FileReader, resolve
from bulkmail.settings.layers import Sources
from bulkmail.settings.parsers import parse_ehlo
from bulkmail.settings.presets import FROM, expanded, named_preset, say_login
from bulkmail.settings.problems import Said
from bulkmail.settings.schema import RelayTable, read_relay_options
from bulkmail.settings.secrets import one_place


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
        if sources.file.sending.quota is not None:
            url = re.sub(r"quota=[^&]*&?", "", url).rstrip("?&")
        return url
    except ConfigError as error:
        sources.problems.add(f"{place}: {error}", error.hint)
        return "null:"


def _address_of_from(sources: Sources) -> str:
    """The address of From, if it is the same for every row."""
    sender = sources.file.message.sender
    try:
        return parse_mailbox(sender)[1].wire if sender is not None else ""
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
    # What holds for all gives way to what holds for one, unless a flag says it.
    if len(file.relays) > 1 and table.connections is not None and ("sending", "connections") not in sources.flags:
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


_OF_ROUTE = frozenset(part.name for part in fields(Route)) - {"relay"}


def _build_route(aside: _Aside, reader: FileReader) -> Route | None:
    """What the file says of the relay, and its URL where the file says nothing."""
    sources = aside.sources
    relay = build_relay(sources, reader)
    if relay is None:
        return None
    said, mistakes = read_relay_options(aside.options, sources.environ)
    for mistake in mistakes:
        sources.problems.add(f"{aside.place}: {mistake.text}", mistake.fix)
    given = said.given()
    if sources.overrides.relay is None and sources.file.relay is not None:
        given |= sources.file.relay.given()
    return Route(relay, **{key: given[key] for key in _OF_ROUTE if key in given})


VARIABLE = "BULKMAIL_RELAY"


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
    relay = _with_ehlo(sources, relay, url=url)
    given = {name: value for name, value in table.given().items() if name in _AS_WRITTEN}
    relay = replace(relay, **given)
    relay = _with_files(sources, reader, relay, table=table, url=url)
    relay = _with_wishes(sources, _with_tls(sources, relay, table), table)
    return _with_login(sources, relay, table)


_AS_WRITTEN = ("username", "ehlo_name", "source_address", "proxy")


def _tell_lonely_table(sources: Sources, table: RelayTable) -> None:
    if table != RelayTable.model_construct() and not any(path[0] == "relay" for path in sources.broken):
        place = sources.place(("relay",))
        sources.problems.add(f"{place}: has no url", 'write url = "smtp://user@mail.example.com:587" below [relay]')


def _with_connections(sources: Sources, relay: Relay, table: RelayTable) -> Relay:
    key, sending = ("sending", "connections"), sources.file.sending.connections
    if sending is not None and table.connections not in (None, sending) and key not in sources.flags:
        sources.problems.add(f"{sources.place(key)} = {sending}: [relay] says {table.connections}", "keep one of them")
    return replace(relay, connections=sending or table.connections or relay.connections)


def _with_ehlo(sources: Sources, relay: Relay, *, url: Said[str]) -> Relay:
    """The name in the URL is checked as the file's is."""
    try:
        return replace(relay, ehlo_name=parse_ehlo(relay.ehlo_name))
    except ConfigError as error:
        said = Said(relay.ehlo_name, f"{url.place}: ehlo", url.folder)
        sources.problems.add(f"{said}: {error}", error.hint)
        return replace(relay, ehlo_name="")


_FILES = {
    "ca_file": "name a file of certificates in PEM form",
    "client_certificate": "name a file in PEM form",
    "client_key": "name a file in PEM form",
}


def _with_files(sources: Sources, reader: FileReader, relay: Relay, *, table: RelayTable, url: Said[str]) -> Relay:
    paths: dict[str, str] = {}
    for key, fix in _FILES.items():
        said = sources.pick(("relay", key), getattr(table, key))
        if said is None and getattr(relay, key):
            said = Said(getattr(relay, key), f"{url.place}: {key}", url.folder)
        if said is None:
            continue
        if key == "client_key" and not (table.client_certificate or relay.client_certificate):
            sources.problems.add(f"{said}: the certificate it belongs to is not named", "name client_certificate too")
        path = reader.exists(said, fix=fix)
        if path is not None:
            paths[key] = str(path.absolute())
    return replace(relay, **paths)  # type: ignore[arg-type]


def _with_tls(sources: Sources, relay: Relay, table: RelayTable) -> Relay:
    if table.tls is None or table.tls is relay.tls:
        return relay
    if Tls.IMPLICIT in (relay.tls, table.tls):
        said = Said(table.tls.value, sources.place(("relay", "tls")), sources.home)
        fix = 'write the URL as "smtps://HOST" and leave tls out, or as "smtp://HOST" for STARTTLS'
        sources.problems.add(f"{said}: does not go with this URL", fix)
        return relay
    return replace(relay, tls=table.tls)


def _with_wishes(sources: Sources, relay: Relay, table: RelayTable) -> Relay:
    """`relay` with what the table says of `dsn`, `dsn_return` and `requiretls`.  Faults are reported."""
    dsn = table.dsn or relay.dsn
    if dsn is None and table.dsn_return is not None:
        place = sources.place(("relay", "dsn_return"))
        sources.problems.add(f"{place}: says nothing without dsn", 'add dsn = "failure", or leave it out')
    if dsn is not None:
        kept = relay.dsn is not None and relay.dsn.returns_full
        dsn = replace(dsn, returns_full=kept if table.dsn_return is None else table.dsn_return)
    requires_tls = relay.requires_tls if table.requires_tls is None else table.requires_tls
    where = "requiretls" if table.requires_tls is None else sources.place(("relay", "requiretls"))
    try:
        if relay.socket_path and requires_tls:
            raise ConfigError("does not go with a Unix socket", hint="leave it out")
        check_requiretls("yes" if requires_tls else "no", tls=relay.tls)
    except ConfigError as error:
        sources.problems.add(f"{where}: {error}", error.hint)
        return relay
    if relay.socket_path and relay.tls is not Tls.OFF:
        sources.problems.add(f"{sources.place(('relay', 'tls'))}: does not go with a Unix socket", "leave it out")
    return replace(relay, dsn=dsn, requires_tls=requires_tls)


_OAUTH = ("relay", "oauth")


def _with_login(sources: Sources, relay: Relay, table: RelayTable) -> Relay:
    """`relay` with where its secrets are."""
    places = {noun: one_place(sources, ("relay",), table, noun) for noun in _NOUNS}
    password, token = places["password"], places["token"]
    if table.keyring:
        if password is not None:
            what = f"the password cannot come from two places, {_key_of(table, 'password')} and keyring"
            sources.problems.add(f"{sources.place(('relay', 'keyring'))}: {what}", "keep one of them")
        password = password or SecretSource(SecretKind.KEYRING)
    oauth = _oauth(sources, table)
    if token or table.oauth:
        place = sources.place(("relay", "oauth" if table.oauth else _key_of(table, "token")))
        if password or (token and table.oauth):
            what = "a login is by password, by token or by oauth, and two of them are here"
            sources.problems.add(f"{place}: {what}", "keep one of them")
        if not relay.username:
            fix = "write username, the address of the account, below [relay]"
            sources.problems.add(f"{place}: whose token this is, is not said", fix)
    return replace(
        relay,
        password_from=_said(password),
        token_from=_said(token),
        oauth=oauth,
        key_password_from=_said(places["client_key_password"]),
        proxy_password_from=_said(places["proxy_password"]),
    )


_NOUNS = ("password", "token", "client_key_password", "proxy_password")


def _said(place: SecretSource | None) -> str:
    return str(place or "")


def _key_of(table: RelayTable, noun: str) -> str:
    return next(iter(table.places_of(noun)))


def _oauth(sources: Sources, table: RelayTable) -> Oauth | None:
    oauth = table.oauth
    if oauth is None:
        return None
    client_secret = one_place(sources, _OAUTH, oauth, "client_secret")
    refresh_token = one_place(sources, _OAUTH, oauth, "refresh_token")
    for key, value in (("token_url", oauth.token_url), ("client_id", oauth.client_id)):
        if (value is None or not value.strip()) and (*_OAUTH, key) not in sources.broken:
            sources.problems.add(f"{sources.place(_OAUTH)}: {key} is missing", f"write {key} as the provider gives it")
    if refresh_token is None and not any(path[-1] in _REFRESH for path in sources.broken):
        sources.problems.add(
            f"{sources.place(_OAUTH)}: nothing says where the refresh token is",
            "write refresh_token_file, refresh_token_env or refresh_token_command",
        )
    try:
        return Oauth(
            oauth.token_url or "https://missing.invalid",
            oauth.client_id or "",
            scope=oauth.scope or "",
            client_secret_from=_said(client_secret),
            refresh_token_from=_said(refresh_token),
        )
    except ConfigError as error:
        place = sources.place((*_OAUTH, "token_url"))
        sources.problems.add(f"{place}: is not an address that secrets may be sent to", error.hint)
        return None


_REFRESH = ("refresh_token_file", "refresh_token_env", "refresh_token_command")
