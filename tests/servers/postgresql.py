"""PostgreSQL: a cluster of the tests' own, in a folder of its own, on a socket of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers.programs import free_port

FAST = ("fsync=on", "full_page_writes=on", "shared_buffers=32MB", "max_connections=60", "deadlock_timeout=50ms")


@dataclass(frozen=True)
class Database:
    """A running server."""

    port: int
    folder: Path
    programs: Path

    def url(self, name: str = "mail") -> str:
        """Where the database of that name is."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"

    def make(self, name: str) -> str:
        """A new, empty database, in place of one that there is; its URL."""
        for statement in (f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", f"CREATE DATABASE {name}"):
            self.run("psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-qc", statement, "postgres")
        return self.url(name)

    def run(self, program: str, *arguments: str) -> None:
        """Runs one of PostgreSQL's programs as the server's own user."""
        _run([str(self.programs / program), *arguments])


def _run(command: Sequence[str]) -> None:
    # The server refuses to run as root.
    prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    subprocess.run([*prefix, *command], check=True, stdout=subprocess.DEVNULL, cwd="/")


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL is not installed: sh .ci/servers")
        pytest.skip("PostgreSQL is not installed: sh .ci/servers")
    return found[-1].parent


@contextmanager
def run_postgresql() -> Iterator[Database]:
    """A server that trusts everybody on loopback, and is gone at the end with all it kept."""
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="bulkmail-postgresql-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    server = Database(free_port(), folder, programs)
    data = str(folder / "data")
    try:
        server.run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
        options = " ".join(f"-c {option}" for option in (*FAST, f"unix_socket_directories={folder}"))
        options += f" -p {server.port} -c listen_addresses=127.0.0.1"
        log = str(folder / "log")
        server.run("pg_ctl", "-D", data, "-l", log, "-w", "-o", options, "start")
        yield server
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            server.run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)
