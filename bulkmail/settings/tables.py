"""The tables that come with the program: providers with their presets, and what servers say when it is too much."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from bulkmail.model.feedback import Feedback
from bulkmail.model.lane import MailboxProvider, MailboxProviders, ProviderLimits
from bulkmail.model.rate import Rate
from bulkmail.model.reply import Reply, Stage
from bulkmail.model.verdict import judge, rule_of


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
    return Feedback(tuple(map(rule_of, read_table("replies.toml")["reply"])))


def read_table(name: str) -> dict[str, Any]:
    """A table of `data/`."""
    return tomllib.loads(files("bulkmail").joinpath("data", name).read_text("utf-8"))


def _provider(name: str, table: Mapping[str, Any]) -> MailboxProvider:
    preset = ProviderLimits(Rate.parse(table["rate"]), table["connections"], table["messages_per_session"])
    return MailboxProvider(
        name, frozenset(table.get("domains", ())), frozenset(table.get("exchangers", ())), preset=preset
    )
