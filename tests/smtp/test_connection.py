"""What only shows where loop, socket and clock meet: replies behind a failed write, descriptors, the one timer."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import cast

import pytest

from bulkmail.model.delivery import Message
from bulkmail.model.outcome import Breakage, Fault, Outcome, Reply, Stage
from bulkmail.model.relay import Relay
from bulkmail.model.verdict import judge
from bulkmail.smtp.connection import SmtpConnection
from bulkmail.smtp.opening import Timeouts
from bulkmail.smtp.peer_policy import PeerPolicy, Terms
from bulkmail.smtp.protocol import Protocol
from bulkmail.smtp.replies import Capabilities
from bulkmail.smtp.transaction import Transfer
from bulkmail.testing import Hang, ScriptedRelay, Split
from tests.connections import Single

MakeMessage = Callable[..., Message]
SessionTo = Callable[..., AbstractAsyncContextManager[Single]]
Done = Callable[[BaseException | None], None]


class AbruptServer:
    """Takes one message in a thread of its own; says `last_words` after the body, and resets the connection."""

    def __init__(self, last_words: bytes) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.has_read_body = threading.Event()
        self.may_reset = threading.Event()
        self.has_reset = threading.Event()
        self.last_words = last_words
        self.thread = threading.Thread(target=self.talk)

    def talk(self) -> None:
        connection, _ = self.listener.accept()
        with connection, connection.makefile("rwb") as stream:
            self.say(stream, b"220 hello\r\n")
            for answer in (b"250 hello\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go on\r\n"):
                stream.readline()
                self.say(stream, answer)
            while stream.readline() != b"last line\r\n":
                pass
            self.has_read_body.set()
            self.may_reset.wait(5)
            self.say(stream, self.last_words)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.has_reset.set()

    @staticmethod
    def say(stream: io.BufferedIOBase, words: bytes) -> None:
        stream.write(words)
        stream.flush()


@contextmanager
def abrupt_server(last_words: bytes) -> Iterator[AbruptServer]:
    server = AbruptServer(last_words)
    server.thread.start()
    try:
        yield server
    finally:
        server.may_reset.set()
        server.thread.join(5)
        server.listener.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows drops what was received when a connection is reset")
@pytest.mark.parametrize(
    ("last_words", "expected"),
    [
        pytest.param(b"421 4.3.2 closing\r\n", Reply(Stage.END, 421, "4.3.2", "closing"), id="421"),
        pytest.param(b"552 5.3.4 too big\r\n", Reply(Stage.END, 552, "5.3.4", "too big"), id="552"),
        pytest.param(
            b"",
            Fault(
                Stage.END,
                Breakage.LOST,
                "127.0.0.1 closed the connection before it answered the end of the message",
            ),
            id="silence",
        ),
    ],
)
async def test_words_behind_a_failed_write_are_read(
    make_message: MakeMessage, last_words: bytes, expected: Reply | Fault
) -> None:
    asked: list[Done] = []
    with abrupt_server(last_words) as server:
        session = await Single.to(Relay.parse(f"smtp://127.0.0.1:{server.port}?tls=off"), None, tls_context=None)
        task = asyncio.create_task(session.transact(make_message(b"first line\r\nlast line\r\n"), asked.append))
        assert await asyncio.to_thread(server.has_read_body.wait, 5)
        # From here to the write the loop has no chance to read.
        server.may_reset.set()
        assert server.has_reset.wait(5)
        asked[0](None)
        assert await task == expected
        assert not session.usable


async def test_without_a_second_descriptor_the_loss_is_in_doubt(
    make_message: MakeMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_descriptors_left(descriptor: int) -> int:
        raise OSError("too many open files")

    monkeypatch.setattr(os, "dup", no_descriptors_left)
    asked: list[Done] = []
    with abrupt_server(b"421 4.3.2 closing\r\n") as server:
        session = await Single.to(Relay.parse(f"smtp://127.0.0.1:{server.port}?tls=off"), None, tls_context=None)
        task = asyncio.create_task(session.transact(make_message(b"first line\r\nlast line\r\n"), asked.append))
        assert await asyncio.to_thread(server.has_read_body.wait, 5)
        server.may_reset.set()
        assert server.has_reset.wait(5)
        asked[0](None)
        event = await task
    assert judge(event).outcome is Outcome.IN_DOUBT


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors by /proc")
@pytest.mark.parametrize("ending", ["quit", "abort", "drop"])
async def test_sessions_leave_no_descriptor(make_message: MakeMessage, ending: str) -> None:
    async with ScriptedRelay() as relay:
        where = Relay.parse(f"smtp://{relay.host}:{relay.port}?tls=off")
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            session = await Single.to(where, None, tls_context=None)
            await session.transact(make_message(), lambda done: done(None))
            if ending == "quit":
                await session.quit()
            elif ending == "abort":
                session.abort()
        if ending == "drop":
            await relay.stop()
        await asyncio.sleep(0.05)
        assert len(os.listdir("/proc/self/fd")) <= before


async def test_one_timer_for_many_messages(
    make_message: MakeMessage, session_to: SessionTo, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    async with ScriptedRelay() as relay, session_to(relay) as session:
        wound: list[float] = []
        call_at = loop.call_at

        class Loop:
            """The session's own loop, with an eye on its timers."""

            time = staticmethod(loop.time)

            @staticmethod
            def call_at(when: float, call: Callable[[], None]) -> asyncio.TimerHandle:
                wound.append(when)
                return call_at(when, call)

        monkeypatch.setattr(session._patience, "_loop", Loop)  # the begin of a message still needs a future
        monkeypatch.setattr(Loop, "create_future", staticmethod(loop.create_future), raising=False)
        for _ in range(20):
            await session.transact(make_message(), lambda done: done(None))
        assert len(wound) == 1


async def test_timer_rings_in_time_after_a_quick_stage(make_message: MakeMessage, session_to: SessionTo) -> None:
    """The timer is wound for the shortest patience; a longer one is waited for to its end, and no longer."""
    async with (
        ScriptedRelay(end=Hang()) as relay,
        session_to(relay, mail=0.05, rcpt=0.05, data=0.05, block=0.05, end=0.3) as session,
    ):
        started = asyncio.get_running_loop().time()
        event = await session.transact(make_message(), lambda done: done(None))
        assert isinstance(event, Fault)
        assert (event.stage, event.kind) == (Stage.END, Breakage.TIMEOUT)
        assert asyncio.get_running_loop().time() - started >= 0.29


class NarrowTransport(asyncio.Transport):
    """Takes one piece, then pauses until the test resumes."""

    def __init__(self) -> None:
        super().__init__()
        self.line: SmtpConnection | None = None
        self.written: list[bytes] = []
        self.is_gone = False
        self.is_closed_politely = False
        self.limits: tuple[int | None, int | None] = (None, None)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.line = cast(SmtpConnection, protocol)

    def get_extra_info(self, name: str, default: object = None) -> object:
        return "over TLS" if name == "ssl_object" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limits = (high, low)

    def is_closing(self) -> bool:
        return self.is_gone

    def abort(self) -> None:
        self.is_gone = True

    def close(self) -> None:
        self.is_gone = self.is_closed_politely = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert self.line is not None
        self.written.append(bytes(data))
        if len(data) > 1_000:
            self.line.pause_writing()

    def answer(self, words: bytes) -> None:
        assert self.line is not None
        self.line.data_received(words)

    def resume(self) -> None:
        assert self.line is not None
        self.line.resume_writing()


def protocol() -> Protocol:
    return Protocol(Terms(Capabilities()), PeerPolicy(), peer="relay")


async def begun(line: SmtpConnection, message: Message) -> asyncio.Future[Reply | Fault]:
    """Has `line` carry this message, whose mark is granted at once, and says what it will have come to."""
    decided: asyncio.Future[Reply | Fault] = asyncio.get_running_loop().create_future()
    waiting = iter((Transfer(message, lambda done: done(None), decided.set_result),))
    carrying = asyncio.ensure_future(line.carry(lambda: next(waiting, None)))
    decided.add_done_callback(lambda _: carrying.cancelled())  # keeps the task
    await asyncio.sleep(0)
    return decided


async def test_end_of_input_is_judged_before_anything_is_flushed(make_message: MakeMessage) -> None:
    transport = NarrowTransport()
    line = SmtpConnection(transport, protocol(), timeouts=Timeouts())
    decided = await begun(line, make_message(b"x" * 2_000 + b"\r\n"))
    for words in (b"250 ok\r\n", b"250 ok\r\n", b"354 go on\r\n"):
        transport.answer(words)
    line.eof_received()
    assert transport.is_gone
    transport.resume()
    assert transport.written[-1] != b".\r\n"
    event = await decided
    assert isinstance(event, Fault)
    assert (event.stage, event.kind) == (Stage.BODY, Breakage.LOST)


async def test_tls_is_closed_in_good_manners_after_quit() -> None:
    transport = NarrowTransport()
    line = SmtpConnection(transport, protocol(), timeouts=Timeouts())
    leaving = asyncio.create_task(line.quit())
    await asyncio.sleep(0)
    assert transport.written == [b"QUIT\r\n"]
    transport.answer(b"221 bye\r\n")
    assert transport.is_closed_politely
    line.connection_lost(None)
    await leaving


async def test_any_byte_in_the_buffers_pauses(session_to: SessionTo) -> None:
    over_tls = NarrowTransport()
    SmtpConnection(over_tls, protocol(), timeouts=Timeouts()).abort()
    assert over_tls.limits == (1, 0)  # TLS transports pause at the limit, plain ones above it
    async with ScriptedRelay() as relay, session_to(relay) as session:
        assert session._transport.get_write_buffer_limits() == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("stalls", [False, True], ids=["goes on", "stalls"])
async def test_patience_in_the_body_is_for_a_piece(make_message: MakeMessage, stalls: bool) -> None:
    transport = NarrowTransport()
    line = SmtpConnection(transport, protocol(), timeouts=Timeouts(block=0.3))
    decided = await begun(line, make_message((b"x" * 76 + b"\r\n") * 8_000))
    for words in (b"250 ok\r\n", b"250 ok\r\n", b"354 go on\r\n"):
        transport.answer(words)
    for _ in range(6):
        await asyncio.sleep(0.1)
        assert not decided.done()
        assert transport.written[-1] != b".\r\n"
        transport.resume()
    if stalls:
        event = await decided
        assert isinstance(event, Fault)
        assert (event.stage, event.kind) == (Stage.BODY, Breakage.TIMEOUT)
        assert transport.is_gone
        return
    while transport.written[-1] != b".\r\n":
        transport.resume()
    transport.answer(b"250 2.0.0 queued\r\n")
    assert await decided == Reply(Stage.END, 250, "2.0.0", "queued")
    line.abort()


@pytest.mark.slow
async def test_every_byte_of_a_reply_renews_patience(make_message: MakeMessage, session_to: SessionTo) -> None:
    answer = Split("250 2.1.0 " + "x" * 300)
    async with ScriptedRelay(mail=answer) as relay, session_to(relay, mail=0.25) as session:
        started = asyncio.get_running_loop().time()
        event = await session.transact(make_message(), lambda done: done(None))
        assert isinstance(event, Reply)
        assert event.is_positive
        assert asyncio.get_running_loop().time() - started > 0.3


async def test_idle_session_has_no_deadline(make_message: MakeMessage, session_to: SessionTo) -> None:
    short = {"mail": 0.05, "rcpt": 0.05, "data": 0.05, "block": 0.05, "end": 0.05}
    async with ScriptedRelay() as relay, session_to(relay, **short) as session:
        for _ in range(2):
            event = await session.transact(make_message(), lambda done: done(None))
            assert isinstance(event, Reply)
            assert event.is_positive
            await asyncio.sleep(0.15)
            assert session.usable


@pytest.mark.slow
async def test_waiting_for_a_mark_is_not_the_servers_fault(make_message: MakeMessage, session_to: SessionTo) -> None:
    asked: list[Done] = []
    async with ScriptedRelay() as relay, session_to(relay, data=0.05, block=0.05, mail=0.05, rcpt=0.05) as session:
        task = asyncio.create_task(session.transact(make_message(), asked.append))
        await asyncio.sleep(0.2)
        asked[0](None)
        event = await task
        assert isinstance(event, Reply)
        assert event.is_positive
