"""Reaching a relay, straight or through a SOCKS5 proxy, which looks the name up by itself (RFC 1928).

HTTP CONNECT is left out: libraries take the server's greeting for a part of the proxy's answer, and drop it.
"""

from __future__ import annotations

import socket
from urllib.parse import unquote, urlsplit

from bulkmail.model.errors import ConfigError
from bulkmail.model.relay import Relay, Secret
from bulkmail.model.reply import Breakage, printable
from bulkmail.smtp.dialling import DialError, dial, dial_socket


async def reach(relay: Relay, proxy_password: Secret | None, *, timeout: float) -> socket.socket:  # noqa: ASYNC109
    """A connected, non-blocking socket to the relay, through its proxy if it has one, within `timeout` seconds.

    Raises `DialError`, and `ConfigError` where the extra that knows proxies is not installed.
    """
    if relay.socket_path:
        return await dial_socket(relay.socket_path, timeout=timeout)
    if relay.proxy:
        return await _through_proxy(relay, proxy_password, timeout=timeout)
    return await dial(relay.host, relay.port, timeout=timeout, source=relay.source_address)


async def _through_proxy(relay: Relay, password: Secret | None, *, timeout: float) -> socket.socket:  # noqa: ASYNC109
    try:
        from python_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError, ProxyType
        from python_socks.async_.asyncio import Proxy
    except ImportError:
        raise ConfigError(
            "proxy needs the python-socks package, which is not installed", hint="type: pip install 'bulkmail[proxy]'"
        ) from None
    parts = urlsplit(relay.proxy)
    place = f"the proxy {parts.hostname} port {parts.port}"
    proxy = Proxy(
        ProxyType.SOCKS5,
        parts.hostname or "",
        parts.port or 0,
        username=unquote(parts.username) if parts.username else None,
        password=password.reveal() if password else None,
        rdns=True,
    )
    source = {"local_addr": (relay.source_address, 0)} if relay.source_address else {}
    try:
        return await proxy.connect(relay.host, relay.port, timeout=timeout, **source)
    except ProxyTimeoutError:
        what = f"{place} did not reach {relay.host} port {relay.port} within {timeout:g} s"
        raise DialError(Breakage.TIMEOUT, what) from None
    except ProxyConnectionError:
        raise DialError(Breakage.REFUSED, f"{place} cannot be reached") from None
    except ProxyError as error:
        words = printable(str(error), 100)
        if password is not None:
            words = words.replace(password.reveal(), "***")
        what = f"{place} does not connect us to {relay.host} port {relay.port}: {words}"
        raise DialError(Breakage.UNREACHABLE, what) from None
    except OSError as error:
        raise DialError(Breakage.UNREACHABLE, f"{place} cannot be reached: {error.strerror or 'no reason'}") from None
