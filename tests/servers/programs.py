"""Where the mail servers of the operating system are, and what becomes of a test that misses one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import NoReturn

import pytest

# Not everyone has these in PATH, and mail servers live there.
SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/sbin")


def cache() -> Path:
    """Where `.ci/servers` unpacks what it cannot install."""
    return Path(os.environ.get("BULKMAIL_TEST_SERVERS") or "~/.cache/bulkmail-test-servers").expanduser()


def find_program(name: str) -> Path | None:
    """The program of that name: the system's own, or the unpacked one."""
    folders = (os.environ.get("PATH", ""), *SYSTEM_FOLDERS, str(cache() / "usr/sbin"))
    found = shutil.which(name, path=os.pathsep.join(folders))
    return Path(found) if found else None


def require_program(name: str) -> Path:
    """The program of that name; without it the test ends here."""
    return find_program(name) or missing(f"{name} is not installed")


def require_root() -> None:
    """Ends the test unless it runs as root, as which alone the server can be started."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:  # Windows has no root
        missing("only root can start this server")


def missing(what: str) -> NoReturn:
    """A user's machine need not have mail servers: the test is skipped.  CI must have them: there it fails."""
    reason = f"{what}; `.ci/servers` gets the servers and the browser that the tests start"
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def environment_of(program: Path) -> dict[str, str]:
    """The environment to start `program` in: an unpacked one finds the libraries that were unpacked with it."""
    environment = dict(os.environ, LC_ALL="C")
    if program.is_relative_to(cache()):
        environment["LD_LIBRARY_PATH"] = str(cache() / "usr/lib/postfix")
    return environment


def free_port() -> int:
    """A port on loopback that no one listens at just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until_listening(
    port: int, *, process: subprocess.Popen[bytes] | None = None, seconds: float = 10.0, greets: bool = True
) -> None:
    """Returns when someone greets at `port`; raises if no one does, or as soon as `process` has ended.

    Where TLS comes first no one greets: then it is enough that someone listens.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process and process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5.0) as connection:
                if not greets or connection.recv(1):
                    return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"no one greets at port {port}")


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends `process`, by force if it does not go."""
    process.terminate()
    try:
        process.wait(timeout=5.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
