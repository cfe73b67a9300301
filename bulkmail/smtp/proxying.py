"""Reaching a relay, straight or through a proxy, which looks the name up by itself: SOCKS5 (RFC 1928), HTTP CONNECT."""

from __future__ import annotations

import asyncio
import re
import socket
from base64 import b64encode
from urllib.parse import unquote, urlsplit

import anyio

from bulkmail.model.errors import ConfigError
from bulkmail.model.relay import Relay, Secret
from bulkmail.model.reply import Breakage
from bulkmail.smtp.dialling import DialError, dial, dial_socket
from bulkmail.text import printable

_LONGEST_ANSWER = 4_096  # bytes
_BEGINNING = b"HTTP/1."
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: ([^\r\n]*))?\r?\n")
_WANTS_LOGIN = b"407"


async def reach(relay: Relay, proxy_password: Secret | None, *, timeout: float) -> socket.socket:  # noqa: ASYNC109
    """A connected, non-blocking socket to the relay, through its proxy if it has one, within `timeout` seconds.

    Raises `DialError`, and `ConfigError` where the extra that knows proxies is not installed.
    """
    if relay.socket_path:
        return await dial_socket(relay.socket_path, timeout=timeout)
    if relay.proxy.startswith("http:"):
        return await _by_connect(relay, proxy_password, timeout=timeout)
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


async def _by_connect(relay: Relay, password: Secret | None, *, timeout: float) -> socket.socket:  # noqa: ASYNC109
    """Through a proxy that takes CONNECT (RFC 9110 §9.3.6)."""
    parts = urlsplit(relay.proxy)
    place = f"the proxy {parts.hostname} port {parts.port}"
    connection: socket.socket | None = None
    try:
        with anyio.fail_after(timeout):
            try:
                connection = await dial(
                    parts.hostname or "", parts.port or 0, timeout=timeout, source=relay.source_address
                )
            except DialError as error:
                kind = Breakage.TIMEOUT if error.kind is Breakage.TIMEOUT else Breakage.REFUSED
                raise DialError(kind, f"{place} cannot be reached") from None
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(connection, _connect_request(relay, unquote(parts.username or ""), password))
            _check_answer(await _answer(connection, place), relay, place=place, password=password)
            return connection
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, TimeoutError):
            what = f"{place} did not reach {relay.host} port {relay.port} within {timeout:g} s"
            raise DialError(Breakage.TIMEOUT, what) from None
        if isinstance(error, OSError):
            what = f"{place} ended the connection: {error.strerror or 'no reason'}"
            raise DialError(Breakage.UNREACHABLE, what) from None
        raise


def _connect_request(relay: Relay, username: str, password: Secret | None) -> bytes:
    target = f"[{relay.host}]:{relay.port}" if ":" in relay.host else f"{relay.host}:{relay.port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if username:
        lines.append(f"Proxy-Authorization: Basic {_login(username, password)}")
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("ascii")


def _login(username: str, password: Secret | None) -> str:
    return b64encode(f"{username}:{password.reveal() if password else ''}".encode()).decode("ascii")


async def _answer(connection: socket.socket, place: str) -> bytes:
    """The header of the proxy's answer, and no byte more: the relay's greeting may follow in the same packet."""
    loop = asyncio.get_running_loop()
    answer = bytearray()
    while not answer.endswith((b"\r\n\r\n", b"\n\n")):
        byte = await loop.sock_recv(connection, 1)
        answer += byte
        if not byte or len(answer) > _LONGEST_ANSWER or not answer.startswith(_BEGINNING[: len(answer)]):
            raise DialError(Breakage.UNREACHABLE, f"{place} does not answer as an HTTP proxy does")
    return bytes(answer)


def _check_answer(answer: bytes, relay: Relay, *, place: str, password: Secret | None) -> None:
    """Raises `DialError` unless the connection is made."""
    found = _STATUS.match(answer)
    if not found:
        raise DialError(Breakage.UNREACHABLE, f"{place} does not answer as an HTTP proxy does")
    if found[1].startswith(b"2"):
        return
    if found[1] == _WANTS_LOGIN:
        what = "does not take this password" if password else "wants a login"
        raise DialError(Breakage.UNREACHABLE, f"{place} {what} (407)")
    words = printable(found[0].decode("ascii", "replace").strip(), 100)
    if password is not None:
        login = _login(unquote(urlsplit(relay.proxy).username or ""), password)
        words = words.replace(login, "***").replace(password.reveal(), "***")
    what = f"{place} does not connect us to {relay.host} port {relay.port}: {words}"
    raise DialError(Breakage.UNREACHABLE, what)
