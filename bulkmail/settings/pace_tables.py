"""The tables of `campaign.toml` that say how to visit each provider, when to try again, when to stop.

Imports pydantic.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import ConfigDict, Field

from bulkmail.settings.table import Amount, Table


class RetryTable(Table):
    """`[sending.retry]`, or `retry = "steps"` for that of the recipients alone."""

    expected: ClassVar[str] = "a schedule in quotes, or a table of recipient, mailbox_provider and relay"
    recipient: str | None = None
    mailbox_provider: str | None = None
    relay: str | None = None


class ProviderTable(Table):
    """`[mailbox_providers.google]`, or any other name."""

    expected: ClassVar[str] = "a table of rate, connections, messages_per_session and domains"
    rate: Amount = None
    connections: int | None = None
    messages_per_session: int | None = None
    domains: list[str] = []
    exchangers: list[str] = []


class ProvidersTable(Table):
    """`[mailbox_providers]`: what holds for all, and a table for each provider."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, ProviderTable] = Field(init=False)
    presets: bool | None = None
    by_mx: bool = False

    @property
    def named(self) -> dict[str, ProviderTable]:
        """The providers by name, in the order of the file."""
        return self.__pydantic_extra__


class BreakersTable(Table):
    """`[breakers]`."""

    policy_rejections: int | None = None
    unknown_users: str | None = None
    unknown_users_after: int | None = None
    canary_rejections: str | None = None
