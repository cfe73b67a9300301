"""Postfix' smtp-sink: takes mail as fast as it comes, keeps nothing, and counts."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.programs import end, environment_of, free_port, require_program, wait_until_listening

BACKLOG = 1000


@dataclass(frozen=True)
class Sink:
    """A running smtp-sink."""

    port: int
    counters: Path
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        """The relay URL: it knows no TLS."""
        return f"smtp://{self.host}:{self.port}?tls=off"

    def count(self) -> int:
        """How many messages were accepted so far."""
        numbers = re.findall(rb"mesg=(\d+)", self.counters.read_bytes()[-200:])
        return int(numbers[-1]) if numbers else 0


@contextmanager
def run_sink(options: Sequence[str] = ()) -> Iterator[Sink]:
    """An smtp-sink; `options` are its own, such as `("-q", ".")` to hang up after the terminator."""
    program = require_program("smtp-sink")
    port = free_port()
    # It refuses to run as root, and can change to no one only then.
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    with tempfile.NamedTemporaryFile(prefix="bulkmail-sink-") as counters:
        process = subprocess.Popen(
            [program, "-c", *user, *options, f"127.0.0.1:{port}", str(BACKLOG)],
            env=environment_of(program),
            stdin=subprocess.DEVNULL,
            stdout=counters,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until_listening(port, process=process)
            yield Sink(port, Path(counters.name))
        finally:
            end(process)
