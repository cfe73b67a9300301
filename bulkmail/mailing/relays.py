"""The relays of a run: which of them each delivery may go through, and how sessions with them are opened."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from bulkmail.checks.catalog import NO_RELAY
from bulkmail.checks.check_finding import Finding, Severity
from bulkmail.engine.contracts import Connect, Connection
from bulkmail.message.compose.composer import Composer
from bulkmail.model.campaign import Campaign, Keys
from bulkmail.model.errors import AddressError, ConfigError, TemplateError
from bulkmail.model.lazy import dataclass
from bulkmail.model.recipient import Recipient, parse_mailbox
from bulkmail.model.relay import Kind, Relay, Secret, Tls
from bulkmail.model.route import MailboxProvider, MailboxProviders, Route, clashes, serving
from bulkmail.outbox.outbox import Outbox
from bulkmail.settings.presets import known_feedback, known_providers
from bulkmail.settings.secrets import find_key_password, find_proxy_password, find_tokens
from bulkmail.smtp.connection import SmtpConnection as SmtpConnection
from bulkmail.smtp.credentials import Credentials, Tokens
from bulkmail.smtp.dialling import Exchangers
from bulkmail.smtp.opening import Access, make_tls_context
from bulkmail.smtp.peer_policy import PeerPolicy
from bulkmail.smtp.trace import Trace
from bulkmail.text import count

if TYPE_CHECKING:
    from bulkmail.probe.relay_probe import RelayFacts


Serving = dict[int, tuple[int, ...]]
"""Which relays, by number, each queue of the outbox may go through."""


@dataclass(frozen=True, slots=True)
class Sorted:
    """How the deliveries of an outbox are divided; `providers` names the provider of each queue that has but one."""

    serving: Serving
    providers: dict[int, str]


def check_routes(routes: Sequence[Route]) -> None:
    """Raises `ConfigError` for relays that cannot stand beside one another, and for none at all."""
    if not routes:
        raise ConfigError("no relay is given, so there is no way to send", hint="name at least one")
    for clash in clashes(routes):
        first, second = routes[clash.first].label, routes[clash.second].label
        raise ConfigError(f"the relays {first} and {second} {clash.what}", hint=clash.fix)


async def know_tables() -> None:
    """Reads the tables of providers and replies, once: they are files, and the loop does not wait for a disk."""
    await to_thread.run_sync(known_providers)
    await to_thread.run_sync(known_feedback)


def providers_for(routes: Sequence[Route], mailbox_providers: MailboxProviders | None) -> MailboxProviders:
    """The providers as a run through `routes` knows them; a provider's own mail exchanger comes with its presets."""
    mailbox_providers = mailbox_providers or known_providers()
    if len(routes) != 1:
        return mailbox_providers
    relay = routes[0].relay
    return mailbox_providers.for_relay(host=relay.host, port=relay.port)


def sort_into_queues(
    outbox: Outbox, routes: Sequence[Route], mailbox_providers: MailboxProviders, *, keys: Keys
) -> Sorted:
    """Puts all deliveries of one provider that may go through the same relays into a queue of their own.

    A queue without relays holds mail that no relay serves: see `find_unserved()`.  Copies stay
    with their message, in the queue of its recipient.  A rehearsal knows no providers.
    """
    has_routes = any(route.senders or route.recipients for route in routes)
    if not has_routes and routes[0].relay.kind.is_rehearsal:
        if outbox.info.is_routed:  # an earlier run of it had relays of another kind
            outbox.sort_into_queues(lambda path, recipient, reverse_path: 0, reads_rows=False)
            outbox.note(is_routed=False)
        return Sorted({0: tuple(range(len(routes)))}, {})
    outbox.note(is_routed=True)
    has_copies = outbox.campaign is not None and bool(outbox.campaign.to or outbox.campaign.cc or outbox.campaign.bcc)
    numbers: dict[tuple[tuple[int, ...], str], int] = {(tuple(range(len(routes))), ""): 0}
    has_senders = any(route.senders for route in routes)
    sender_of, is_fixed = _senders(outbox, keys) if has_senders else (_no_sender, True)

    @lru_cache(maxsize=65_536)
    def queue(sender: str, domain: str, home: str) -> int:
        served = serving(routes, sender=sender, recipient=domain) if has_routes else tuple(range(len(routes)))
        provider = mailbox_providers.of(home)
        key = served, provider if provider in mailbox_providers.by_name else ""
        return numbers.setdefault(key, len(numbers))

    def queue_of(path: str, recipient: Recipient | None, reverse_path: str) -> int:
        domain = path.rpartition("@")[2]
        home = recipient.address.domain if has_copies and recipient is not None else domain
        return queue(sender_of(recipient, reverse_path), domain, home)

    outbox.sort_into_queues(queue_of, reads_rows=not is_fixed or has_copies)
    return Sorted(
        {number: served for (served, _), number in numbers.items()},
        {number: provider for (_, provider), number in numbers.items() if provider},
    )


def find_unserved(outbox: Outbox, served: Serving) -> list[Finding]:
    """An error when there is mail that no relay takes."""
    found = []
    for queue, numbers in served.items():
        if not numbers and (number := outbox.count_open(queue)):
            jobs = outbox.due(float("inf"), limit=3, excluding=(), queue=queue)
            names = ", ".join(job.delivery.forward_path for job in jobs)
            found.append(
                Finding(
                    NO_RELAY,
                    Severity.ERROR,
                    f"no relay takes the mail of {count(number, 'delivery', 'deliveries')}, for example {names}",
                    fix='add their domains to the recipients (or senders) of a relay, or "*" for all others',
                )
            )
    return found


_SenderOf = Callable[[Recipient | None, str], str]


def _no_sender(recipient: Recipient | None, reverse_path: str) -> str:
    return ""


def _senders(outbox: Outbox, keys: Keys) -> tuple[_SenderOf, bool]:
    """How to find the domain that a message is from, and whether it is the same for all.

    That is the domain of From; for a ready-made message that of its reverse path.
    """
    campaign = outbox.campaign
    if campaign is None:
        return lambda recipient, reverse_path: reverse_path.rpartition("@")[2].lower(), False
    if (fixed := _fixed_sender(campaign)) is not None:
        return lambda recipient, reverse_path: fixed, True
    composer = Composer(campaign, run_id=outbox.run_id, keys=keys)

    def of_row(recipient: Recipient | None, reverse_path: str) -> str:
        try:
            return composer.author(recipient).domain if recipient is not None else ""
        except TemplateError:  # the row becomes invalid when its turn comes
            return ""

    return of_row, False


def _fixed_sender(campaign: Campaign) -> str | None:
    if "{" in campaign.sender.text:
        return None
    try:
        return parse_mailbox(campaign.sender.text)[1].domain
    except AddressError:
        return None


PATIENCE = 60.0  # seconds for all questions together; what is not known then is a queue of its own
MOST_ASKED = 5_000  # domains, those with most recipients


async def ask_exchangers(outbox: Outbox, mailbox_providers: MailboxProviders) -> MailboxProviders:
    """`mailbox_providers`, which also know whose mail exchangers are a provider's, among the domains of `outbox`."""
    return await with_exchangers(mailbox_providers, outbox.domains(MOST_ASKED), Exchangers())


async def with_exchangers(
    mailbox_providers: MailboxProviders, domains: Iterable[str], exchangers: Exchangers
) -> MailboxProviders:
    """`mailbox_providers`, which also know the `domains` whose mail exchangers are a provider's."""
    found: dict[str, set[str]] = {}

    async def look(domain: str) -> None:
        if (name := mailbox_providers.of_exchangers(await exchangers.find(domain))) is not None:
            found.setdefault(name, set()).add(domain)

    with anyio.move_on_after(PATIENCE):
        async with anyio.create_task_group() as group:
            for domain in domains:
                if mailbox_providers.of(domain) not in mailbox_providers.by_name:
                    group.start_soon(look, domain)
    for name, theirs in found.items():
        mailbox_providers = mailbox_providers.with_provider(MailboxProvider(name, domains=frozenset(theirs)))
    return mailbox_providers


log = logging.getLogger("bulkmail.relay")


@asynccontextmanager
async def open_routes(
    routes: Sequence[Route],
    passwords: Sequence[Secret | None],
    *,
    inbox: Path | None,
    notify: Callable[[str], None] = log.warning,
    trace: Trace | None = None,
    tls_contexts: Sequence[ssl.SSLContext | None] = (),
) -> AsyncIterator[list[Connect]]:
    """Opens sessions with all of `routes`, in their order; else as `open_relay()`."""
    async with AsyncExitStack() as stack:
        opened = []
        contexts = tls_contexts or (None,) * len(routes)
        for route, password, context in zip(routes, passwords, contexts, strict=True):
            relay = open_relay(route.relay, password, inbox=inbox, notify=notify, trace=trace, tls_context=context)
            opened.append(await stack.enter_async_context(relay))
        yield opened


@asynccontextmanager
async def open_relay(
    relay: Relay,
    password: Secret | None,
    *,
    inbox: Path | None,
    notify: Callable[[str], None] = log.warning,
    trace: Trace | None = None,
    tls_context: ssl.SSLContext | None = None,
) -> AsyncIterator[Connect]:
    """Opens sessions with `relay` as long as the context lasts.

    `notify` gets what the relay's administrator should know.  `inbox` is where a sandbox keeps its mail unless
    its URL says so; None lets the mail go with the context.  `trace` gets every conversation.  `tls_context`
    takes the place of the one that is made of the relay's settings.  Raises `ConfigError` when the certificates named
    for it cannot be read, `RelayError` when no mail can be kept.
    """
    # The lines of rehearsals are only imported for rehearsals: aiosmtpd is slow to come.
    match relay.kind:
        case Kind.SMTP:
            yield await _sessions(relay, password, notify, trace, tls_context)
        case Kind.SANDBOX:
            from bulkmail.sandbox.server import Sandbox

            kept = Path(relay.directory) if relay.directory else inbox
            with TemporaryDirectory(prefix="bulkmail-") if kept is None else nullcontext(kept) as folder:
                async with Sandbox(Path(folder)) as sandbox:
                    local = replace(
                        relay, kind=Kind.SMTP, host=sandbox.host, port=sandbox.port, tls=Tls.OFF, username=""
                    )
                    yield await _sessions(local, None, notify, trace)
        case Kind.MAILDIR:
            from bulkmail.sandbox.lines import MaildirLine

            folder = Path(relay.directory)
            MaildirLine(folder)  # makes the folder, or says here that it cannot

            async def open_maildir() -> Connection:
                return MaildirLine(folder)

            yield open_maildir
        case Kind.NULL:
            from bulkmail.sandbox.lines import NullLine

            async def open_null() -> Connection:
                return NullLine()

            yield open_null


async def _sessions(
    relay: Relay,
    password: Secret | None,
    notify: Callable[[str], None],
    trace: Trace | None,
    tls_context: ssl.SSLContext | None = None,
) -> Connect:
    context = tls_context
    if context is None:
        key_password = await to_thread.run_sync(find_key_password, relay)
        context = await to_thread.run_sync(make_tls_context, relay, key_password)
    credentials = await credentials_for(relay, password)
    proxy_password = await to_thread.run_sync(find_proxy_password, relay)
    access = Access(relay, credentials, context, proxy_password, trace=trace)
    policy = PeerPolicy(depth=relay.depth, notify=notify)

    async def open_session() -> Connection:
        return await SmtpConnection.open(access, policy)

    return open_session


async def credentials_for(relay: Relay, password: Secret | None) -> Credentials | None:
    """Who we are to `relay`: by token where it says so, or by `password`.  Raises `ConfigError`."""
    if (fetch := await to_thread.run_sync(find_tokens, relay)) is not None:
        return Credentials(relay.username, tokens=Tokens(fetch))
    return Credentials(relay.username, password) if relay.username and password else None


async def look_at_relay(relay: Relay, password: Secret | None) -> RelayFacts:
    """What `relay`, an SMTP one, is like, found out without sending anything.  Raises `ConfigError`."""
    from bulkmail.probe.relay_probe import look_at
    from bulkmail.settings.presets import known_feedback

    return await look_at(
        relay,
        await credentials_for(relay, password),
        feedback=await to_thread.run_sync(known_feedback),
        key_password=await to_thread.run_sync(find_key_password, relay),
        proxy_password=await to_thread.run_sync(find_proxy_password, relay),
    )
