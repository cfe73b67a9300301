"""How a run was to be sent, recorded so that it can go on without its campaign's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from pathlib import Path

import msgspec

from bulkmail.config.zones import find_zone
from bulkmail.model.campaign import Campaign
from bulkmail.model.errors import ConfigError, OutboxError
from bulkmail.model.pace import Pace
from bulkmail.model.route import Route
from bulkmail.outbox.reader import OutboxReader

_FOR_EVER = 1e12  # seconds; JSON has no infinity


def to_settings(routes: Sequence[Route], pace: Pace) -> dict[str, str]:
    """What an outbox remembers of both.  A relay holds no secret, only where its password comes from."""
    return {
        "relay": " and ".join(route.label for route in routes) if len(routes) > 1 else str(routes[0].relay),
        "relay_kind": routes[0].relay.kind.value,
        "relays": msgspec.json.encode([route.label for route in routes]).decode(),
        "routes_record": msgspec.json.encode(list(routes)).decode(),
        "pace_record": _pace_record(pace),
    }


def recorded(path: Path) -> tuple[tuple[Route, ...], Pace]:
    """The relays and the pace that the run in `path` was begun with.  Raises `OutboxError`."""
    with OutboxReader.open(path) as reader:
        return from_settings(reader.settings, path)


def recorded_settings(path: Path) -> Mapping[str, str]:
    """The settings of the run in `path`.  Raises `OutboxError`."""
    with OutboxReader.open(path) as reader:
        return reader.settings


def recorded_campaign(path: Path) -> Campaign | None:
    """The message of the run in `path`; None where a program brought its messages.  Raises `OutboxError`."""
    with OutboxReader.open(path) as reader:
        return reader.campaign


def from_settings(settings: Mapping[str, str], path: Path) -> tuple[tuple[Route, ...], Pace]:
    """The reverse of `to_settings()`.  Raises `OutboxError` naming `path`."""
    try:
        return (
            msgspec.json.decode(settings["routes_record"], type=tuple[Route, ...]),
            msgspec.json.decode(settings["pace_record"], type=Pace, dec_hook=_read_other),
        )
    except (KeyError, ValueError, RecursionError, ConfigError, msgspec.MsgspecError) as error:
        raise OutboxError(f"{path} does not say how it was to be sent: {error}", hint="add --relay URL") from None


def _pace_record(pace: Pace) -> str:
    kept = replace(pace, limit=None, wait=min(pace.wait, _FOR_EVER))
    return msgspec.json.encode(kept, enc_hook=_write_other).decode()


def _write_other(value: object) -> str:
    """A time zone by its name, or, as a program may give one that has none, by its distance from UTC."""
    if not isinstance(value, tzinfo):
        raise TypeError(f"a pace with a {type(value).__name__}")
    if value is UTC:
        return "UTC"
    return getattr(value, "key", None) or datetime.fromtimestamp(0, value).strftime("%z")


def _read_other(kind: type, text: object) -> tzinfo:
    if not issubclass(kind, tzinfo):
        raise TypeError(f"a pace with a {kind.__name__}")
    if str(text)[:1] in ("+", "-"):
        zone = datetime.strptime(str(text), "%z").tzinfo
        assert zone is not None  # noqa: S101
        return zone
    return find_zone(str(text))
