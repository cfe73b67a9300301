"""From a relay to a way of opening sessions with it, whatever kind it is."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from anyio import to_thread

from bulkmail.engine.contracts import Connect, Connection
from bulkmail.model.relay import Kind, Relay, Secret, Tls
from bulkmail.model.route import Route
from bulkmail.settings.secrets import find_key_password, find_proxy_password, find_tokens
from bulkmail.smtp.connection import Connection as SmtpConnection
from bulkmail.smtp.credentials import Credentials, Tokens
from bulkmail.smtp.opening import Access
from bulkmail.smtp.peer_policy import PeerPolicy
from bulkmail.smtp.tls import make_tls_context
from bulkmail.smtp.trace import Trace

if TYPE_CHECKING:
    from bulkmail.probe.relay_probe import RelayFacts

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
