"""The tables of `campaign.toml` that say how each provider is visited and when to stop."""

from __future__ import annotations

from typing import Annotated, ClassVar

from bulkmail.config.table import Amount, Rest, Table


class LaneTable(Table, frozen=True):
    """`[lanes.google]`, or any other name."""

    expected: ClassVar[str] = "a table of rate, connections, messages_per_session and domains"
    rate: Amount = None
    connections: int | None = None
    messages_per_session: int | None = None
    domains: list[str] = []
    exchangers: list[str] = []


class LanesTable(Table, frozen=True):
    """`[lanes]`: what holds for all, and a table for each lane; `named` has those in the order of the file."""

    presets: bool | None = None
    by_mx: bool = False
    named: Annotated[dict[str, LaneTable], Rest()] = {}


class BreakersTable(Table, frozen=True):
    """`[breakers]`."""

    policy_rejections: int | None = None
    unknown_users: str | None = None
    unknown_users_after: int | None = None
    canary_rejections: str | None = None
