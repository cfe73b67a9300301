from __future__ import annotations

import asyncio
import errno
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest

from bulkmail.model.outcome import Breakage
from bulkmail.smtp import dialling
from bulkmail.smtp.dialling import DialError, dial

Dial = Callable[[tuple[str, int]], Any]

STREAM = (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")


class Network:
    """Addresses that answer as told: with an error, after some seconds, or never."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.behaviours: dict[str, float | OSError] = {}
        self.tried: list[str] = []
        self.closed: list[str] = []
        monkeypatch.setattr(dialling, "look_up", self._look_up)
        monkeypatch.setattr(dialling, "_connect", self._connect)
        monkeypatch.setattr(dialling, "HEAD_START", 0.05)

    async def _look_up(self, host: str, port: int) -> list[Any]:
        return [(socket.AF_INET6 if ":" in name else socket.AF_INET, *STREAM, (name, port)) for name in self.behaviours]

    async def _connect(self, address: Any, source: str) -> Any:
        name = address[3][0]
        self.tried.append(name)
        behaviour = self.behaviours[name]
        if isinstance(behaviour, OSError):
            raise behaviour
        await asyncio.sleep(behaviour)
        return FakeConnection(name, self.closed)


class FakeConnection:
    def __init__(self, name: str, closed: list[str]) -> None:
        self.name = name
        self._closed = closed

    def close(self) -> None:
        self._closed.append(self.name)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    return Network(monkeypatch)


NEVER = 60.0


@pytest.mark.parametrize(
    ("behaviours", "winner", "tried"),
    [
        pytest.param({"::1": 0.0, "10.0.0.1": 0.0}, "::1", ["::1"], id="first answers"),
        pytest.param(
            {"::1": ConnectionRefusedError(), "10.0.0.1": 0.0}, "10.0.0.1", ["::1", "10.0.0.1"], id="first refuses"
        ),
        pytest.param({"::1": NEVER, "10.0.0.1": 0.0}, "10.0.0.1", ["::1", "10.0.0.1"], id="first is silent"),
        pytest.param({"::1": 0.1, "10.0.0.1": NEVER}, "::1", ["::1", "10.0.0.1"], id="first is slow"),
        pytest.param(
            {"::1": NEVER, "::2": NEVER, "10.0.0.1": 0.0}, "10.0.0.1", ["::1", "10.0.0.1"], id="families take turns"
        ),
    ],
)
async def test_dial_finds_the_address_that_answers(
    network: Network, behaviours: dict[str, float | OSError], winner: str, tried: list[str]
) -> None:
    network.behaviours = behaviours
    connection: Any = await dial("mail.example.com", 25, timeout=3600)  # one that is silent is not waited for
    assert connection.name == winner
    assert network.tried == tried
    assert winner not in network.closed


@pytest.mark.parametrize(
    ("errors", "kind", "words"),
    [
        pytest.param([ConnectionRefusedError()], Breakage.REFUSED, "nothing is listening at", id="refused"),
        pytest.param(
            [OSError(errno.ENETUNREACH, "Network is unreachable"), ConnectionRefusedError()],
            Breakage.REFUSED,
            "nothing is listening at",
            id="unreachable and refused",
        ),
        pytest.param([TimeoutError()], Breakage.TIMEOUT, "does not answer", id="timed out by the kernel"),
        pytest.param(
            [OSError(errno.EHOSTUNREACH, "No route to host")], Breakage.UNREACHABLE, "No route to host", id="no route"
        ),
        pytest.param([OSError("strange")], Breakage.UNREACHABLE, "cannot be reached", id="without a number"),
    ],
)
async def test_dial_says_why_no_one_answers(
    network: Network, errors: list[OSError], kind: Breakage, words: str
) -> None:
    network.behaviours = {f"10.0.0.{number}": error for number, error in enumerate(errors)}
    with pytest.raises(DialError) as caught:
        await dial("mail.example.com", 25, timeout=5)
    assert caught.value.kind is kind
    assert "mail.example.com port 25" in str(caught.value)
    assert words in str(caught.value)


async def test_dial_gives_up_in_time(network: Network) -> None:
    network.behaviours = {"10.0.0.1": NEVER, "10.0.0.2": NEVER}
    with pytest.raises(DialError) as caught:
        await dial("mail.example.com", 25, timeout=0.2)
    assert caught.value.kind is Breakage.TIMEOUT
    assert str(caught.value) == "mail.example.com port 25 did not answer within 0.2 s"


async def test_two_that_answer_at_once_leave_one_connection(network: Network) -> None:
    network.behaviours = {"::1": 0.05, "10.0.0.1": 0.0}
    connection: Any = await dial("mail.example.com", 25, timeout=5)
    assert {connection.name, *network.closed} <= {"::1", "10.0.0.1"}
    assert connection.name not in network.closed


async def test_cancelled_dial_is_quiet(network: Network) -> None:
    network.behaviours = {"10.0.0.1": NEVER}
    task = asyncio.create_task(dial("mail.example.com", 25, timeout=5))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_dial_connects_for_real() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with await dial("localhost", port, timeout=5) as connection:
            assert connection.getpeername()[1] == port
            assert connection.getblocking() is False


# Where we come from


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only 127.0.0.1 is this computer's")
async def test_connection_comes_from_the_address_that_was_chosen() -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        connection = await dial("localhost", port, timeout=5, source="127.0.0.2")
        with connection:
            assert connection.getsockname()[0] == "127.0.0.2"
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("192.0.2.7", "192.0.2.7 is not an address of this computer to send from"),
        ("2001:db8::7", "has no IPv6 address, which alone can be reached from 2001:db8::7"),
    ],
)
async def test_address_that_cannot_be_come_from_is_named(source: str, words: str) -> None:
    with pytest.raises(DialError, match=words) as caught:
        await dial("127.0.0.1", 9, timeout=5, source=source)
    assert caught.value.kind is Breakage.UNREACHABLE
