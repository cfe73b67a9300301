"""Which relay a campaign goes through: the flag's, the file's or the environment's, checked and put together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bulkmail.model.address import has_control
from bulkmail.model.errors import ConfigError
from bulkmail.model.pattern import lazy_pattern
from bulkmail.model.relay import Kind, Relay, Tls, parse_connections, parse_proxy, parse_source
from bulkmail.settings.files import FileReader, resolve
from bulkmail.settings.logins import with_login
from bulkmail.settings.problems import Said
from bulkmail.settings.schema import RelayTable
from bulkmail.settings.sources import Sources
from bulkmail.settings.wishes import with_wishes

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
