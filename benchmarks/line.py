"""How many messages a second the line alone can carry, beside stock aiosmtplib, to Postfix' smtp-sink on loopback.

    python benchmarks/line.py [--messages 20000] [--sessions 10] [--bytes 2048] [--runs 5]

Needs `smtp-sink` (Debian package postfix).  Every message has its own envelope; its mark is done at once.  All take
turns, and medians count.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import aiosmtplib
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bulkmail.model.delivery import Envelope, Message
from bulkmail.model.outcome import Fault, Reply
from bulkmail.model.relay import Relay
from bulkmail.smtp.connection import SmtpConnection
from bulkmail.smtp.opening import Access
from bulkmail.smtp.peer_policy import PeerPolicy
from bulkmail.smtp.transaction import Transfer

Shares = list[list[Message]]  # what each session carries
Way = Callable[[int, Shares], Awaitable[None]]


def ready_messages(*, messages: int, sessions: int, raw: int) -> Shares:
    """Messages of about that size, each with its own envelope."""
    head = b"From: a@example.com\r\nTo: b@example.com\r\nSubject: news\r\n\r\n"
    line = b"x" * 70 + b"\r\n"
    message = head + line * max(1, (raw - len(head)) // len(line))
    envelopes = [Envelope("a@example.com", f"r{number}@example.com") for number in range(messages)]
    ready = [Message(envelope, "<1@example.com>", (message,)) for envelope in envelopes]
    return [ready[start::sessions] for start in range(sessions)]


def accepted(event: Reply | Fault) -> None:
    """Makes sure that it was."""
    assert isinstance(event, Reply) and event.is_positive, event


async def plainly(port: int, shares: Shares) -> None:
    """Our connection, one command at a time."""
    await _carried(port, shares, PeerPolicy(is_plain=True))


async def ahead(port: int, shares: Shares) -> None:
    """Our connection as the engine uses it: ahead of the replies, as far as the server offers."""
    await _carried(port, shares, PeerPolicy())


async def _carried(port: int, shares: Shares, policy: PeerPolicy) -> None:
    access = Access(Relay.parse(f"smtp://127.0.0.1:{port}?tls=off"))

    async def sender(share: list[Message]) -> None:
        connection = await SmtpConnection.open(access, policy)
        left = iter(share)

        def more() -> Transfer | None:
            message = next(left, None)
            return None if message is None else Transfer(message, on_decided=accepted)

        await connection.carry(more)
        await connection.quit()

    await asyncio.gather(*map(sender, shares))


async def by_aiosmtplib(port: int, shares: Shares) -> None:
    """Stock aiosmtplib, as its documentation sends raw messages."""

    async def sender(share: list[Message]) -> None:
        async with aiosmtplib.SMTP(hostname="127.0.0.1", port=port, local_hostname="localhost") as client:
            for message in share:
                envelope = message.envelope
                await client.sendmail(envelope.reverse_path, [envelope.forward_path], message.buffers[0])

    await asyncio.gather(*map(sender, shares))


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
    parser.add_argument("--bytes", type=int, default=2_048)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    shares = ready_messages(messages=options.messages, sessions=options.sessions, raw=options.raw)
    rates: dict[tuple[str, str], list[float]] = {}
    with sink() as port:
        for _ in range(options.runs):
            for way, loop in itertools.product(WAYS, LOOPS):
                started = time.perf_counter()
                with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
                    runner.run(WAYS[way](port, shares))
                rates.setdefault((way, loop), []).append(options.messages / (time.perf_counter() - started))
            if seconds := smtp_source(port, options.sessions, options.messages, options.raw):
                rates.setdefault((SMTP_SOURCE, ""), []).append(options.messages / seconds)
    for (way, loop), of_runs in rates.items():
        rate = statistics.median(of_runs)
        beside = rate / statistics.median(rates[STOCK, loop or "asyncio"])
        print(f"{way:20} {loop:8} {rate:8,.0f} messages/s  {beside:5.2f} times aiosmtplib")


def smtp_source(port: int, sessions: int, messages: int, raw: int) -> float | None:
    """The seconds that Postfix' own load generator needs, in C, with one constant message."""
    program = shutil.which("smtp-source", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        return None
    command = [program, "-d", "-s", str(sessions), "-m", str(messages), "-l", str(raw), f"inet:127.0.0.1:{port}"]
    started = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - started


STOCK = "aiosmtplib sendmail"
SMTP_SOURCE = "smtp-source -d"
WAYS: dict[str, Way] = {STOCK: by_aiosmtplib, "one command at a time": plainly, "Connection.carry": ahead}
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}

if __name__ == "__main__":
    main()
