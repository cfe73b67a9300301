"""Which relays a campaign goes through, and which mail through which: `[relay]`, `[[relay]]` or `--relay`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from bulkmail.model.address import parse_mailbox
from bulkmail.model.errors import AddressError, ConfigError
from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.model.quota import parse_quota
from bulkmail.model.rate import Rate
from bulkmail.model.route import Route, clashes, parse_count, parse_name, parse_patterns, split_url
from bulkmail.settings.files import FileReader
from bulkmail.settings.pacing import at_least_one, parse_positive
from bulkmail.settings.problems import Said
from bulkmail.settings.relay_presets import FROM, expanded, named_preset, say_login
from bulkmail.settings.relays import VARIABLE, build_relay
from bulkmail.settings.schema import RelayTable
from bulkmail.settings.sources import Sources

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
