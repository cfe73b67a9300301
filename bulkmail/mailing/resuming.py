"""How a run was to be sent, recorded so that it can go on without its campaign's files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec

from bulkmail.model.campaign import Campaign
from bulkmail.model.errors import OutboxError
from bulkmail.model.pace import Pace
from bulkmail.model.relay import Relay
from bulkmail.outbox.reader import OutboxReader

_FOR_EVER = 1e12  # seconds; JSON has no infinity


def to_settings(relay: Relay, pace: Pace) -> dict[str, str]:
    """What an outbox remembers of both.  A relay holds no secret, only where its password comes from."""
    return {
        "relay": str(relay),
        "relay_kind": relay.kind.value,
        "relay_record": msgspec.json.encode(relay).decode(),
        "pace_record": msgspec.json.encode(replace(pace, limit=None, wait=min(pace.wait, _FOR_EVER))).decode(),
    }


def recorded(path: Path) -> tuple[Relay, Pace]:
    """The relay and the pace that the run in `path` was begun with.  Raises `OutboxError`."""
    with OutboxReader.open(path) as reader:
        return from_settings(reader.settings, path)


def recorded_campaign(path: Path) -> Campaign | None:
    """The letter of the run in `path`; None where a program brought its messages.  Raises `OutboxError`."""
    with OutboxReader.open(path) as reader:
        return reader.campaign


def from_settings(settings: Mapping[str, str], path: Path) -> tuple[Relay, Pace]:
    """The reverse of `to_settings()`.  Raises `OutboxError` naming `path`."""
    try:
        return (
            msgspec.json.decode(settings["relay_record"], type=Relay),
            msgspec.json.decode(settings["pace_record"], type=Pace),
        )
    except (KeyError, msgspec.MsgspecError) as error:
        raise OutboxError(f"{path} does not say how it was to be sent: {error}", hint="add --relay URL") from None
