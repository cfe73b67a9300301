"""The tables that come with the program: providers with their presets, and what servers say when it is too much."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from bulkmail.model.feedback import Complaint, Effect, Feedback, enhanced_pattern
from bulkmail.model.lane import Lane, LaneLimits, Lanes
from bulkmail.model.rate import Rate
from bulkmail.model.reply import Stage
from bulkmail.model.units import parse_duration
from bulkmail.model.verdict import Scope


@cache
def known_lanes() -> Lanes:
    """The providers of `data/lanes.toml`."""
    return Lanes({name: _lane(name, table) for name, table in _read("lanes.toml").items()})


@cache
def known_feedback() -> Feedback:
    """The complaints of `data/replies.toml`, in their order."""
    return Feedback(tuple(_complaint(table) for table in _read("replies.toml")["reply"]))


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(files("bulkmail").joinpath("data", name).read_text("utf-8"))


def _lane(name: str, table: Mapping[str, Any]) -> Lane:
    preset = LaneLimits(Rate.parse(table["rate"]), table["connections"], table["messages_per_session"])
    return Lane(name, frozenset(table.get("domains", ())), frozenset(table.get("exchangers", ())), preset=preset)


_SCOPES = {
    "lane": Scope.LANE,
    "relay": Scope.RELAY,
    "account": Scope.SENDER,
    "session": Scope.SESSION,
    "recipient": Scope.RECIPIENT,
}


def _complaint(table: Mapping[str, Any]) -> Complaint:
    return Complaint(
        name=table["name"],
        codes=tuple(table["codes"].split()),
        scope=_SCOPES[table["scope"]],
        enhanced=tuple(enhanced_pattern(text) for text in table.get("enhanced", "").split()),
        text=re.compile(table["text"], re.IGNORECASE) if "text" in table else None,
        stages=frozenset(Stage(name) for name in table.get("stages", ())),
        effects=frozenset(Effect(name) for name in table.get("effects", ())),
        suspend=parse_duration(table.get("suspend", "0")),
        pause=parse_duration(table.get("pause", "0")),
    )
