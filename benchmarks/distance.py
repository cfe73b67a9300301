"""How fast a list goes out to a Postfix that is far away: bulkmail beside nodemailer's pool and stock aiosmtplib.

    python benchmarks/distance.py                      # CHUNKING offered
    python benchmarks/distance.py --without chunking   # PIPELINING alone
    python benchmarks/distance.py --only bulkmail --depth 16

A real Postfix of its own, as root, and before it a relay of TCP that holds all bytes back for --delay milliseconds in
each direction.  Postfix queues what it takes, in memory, and delivers nothing.  Each run is a whole process: start,
read the list, send, report, end.  Needs Postfix, and Node.js with npm.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import blast
import uvloop

from tests.servers.postfix import run_postfix
from tests.servers.programs import free_port, wait_until_listening

# Postfix lives in memory: someone far away does not share his disk with the sender.
MEMORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
SETTINGS = {
    "smtpd_recipient_restrictions": "check_client_access static:HOLD, permit_mynetworks, reject",  # queued, left there
    "local_header_rewrite_clients": "",  # as for anyone who is far away
    "in_flow_delay": "0",
    "smtpd_client_connection_count_limit": "0",
    "default_process_limit": "200",
}


class _End(asyncio.Protocol):
    """One end of a relayed connection: what comes goes to the other end, `delay` seconds later."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.other: asyncio.Transport | None = None
        self.early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def meet(self, other: asyncio.Transport) -> None:
        self.other = other
        for data in self.early:
            self.data_received(data)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early.append(data)
            return
        asyncio.get_running_loop().call_later(self.delay, self._pass_on, data)

    def _pass_on(self, data: bytes) -> None:
        if self.other is not None and not self.other.is_closing():
            self.other.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None:
            asyncio.get_running_loop().call_later(self.delay, self.other.close)


class _Near(_End):
    """The client's end: it opens the other."""

    def __init__(self, delay: float, port: int) -> None:
        super().__init__(delay)
        self.port = port
        self.opening: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.opening = asyncio.create_task(self._open())

    async def _open(self) -> None:
        far, end = await asyncio.get_running_loop().create_connection(partial(_End, self.delay), "127.0.0.1", self.port)
        end.meet(self.transport)  # type: ignore[arg-type]
        self.meet(far)


async def _serve(port: int, target: int, delay: float) -> None:
    server = await asyncio.get_running_loop().create_server(partial(_Near, delay, target), "127.0.0.1", port)
    await server.serve_forever()


def _relay(port: int, target: int, delay: float) -> None:
    uvloop.run(_serve(port, target, delay))


@contextmanager
def far_postfix(*, delay: float, without: str) -> Iterator[int]:
    """The port at which a Postfix answers after `delay` seconds each way."""
    offered = {"smtpd_discard_ehlo_keywords": without} if without else {}
    with run_postfix({**SETTINGS, **offered}, below=MEMORY) as server:
        port = free_port()
        process = multiprocessing.get_context("spawn").Process(
            target=_relay, args=(port, server.port, delay), daemon=True
        )
        process.start()
        try:
            wait_until_listening(port)
            yield port
        finally:
            process.terminate()
            process.join()


SIDES = ("bulkmail", "nodemailer", "aiosmtplib")


def run_side(side: str, folder: Path, *, port: int, connections: int, depth: int) -> blast.Run:
    """One whole process."""
    if side == "bulkmail":
        return blast.run_bulkmail(folder, port=port, connections=connections, enclose=False, depth=depth)
    if side == "nodemailer":
        return blast.run_nodemailer(folder, port=port, connections=connections, enclose=False)
    return blast.run_recipe(folder, port=port, connections=connections, enclose=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=3, help="of each side")
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--depth", type=int, default=0, help="bulkmail's; 0 for what it does by itself")
    parser.add_argument("--delay", type=float, default=25.0, help="milliseconds each way")
    parser.add_argument("--without", default="", help="EHLO keywords that Postfix shall not offer: chunking")
    parser.add_argument("--only", choices=SIDES, help="measure one side")
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else list(SIDES)
    runs: dict[str, list[blast.Run]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="bulkmail-distance-") as name:
        folder = Path(name)
        blast.write_files(folder, arguments.rows, enclose=False)
        for _ in range(arguments.runs):
            for side in names:
                # A fresh one each time: a full queue is slower.
                with far_postfix(delay=arguments.delay / 1000, without=arguments.without) as port:
                    run = run_side(side, folder, port=port, connections=arguments.connections, depth=arguments.depth)
                print(blast.line(side, run, rows=arguments.rows), flush=True)
                if run.accepted != arguments.rows:
                    sys.exit(f"{side} had {run.accepted:,} of {arguments.rows:,} messages accepted")
                runs[side].append(run)
    medians = {side: statistics.median(run.seconds for run in found) for side, found in runs.items()}
    for side in names[1:]:
        print(f"bulkmail is {medians[side] / medians['bulkmail']:.2f} times as fast as {side}")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(str(error))
