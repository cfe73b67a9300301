"""Whether a port begins with TLS or goes over to it later, and what to write when it was spoken to in the other way."""

from __future__ import annotations

import asyncio
import ssl

from bulkmail.model.relay import Relay, Secret, Tls
from bulkmail.smtp.dialling import DialError
from bulkmail.smtp.proxying import reach


def relay_url(relay: Relay, port: int, *, is_implicit: bool = False) -> str:
    """The URL of `relay` at another port, with TLS from the first byte or without."""
    host = f"[{relay.host}]" if ":" in relay.host else relay.host
    user = f"{relay.username}@" if relay.username else ""
    return f"{'smtps' if is_implicit else 'smtp'}://{user}{host}:{port}"


def wrong_mode(relay: Relay) -> tuple[str, str]:
    """What is wrong when the port of `relay` speaks in the other way, and the fix."""
    if relay.tls is Tls.IMPLICIT:
        return (
            f"{relay.place} begins without TLS, and was spoken to with TLS from the first byte",
            f"write {relay_url(relay, relay.port)}, which goes over to TLS before anything is said",
        )
    return (
        f"{relay.place} speaks TLS from the first byte, and was spoken to without",
        f"write {relay_url(relay, relay.port, is_implicit=True)}",
    )


def trusting() -> ssl.SSLContext:
    """A context that believes any certificate: for looking at one, never for saying anything."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def speaks_tls(relay: Relay, proxy_password: Secret | None, *, timeout: float) -> bool:  # noqa: ASYNC109
    """Whether another connection to `relay` can be opened with TLS from the first byte, anyone who vouches for it."""
    try:
        async with asyncio.timeout(timeout):
            connection = await reach(relay, proxy_password, timeout=timeout)
            transport, _ = await asyncio.get_running_loop().create_connection(
                asyncio.Protocol, sock=connection, ssl=trusting(), server_hostname=relay.host
            )
    except (DialError, OSError, TimeoutError):  # SSLError is an OSError
        return False
    transport.abort()
    return True
