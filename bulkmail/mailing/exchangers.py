"""Which provider takes the mail of a domain in, as its mail exchangers say, found out before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable

import anyio

from bulkmail.model.lane import MailboxProvider, MailboxProviders
from bulkmail.smtp.exchangers import Exchangers

PATIENCE = 60.0  # seconds for all questions together; what is not known then is a provider of its own
MOST_ASKED = 5_000  # domains, those with most recipients


async def with_exchangers(
    providers: MailboxProviders, domains: Iterable[str], exchangers: Exchangers
) -> MailboxProviders:
    """`providers`, which also know the `domains` whose mail exchangers are a provider's."""
    found: dict[str, set[str]] = {}

    async def look(domain: str) -> None:
        if (name := providers.of_exchangers(await exchangers.find(domain))) is not None:
            found.setdefault(name, set()).add(domain)

    with anyio.move_on_after(PATIENCE):
        async with anyio.create_task_group() as group:
            for domain in domains:
                if providers.of(domain) not in providers.by_name:
                    group.start_soon(look, domain)
    for name, theirs in found.items():
        providers = providers.with_provider(MailboxProvider(name, domains=frozenset(theirs)))
    return providers
