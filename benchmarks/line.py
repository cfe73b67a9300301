"""How many messages a second the line alone can carry, beside stock aiosmtplib, to Postfix' smtp-sink on loopback.

    python benchmarks/line.py [--messages 20000] [--sessions 10] [--octets 2048]

Needs `smtp-sink` (Debian package postfix).  Every message has its own envelope; its mark is done at once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import aiosmtplib
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bulkmail.model.message import Envelope, Message
from bulkmail.model.relay import Relay
from bulkmail.model.reply import Fault, Reply
from bulkmail.smtp.line import Transfer
from bulkmail.smtp.session import Manners, Session

Way = Callable[[int, int, int, bytes], Awaitable[None]]


def content(octets: int) -> bytes:
    """A letter of about that size."""
    head = b"From: a@example.com\r\nTo: b@example.com\r\nSubject: news\r\n\r\n"
    line = b"x" * 70 + b"\r\n"
    return head + line * max(1, (octets - len(head)) // len(line))


async def by_session(port: int, sessions: int, messages: int, letter: bytes) -> None:
    """Our line, one command at a time."""
    relay = Relay.parse(f"smtp://127.0.0.1:{port}?tls=off")

    async def sender(numbers: range) -> None:
        session = await Session.open(relay, None, tls_context=None)
        for number in numbers:
            message = Message(Envelope("a@example.com", f"r{number}@example.com"), "<1@example.com>", (letter,))
            event = await session.transact(message, lambda done: done(None))
            assert isinstance(event, Reply) and event.is_positive, event
        await session.quit()

    await asyncio.gather(*(sender(range(start, messages, sessions)) for start in range(sessions)))


async def by_line(port: int, sessions: int, messages: int, letter: bytes) -> None:
    """Our line as the engine uses it: ahead of the replies, as far as the server offers."""
    relay = Relay.parse(f"smtp://127.0.0.1:{port}?tls=off")
    manners = Manners(depth=relay.depth)

    def decided(event: Reply | Fault) -> None:
        assert isinstance(event, Reply) and event.is_positive, event

    async def sender(numbers: range) -> None:
        session = await Session.open(relay, None, tls_context=None, manners=manners)
        left = iter(numbers)

        def more() -> Transfer | None:
            number = next(left, None)
            if number is None:
                return None
            message = Message(Envelope("a@example.com", f"r{number}@example.com"), "<1@example.com>", (letter,))
            return Transfer(message, lambda done: done(None), decided)

        await session.carry(more)
        await session.quit()

    await asyncio.gather(*(sender(range(start, messages, sessions)) for start in range(sessions)))


async def by_aiosmtplib(port: int, sessions: int, messages: int, letter: bytes) -> None:
    """Stock aiosmtplib, as its documentation sends raw messages."""

    async def sender(numbers: range) -> None:
        async with aiosmtplib.SMTP(hostname="127.0.0.1", port=port, local_hostname="localhost") as client:
            for number in numbers:
                await client.sendmail("a@example.com", [f"r{number}@example.com"], letter)

    await asyncio.gather(*(sender(range(start, messages, sessions)) for start in range(sessions)))


@contextlib.contextmanager
def sink() -> Iterator[int]:
    """The port of a running smtp-sink."""
    program = shutil.which("smtp-sink", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        sys.exit("smtp-sink is not installed: apt install postfix")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    with subprocess.Popen([program, *user, f"127.0.0.1:{port}", "1000"]) as process:
        try:
            for _ in range(100):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()


def main() -> None:
    """Prints a line for each way and loop."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--octets", type=int, default=2_048)
    options = parser.parse_args()
    ways: list[tuple[str, Way]] = [
        ("aiosmtplib sendmail", by_aiosmtplib),
        ("Session.transact", by_session),
        ("Session.carry", by_line),
    ]
    with sink() as port:
        for name, way in ways:
            for loop_name, factory in (("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop)):
                with asyncio.Runner(loop_factory=factory) as runner:
                    started, worked = time.perf_counter(), time.process_time()
                    runner.run(way(port, options.sessions, options.messages, content(options.octets)))
                    seconds, used = time.perf_counter() - started, time.process_time() - worked
                rate, cost = options.messages / seconds, used / options.messages * 1e6
                print(f"{name:20} {loop_name:8} {rate:8,.0f} messages/s {cost:6.1f} µs of ours a message")
        smtp_source(port, options.sessions, options.messages, options.octets)


def smtp_source(port: int, sessions: int, messages: int, octets: int) -> None:
    """Postfix' own load generator, in C, with one constant message."""
    program = shutil.which("smtp-source", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        return
    command = [program, "-d", "-s", str(sessions), "-m", str(messages), "-l", str(octets), f"inet:127.0.0.1:{port}"]
    started = time.perf_counter()
    subprocess.run(command, check=True)
    print(f"{'smtp-source -d':29} {messages / (time.perf_counter() - started):8,.0f} messages/s")


if __name__ == "__main__":
    main()
