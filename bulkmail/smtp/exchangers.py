"""Whose mail exchangers a domain has (RFC 5321 §5.1), asked of DNS once each and never waited for long."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable

import anyio

Ask = Callable[[str], Awaitable[tuple[str, ...]]]
"""The names of a domain's mail exchangers, best first; any error when they cannot be found out now."""

TIMEOUT = 5.0  # seconds that one question may take
MOST_AT_ONCE = 20
MOST_KEPT = 20_000  # domains; those asked for longest ago are forgotten first


class Exchangers:
    """What is known of the mail exchangers of domains.

    `find()` never raises: a domain that does not answer has none in this run, and so is a provider of its own.
     It is not asked again, or a dead name server would cost its time for every message.
    """

    def __init__(self, ask: Ask | None = None, *, timeout: float = TIMEOUT) -> None:
        self._ask = ask or ask_dns
        self._timeout = timeout
        self._known: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._pending: dict[str, anyio.Event] = {}
        self._few = anyio.CapacityLimiter(MOST_AT_ONCE)

    def known(self, domain: str) -> tuple[str, ...] | None:
        """Without a query: the exchangers, empty when there are none; None when they were not looked up yet."""
        found = self._known.get(domain)
        if found is not None:
            self._known.move_to_end(domain)
        return found

    async def find(self, domain: str) -> tuple[str, ...]:
        """The names of the mail exchangers, best first; empty when there are none, or no answer."""
        while (found := self.known(domain)) is None:
            if (asked := self._pending.get(domain)) is not None:
                await asked.wait()
                continue
            done = self._pending[domain] = anyio.Event()
            try:
                self._remember(domain, await self._hosts(domain))
            finally:  # if cancelled, another waiting task asks
                del self._pending[domain]
                done.set()
        return found

    async def _hosts(self, domain: str) -> tuple[str, ...]:
        async with self._few:
            with anyio.move_on_after(self._timeout):
                try:
                    return await self._ask(domain)
                except Exception:  # whatever a resolver may raise: a provider is no reason to stop a campaign
                    return ()
        return ()

    def _remember(self, domain: str, hosts: tuple[str, ...]) -> None:
        self._known[domain] = hosts
        if len(self._known) > MOST_KEPT:
            self._known.popitem(last=False)


async def ask_dns(domain: str) -> tuple[str, ...]:
    """Asks the machine's own resolver.  Raises what dnspython raises, also for a domain without exchangers."""
    import dns.asyncresolver
    from dns.rdtypes.ANY.MX import MX

    answer = await dns.asyncresolver.resolve(domain, "MX", lifetime=TIMEOUT)
    records = sorted((record for record in answer if isinstance(record, MX)), key=lambda record: record.preference)
    # A lone "." says that the domain takes no mail (RFC 7505).
    return tuple(name for record in records if (name := record.exchange.to_text(omit_final_dot=True).lower()) != ".")
