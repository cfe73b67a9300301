"""Going through a proxy, SOCKS5 or HTTP CONNECT: what it is asked for, how it fails, and what it never makes safe."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bulkmail.model.errors import ConfigError
from bulkmail.model.outcome import Breakage, Fault, Stage
from bulkmail.model.relay import Kind, Relay, Secret, Tls
from bulkmail.smtp.credentials import Credentials
from bulkmail.smtp.opening import Timeouts
from bulkmail.smtp.replies import SessionRefused
from bulkmail.testing import ScriptedRelay
from tests.connections import Single

HOST = "relay.invalid"  # known to the proxy alone


class Proxy:
    """A SOCKS5 server (RFC 1928, RFC 1929) that connects to `port` on loopback, whatever name it is asked for."""

    scheme = "socks5"

    def __init__(
        self, *, port: int, login: tuple[str, str] | None = None, refusal: int = 0, hangs: bool = False
    ) -> None:
        self.asked: list[tuple[str, int]] = []
        self.port = 0
        self._target = port
        self._login = login
        self._refusal = refusal
        self._hangs = hangs

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await asyncio.sleep(0.02)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._talk(reader, writer)
        writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        version, count = await reader.readexactly(2)
        assert version == 5
        methods = await reader.readexactly(count)
        if self._hangs:
            await reader.read()
        if self._login:
            if 2 not in methods:
                writer.write(b"\5\xff")
                return
            writer.write(b"\5\2")
            _, size = await reader.readexactly(2)
            user = (await reader.readexactly(size)).decode()
            password = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
            writer.write(b"\1\0" if (user, password) == self._login else b"\1\1")
        else:
            writer.write(b"\5\0")
        _, _, _, kind = await reader.readexactly(4)
        assert kind == 3  # a name, not an address
        name = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        self.asked.append((name, int.from_bytes(await reader.readexactly(2), "big")))
        if self._refusal:
            writer.write(bytes((5, self._refusal, 0, 1)) + bytes(6))
            return
        await self._hand_on(b"\5\0\0\1" + bytes(6), reader, writer)

    async def _hand_on(self, answer: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        greeting = await there_reader.read(4096)
        writer.write(answer + greeting)  # in one piece: nothing of it may be lost
        await asyncio.gather(self._pump(reader, there_writer), self._pump(there_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(4096):
                writer.write(data)
        writer.close()


class HttpProxy(Proxy):
    """An HTTP proxy that takes CONNECT; a `refusal` is its status, `hangs` is as of `Proxy`."""

    scheme = "http"

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        if self._hangs:
            await reader.read()
        if self._login:
            given = base64.b64encode(":".join(self._login).encode()).decode()
            if f"Proxy-Authorization: Basic {given}\r\n" not in request:
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
        host, port = request.split()[1].rsplit(":", 1)
        self.asked.append((host, int(port)))
        if self._refusal:
            writer.write(f"HTTP/1.1 {self._refusal} Forbidden hunter2\r\n\r\n".encode())
            return
        await self._hand_on(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 x\r\n\r\n", reader, writer)


both = pytest.mark.parametrize("kind", [Proxy, HttpProxy], ids=["socks5", "http"])


def through(proxy: Proxy, **more: object) -> Relay:
    user = "ann@" if proxy._login else ""
    return Relay(
        Kind.SMTP,
        host=HOST,
        port=2525,
        tls=Tls.OFF,
        proxy=f"{proxy.scheme}://{user}127.0.0.1:{proxy.port}",
        **more,  # type: ignore[arg-type]
    )


async def refused(relay: Relay, who: Credentials | None = None, *, password: Secret | None = None) -> Fault:
    with pytest.raises(SessionRefused) as caught:
        await Single.to(relay, who, tls_context=None, proxy_password=password, timeouts=Timeouts(connect=0.5))
    assert isinstance(caught.value.event, Fault)
    assert "hunter" not in caught.value.event.what
    return caught.value.event


@both
@pytest.mark.parametrize("login", [None, ("ann", "hunter2")])
async def test_session_goes_through_the_proxy(kind: type[Proxy], login: tuple[str, str] | None) -> None:
    password = Secret(login[1]) if login else None
    async with ScriptedRelay() as relay, kind(port=relay.port, login=login).running() as proxy:
        session = await Single.to(through(proxy), None, tls_context=None, proxy_password=password)
        assert session.usable
        await session.quit()
        assert proxy.asked == [(HOST, 2525)]
        assert relay.sessions == 1


async def test_wrong_password_at_the_proxy_is_said() -> None:
    async with Proxy(port=9, login=("ann", "hunter2")).running() as proxy:
        event = await refused(through(proxy), password=Secret("hunter3"))
    assert (event.stage, event.kind) == (Stage.CONNECT, Breakage.UNREACHABLE)
    assert f"the proxy 127.0.0.1 port {proxy.port} does not connect us to {HOST} port 2525" in event.what


async def test_relay_that_the_proxy_does_not_reach_is_named() -> None:
    async with Proxy(port=9, refusal=5).running() as proxy:
        event = await refused(through(proxy))
    assert event.kind is Breakage.UNREACHABLE
    assert "does not connect us" in event.what


@pytest.mark.parametrize(
    ("login", "refusal", "password", "said"),
    [
        (("ann", "hunter2"), 0, "hunter3", "does not take this password (407)"),
        (None, 403, None, f"does not connect us to {HOST} port 2525: HTTP/1.1 403 Forbidden"),
        (("ann", "hunter2"), 502, "hunter2", "HTTP/1.1 502 Forbidden ***"),
    ],
)
async def test_http_proxy_that_refuses_is_quoted_without_the_password(
    login: tuple[str, str] | None, refusal: int, password: str | None, said: str
) -> None:
    async with HttpProxy(port=9, login=login, refusal=refusal).running() as proxy:
        relay, secret = through(proxy), Secret(password) if password else None
        with pytest.raises(SessionRefused) as caught:
            await Single.to(relay, None, tls_context=None, proxy_password=secret)
    assert isinstance(caught.value.event, Fault)
    assert caught.value.event.kind is Breakage.UNREACHABLE
    assert said in caught.value.event.what


@pytest.mark.parametrize("answer", [b"220 mail.example ESMTP\r\n\r\n", b"", b"x" * 20_000, b"HTTP/2 200\r\n\r\n"])
async def test_server_that_is_no_http_proxy_is_named(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    event = await refused(Relay(Kind.SMTP, host=HOST, port=25, tls=Tls.OFF, proxy=f"http://127.0.0.1:{port}"))
    server.close()
    assert event.what == f"the proxy 127.0.0.1 port {port} does not answer as an HTTP proxy does"


@both
async def test_proxy_that_is_silent_is_not_waited_for(kind: type[Proxy]) -> None:
    async with kind(port=9, hangs=True).running() as proxy:
        event = await refused(through(proxy))
    assert event.kind is Breakage.TIMEOUT


@both
async def test_proxy_that_is_not_there_is_named(kind: type[Proxy]) -> None:
    async with kind(port=9).running() as proxy:
        relay = through(proxy)
    event = await refused(relay)
    assert event == Fault(Stage.CONNECT, Breakage.REFUSED, f"the proxy 127.0.0.1 port {proxy.port} cannot be reached")


async def test_proxy_on_this_machine_makes_clear_text_no_safer() -> None:
    """The relay behind it is not on loopback, whatever the address that we are connected to."""
    async with (
        ScriptedRelay(auth={"ann": "hunter2"}) as relay,
        Proxy(port=relay.port).running() as proxy,
    ):
        who = Credentials("ann", Secret("hunter2"))
        event = await refused(through(proxy, username="ann", plaintext_login=True), who)
        assert event.kind is Breakage.NO_LOGIN
        assert relay.auth_attempts == 0


async def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_socks", None)
    with pytest.raises(ConfigError, match="needs the python-socks package") as caught:
        await Single.to(
            Relay(Kind.SMTP, host=HOST, port=25, proxy="socks5://127.0.0.1:9", tls=Tls.OFF), None, tls_context=None
        )
    assert "bulkmail[proxy]" in caught.value.hint
