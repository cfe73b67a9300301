"""The tables that come with the program: providers with their presets, and what servers say when it is too much."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from bulkmail.model.feedback import Feedback
from bulkmail.model.lane import MailboxProvider, MailboxProviders, ProviderLimits
from bulkmail.model.outcome import Effect, Scope, Verdict, quota, throttle
from bulkmail.model.rate import Rate
from bulkmail.model.reply import Reply, Stage
from bulkmail.model.subjects import Subject
from bulkmail.model.units import parse_duration
from bulkmail.model.verdict import Rule, enhanced_pattern, judge


@cache
def known_providers() -> MailboxProviders:
    """The providers of `data/mailbox_providers.toml`."""
    return MailboxProviders(
        {name: _provider(name, table) for name, table in read_table("mailbox_providers.toml").items()}
    )


@cache
def known_feedback() -> Feedback:
    """The judge with the rules of `data/replies.toml`, in their order."""
    judge(Reply(Stage.RCPT, 500, text="denied for an hour"))  # its patterns are compiled now, and not on a loop
    return Feedback(tuple(_rule(table) for table in read_table("replies.toml")["reply"]))


def read_table(name: str) -> dict[str, Any]:
    """A table of `data/`."""
    return tomllib.loads(files("bulkmail").joinpath("data", name).read_text("utf-8"))


def _provider(name: str, table: Mapping[str, Any]) -> MailboxProvider:
    preset = ProviderLimits(Rate.parse(table["rate"]), table["connections"], table["messages_per_session"])
    return MailboxProvider(
        name, frozenset(table.get("domains", ())), frozenset(table.get("exchangers", ())), preset=preset
    )


_SCOPES = {"provider": Scope.PROVIDER, "relay": Scope.RELAY}


def _rule(table: Mapping[str, Any]) -> Rule:
    return Rule(
        codes=tuple(table["codes"].split()),
        verdict=_verdict(table),
        stages=frozenset(Stage(name) for name in table.get("stages", ())),
        enhanced=tuple(enhanced_pattern(text) for text in table.get("enhanced", "").split()),
        text=re.compile(table["text"], re.IGNORECASE) if "text" in table else None,
        subject=Subject[table.get("about", "recipient").upper().replace(" ", "_")],
    )


def _verdict(table: Mapping[str, Any]) -> Verdict | None:
    match table.get("scope"):
        case None:
            return None
        case "account":
            return quota(parse_duration(table["pause"]), label=table["name"])
        case scope:
            effects = [Effect(name) for name in table["effects"]]
            return throttle(
                _SCOPES[scope], *effects, label=table["name"], suspend=parse_duration(table.get("suspend", "0"))
            )
