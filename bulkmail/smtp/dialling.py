"""Reaching a server: its addresses tried in turn (RFC 8305), a proxy, and the mail exchangers of a domain."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import re
import socket
import time
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import anyio

from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy import dataclass
from bulkmail.model.outcome import Breakage
from bulkmail.model.relay import Relay, Secret
from bulkmail.text import printable

# -- Reaching a relay: its addresses tried in turn (RFC 8305), or a proxy that looks the name up by itself.


MOST_ADDRESSES = 16  # of a host, that are tried to be shown
HEAD_START = 0.25  # seconds for an address before the next one is tried as well

_Address = tuple[int, int, int, Any]  # family, type, protocol, socket address


class DialError(Exception):
    """The server could not be reached.  `str(error)` is a sentence."""

    def __init__(self, kind: Breakage, what: str) -> None:
        super().__init__(what)
        self.kind = kind


async def dial(
    host: str,
    port: int,
    *,
    timeout: float,  # noqa: ASYNC109 - all addresses together
    source: str = "",
) -> socket.socket:
    """A connected, non-blocking socket to the first address that answers, within `timeout` seconds.

    `source` is the IP address of ours to come from; empty leaves that to the system.  Raises `DialError`.
    """
    where = f"{host} port {port}"
    try:
        with anyio.fail_after(timeout):
            return await _race(_reachable(await _addresses(host, port), source, where=where), where, source)
    except TimeoutError:
        raise DialError(Breakage.TIMEOUT, f"{where} did not answer within {timeout:g} s") from None


async def dial_socket(path: str, *, timeout: float) -> socket.socket:  # noqa: ASYNC109 - as `dial`
    """A connected, non-blocking socket to the Unix socket at `path`, within `timeout` seconds.  Raises `DialError`."""
    if not hasattr(socket, "AF_UNIX"):
        raise DialError(Breakage.UNREACHABLE, "this system has no Unix sockets; use a host and a port")
    try:
        with anyio.fail_after(timeout):
            return await _connect((socket.AF_UNIX, socket.SOCK_STREAM, 0, path), "")
    except TimeoutError:
        raise DialError(Breakage.TIMEOUT, f"the socket {path} did not answer within {timeout:g} s") from None
    except FileNotFoundError:
        raise DialError(Breakage.UNREACHABLE, f"there is no socket {path}") from None
    except PermissionError:
        raise DialError(Breakage.UNREACHABLE, f"this user may not connect to the socket {path}") from None
    except ConnectionRefusedError:
        raise DialError(Breakage.REFUSED, f"nothing is listening at the socket {path}") from None
    except OSError as error:
        what = error.strerror or "no reason given"
        raise DialError(Breakage.UNREACHABLE, f"the socket {path} cannot be reached: {what}") from None


async def _addresses(host: str, port: int) -> list[_Address]:
    try:
        found = await look_up(host, port)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise DialError(Breakage.UNREACHABLE, f"the name {host} cannot be looked up at the moment") from None
        raise DialError(Breakage.NO_SUCH_HOST, f"there is no host of the name {host}") from None
    except OSError as error:
        raise _why([error], f"{host} port {port}") from None
    except ValueError:  # a name that no lookup takes: too long a label, a NUL
        raise DialError(Breakage.NO_SUCH_HOST, f"{host!r} is not the name of a host") from None
    # Families in turns, so that a broken IPv6 costs one head start and not one for each of its addresses.
    first = [address for address in found if address[0] == found[0][0]]
    second = [address for address in found if address[0] != found[0][0]]
    turns = itertools.zip_longest(first, second)
    return [(family, kind, protocol, at) for pair in turns for family, kind, protocol, _, at in filter(None, pair)]


def _reachable(addresses: list[_Address], source: str, *, where: str) -> list[_Address]:
    """Those of the family of `source`."""
    if not source:
        return addresses
    family, name = (socket.AF_INET6, "IPv6") if ":" in source else (socket.AF_INET, "IPv4")
    of_family = [address for address in addresses if address[0] == family]
    if not of_family:
        raise DialError(
            Breakage.UNREACHABLE, f"{where} has no {name} address, which alone can be reached from {source}"
        )
    return of_family


async def look_up(host: str, port: int) -> list[tuple[int, int, int, str, Any]]:
    """The system's answer, as `socket.getaddrinfo` gives it."""
    loop = asyncio.get_running_loop()
    return list(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))


async def _race(addresses: Sequence[_Address], where: str, source: str) -> socket.socket:
    winner: list[socket.socket] = []
    errors: list[OSError] = []

    async def attempt(address: _Address, failed: anyio.Event) -> None:
        try:
            connection = await _connect(address, source)
        except OSError as error:
            errors.append(error)
            failed.set()
            return
        if winner:
            connection.close()
            return
        winner.append(connection)
        group.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as group:
            for address in addresses:
                failed = anyio.Event()
                group.start_soon(attempt, address, failed)
                with anyio.move_on_after(HEAD_START):
                    await failed.wait()
    except BaseException:
        for connection in winner:
            connection.close()
        raise
    if winner:
        return winner[0]
    raise _why(errors, where)


async def _connect(address: _Address, source: str) -> socket.socket:
    family, kind, protocol, at = address
    connection = socket.socket(family, kind, protocol)
    try:
        connection.setblocking(False)
        if source:
            _bind(connection, source)
        await asyncio.get_running_loop().sock_connect(connection, at)
    except BaseException:
        connection.close()
        raise
    return connection


def _bind(connection: socket.socket, source: str) -> None:
    # Without it each connection takes a port of its own from all others to this address, and they run out early.
    if hasattr(socket, "IP_BIND_ADDRESS_NO_PORT"):
        connection.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
    try:
        connection.bind((source, 0))
    except OSError as error:
        raise SourceError(error.errno, f"{source} is not an address of this computer to send from") from None


_EXHAUSTED = {errno.EMFILE, errno.ENFILE}


class SourceError(OSError):
    """Not our address."""


def _why(errors: Sequence[OSError], where: str) -> DialError:
    if errors and all(isinstance(error, SourceError) for error in errors):
        return DialError(Breakage.UNREACHABLE, f"{where} cannot be reached: {errors[0].strerror}")
    if any(error.errno in _EXHAUSTED for error in errors):
        return DialError(Breakage.EXHAUSTED, f"no more connections to {where}: this computer allows no more open files")
    if any(isinstance(error, ConnectionRefusedError) for error in errors):
        return DialError(Breakage.REFUSED, f"nothing is listening at {where}")
    if any(isinstance(error, TimeoutError) for error in errors):
        return DialError(Breakage.TIMEOUT, f"{where} does not answer")
    reason = errors[-1].strerror if errors and errors[-1].strerror else "no address"
    return DialError(Breakage.UNREACHABLE, f"{where} cannot be reached: {reason}")


@dataclass(frozen=True, slots=True)
class Tried:
    """One address of a host: how many seconds it took to answer, or `kind` and `error` say why it did not."""

    address: str
    seconds: float = 0.0
    kind: Breakage | None = None
    error: str = ""


async def try_all(host: str, port: int, *, timeout: float, source: str = "") -> list[Tried]:  # noqa: ASYNC109 - each
    """The addresses of `host`, each tried on its own and let go again at once.  Raises `DialError`."""
    try:
        with anyio.fail_after(timeout):
            addresses = (await _addresses(host, port))[:MOST_ADDRESSES]
    except TimeoutError:
        raise DialError(Breakage.UNREACHABLE, f"the name {host} cannot be looked up at the moment") from None
    tried: dict[int, Tried] = {}

    async def attempt(number: int, address: _Address) -> None:
        tried[number] = await _try(address, source, timeout=timeout)

    async with anyio.create_task_group() as group:
        for number, address in enumerate(addresses):
            group.start_soon(attempt, number, address)
    return [tried[number] for number in sorted(tried)]


async def _try(address: _Address, source: str, *, timeout: float) -> Tried:  # noqa: ASYNC109
    name = str(address[3][0])
    begun = time.perf_counter()
    try:
        with anyio.fail_after(timeout):
            (await _connect(address, source)).close()
    except OSError as error:  # TimeoutError is one, ours and the system's
        if isinstance(error, TimeoutError):
            return Tried(name, kind=Breakage.TIMEOUT, error="did not answer")
        kind = Breakage.REFUSED if isinstance(error, ConnectionRefusedError) else Breakage.UNREACHABLE
        # The system's words: the loop's own would name the address once more.
        return Tried(name, kind=kind, error=os.strerror(error.errno).lower() if error.errno else "cannot be reached")
    return Tried(name, seconds=time.perf_counter() - begun)


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


# -- Whose mail exchangers a domain has (RFC 5321 §5.1), asked of DNS once each and never waited for long.


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
                except Exception:  # a resolver may raise anything: a provider is no reason to stop a campaign
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
