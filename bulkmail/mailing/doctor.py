"""What this computer has of all that bulkmail needs: for people who ask for help, and for those who help them."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from enum import Enum
from functools import partial
from importlib import metadata
from pathlib import Path

from anyio import to_thread

from bulkmail.mailing.suppression_list import ReadList, is_there, list_in_use
from bulkmail.model.errors import BulkmailError
from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.outbox.ledger import state_folder
from bulkmail.outbox.lock import refuse_network
from bulkmail.settings.suppressions import load_suppressions

NAME = "bulkmail"
_HERE = Path(__file__).parents[1]
LEAST_FREE = 100 << 20  # bytes
_STA_UNSYNC = 0x0040  # adjtimex(2)
_DNS_TIMEOUT = 5.0  # seconds
PURPOSES = {
    "xlsx": "lists in Excel and OpenDocument files",
    "proxy": "relays behind a SOCKS or HTTP proxy",
    "mjml": "messages in MJML",
    "locale": "dates, numbers and currencies in other languages",
    "qr": "QR codes",
    "metrics": "numbers for Prometheus",
    "web": "the unsubscribe page, webhooks and the console",
    "postgres": "campaigns and the suppression list in PostgreSQL",
}


class State(Enum):
    """How it stands with one thing."""

    OK = "ok"
    OPTIONAL = "optional"  # not there, and not needed by everyone
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing that was looked at: what was found, and, where something is missing, the command or step to fix it."""

    subject: str
    state: State
    found: str
    fix: str = ""


def look_at_installation() -> Iterator[Diagnosis]:
    """Python, the packages that bulkmail needs, SQLite and the text encoding."""
    yield Diagnosis("bulkmail", State.OK, f"{version_of(NAME) or '(not installed)'} in {_HERE}, by {sys.executable}")
    yield Diagnosis("python", State.OK, f"{platform.python_version()} on {platform.platform()}")
    needed = requirements_of("")
    missing = [name for name in needed if version_of(name) is None]
    if missing:
        yield Diagnosis(
            "packages", State.PROBLEM, f"{', '.join(missing)} cannot be found", f"pip install --upgrade {NAME}"
        )
    elif needed:
        yield Diagnosis("packages", State.OK, f"all {len(needed)} that bulkmail needs are installed")
    else:
        yield Diagnosis(
            "packages", State.PROBLEM, "bulkmail is not installed, only its files are there", f"pip install {NAME}"
        )
    yield Diagnosis("sqlite", State.OK, sqlite3.sqlite_version)
    encoding = (sys.stdout.encoding or "").lower()
    if encoding.replace("-", "") == "utf8":
        yield Diagnosis("terminal", State.OK, "shows every script (UTF-8)")
    else:
        yield Diagnosis(
            "terminal", State.OPTIONAL, f"shows {encoding or 'ASCII'} only: other scripts become ?", "PYTHONUTF8=1"
        )


def look_at_extras() -> Iterator[Diagnosis]:
    """The extras that a user may want, but the keyring's, and what is missing of each."""
    for extra, purpose in PURPOSES.items():
        wanted = requirements_of(extra)
        if not wanted:  # a version of bulkmail without it
            continue
        if all(version_of(name) is not None for name in wanted):
            yield Diagnosis(f"extra {extra}", State.OK, purpose)
        else:
            yield Diagnosis(
                f"extra {extra}", State.OPTIONAL, f"not installed: {purpose}", f"pip install '{NAME}[{extra}]'"
            )


def look_at_keyring() -> Diagnosis:
    """Whether the system's keyring can be opened; nothing in it is read."""
    try:
        import keyring
    except ImportError:
        return Diagnosis(
            "keyring",
            State.OPTIONAL,
            "not installed: passwords from the system keyring",
            f"pip install '{NAME}[keyring]'",
        )
    try:
        backend = keyring.get_keyring()
        if backend.priority > 0:
            return Diagnosis("keyring", State.OK, backend.name)
    except Exception as error:  # a backend may raise what it likes
        return Diagnosis("keyring", State.OPTIONAL, f"cannot be opened: {type(error).__name__}", _NO_KEYRING)
    return Diagnosis("keyring", State.OPTIONAL, "this system has none that can be opened here", _NO_KEYRING)


_NO_KEYRING = "use password_file or password_command in [relay] instead of keyring = true"


def look_at_state(environ: Mapping[str, str] = os.environ) -> Iterator[Diagnosis]:
    """The state folder, which keeps quotas and the suppression list."""
    try:
        folder = state_folder(environ)
        there = next(path for path in (folder, *folder.parents) if path.exists())
        refuse_network(folder.resolve())
    except BulkmailError as error:
        yield Diagnosis("state folder", State.PROBLEM, str(error), "set BULKMAIL_STATE_DIR to a folder on a local disk")
        return
    except (OSError, RuntimeError) as error:
        yield Diagnosis("state folder", State.PROBLEM, f"there is none: {error}", "set HOME or BULKMAIL_STATE_DIR")
        return
    if not os.access(there, os.W_OK | os.X_OK):
        yield Diagnosis("state folder", State.PROBLEM, f"{there} cannot be written", f"chmod u+rwx {there}")
        return
    free = shutil.disk_usage(there).free
    if free < LEAST_FREE:
        yield Diagnosis("state folder", State.PROBLEM, f"{folder}: {free >> 20:,} MB free", "make room on this disk")
    else:
        said = "" if there == folder else ", made when it is needed"
        yield Diagnosis("state folder", State.OK, f"{folder}, {free >> 20:,} MB free{said}")
    yield _suppressions()


def _suppressions() -> Diagnosis:
    try:
        used = list_in_use(load_suppressions(), None)
        if used is None or not is_there(used):
            return Diagnosis("suppression list", State.OK, "empty")
        kept = ReadList.open(used)
        if kept is not None:
            kept.close()
        return Diagnosis("suppression list", State.OK, used.name)
    except BulkmailError as error:
        return Diagnosis("suppression list", State.PROBLEM, str(error), error.hint)


def look_at_clock(now: float | None = None) -> Diagnosis:
    """Whether the clock can be right, and something keeps it so."""
    now = time.time() if now is None else now
    zone = time.strftime("%Z (%z)", time.localtime(now))
    said = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now))} {zone}"
    installed = _HERE.stat().st_mtime
    if now < installed - 86_400:
        return Diagnosis("clock", State.PROBLEM, f"{said}, which is before bulkmail was installed", "set the clock")
    match is_synchronised():
        case True:
            return Diagnosis("clock", State.OK, f"{said}, kept right over the network")
        case False:
            return Diagnosis(
                "clock",
                State.OPTIONAL,
                f"{said}; nothing keeps it right, and a wrong Date makes mail look like spam",
                "timedatectl set-ntp true",
            )
    return Diagnosis("clock", State.OK, said)


def is_synchronised() -> bool | None:
    """Whether the kernel says that the clock is kept right (adjtimex(2)); None where it does not say."""
    if not sys.platform.startswith("linux"):
        return None

    class Timex(ctypes.Structure):
        _fields_ = (
            ("modes", ctypes.c_uint),
            *((name, ctypes.c_long) for name in ("offset", "freq", "maxerror", "esterror")),
            ("status", ctypes.c_int),
            ("rest", ctypes.c_char * 256),
        )

    try:
        timex = Timex()
        if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex)) < 0:
            return None
    except (OSError, AttributeError):
        return None
    return not timex.status & _STA_UNSYNC


async def look_at_loopback() -> Diagnosis:
    """Whether a rehearsal works: the embedded server takes a message from a client that is not ours, and keeps it.

    Firewalls and virus scanners stand between programs of one computer, too; what an independent client meets is not
    a fault of our own.
    """
    import aiosmtplib

    from bulkmail.sandbox.server import Sandbox

    try:
        folder = await to_thread.run_sync(partial(tempfile.TemporaryDirectory, prefix="bulkmail-doctor-"))
        try:
            async with Sandbox(Path(folder.name) / "mail") as sandbox:
                await aiosmtplib.send(
                    _PROBE,
                    sender=_PROBE_ADDRESS,
                    recipients=[_PROBE_ADDRESS],
                    hostname=sandbox.host,
                    port=sandbox.port,
                    local_hostname="localhost",
                    start_tls=False,
                    timeout=_LOOPBACK_TIMEOUT,
                )
        finally:
            await to_thread.run_sync(folder.cleanup)
        if sandbox.kept == 1:
            return Diagnosis("rehearsals", State.OK, "the embedded server took a message and kept it")
        found = "the embedded server lost a message"
    except (OSError, aiosmtplib.SMTPException, BulkmailError) as error:
        found = f"the embedded server cannot be used: {type(error).__name__}: {error}"
    return Diagnosis("rehearsals", State.PROBLEM, found, "let Python connect to 127.0.0.1 (firewall, virus scanner)")


_PROBE_ADDRESS = "doctor@localhost.example"
_PROBE = (
    b"From: doctor@localhost.example\r\nTo: doctor@localhost.example\r\nSubject: bulkmail doctor\r\n\r\nThis works.\r\n"
)
_LOOPBACK_TIMEOUT = 10.0  # seconds


async def look_at_dns() -> Diagnosis:
    """Whether a name server answers: queries the name servers of the root, which always exist."""
    import dns.asyncresolver
    import dns.exception
    import dns.resolver

    try:
        resolver = dns.asyncresolver.Resolver()
        with suppress(dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):  # an answer all the same
            await resolver.resolve(".", "NS", lifetime=_DNS_TIMEOUT)
    except dns.exception.DNSException as error:
        return Diagnosis(
            "dns",
            State.PROBLEM,
            f"no name server answers: {type(error).__name__}",
            "look at /etc/resolv.conf and the network; relays on this machine work without",
        )
    servers = ", ".join(str(server) for server in resolver.nameservers)
    return Diagnosis("dns", State.OK, f"answered by {servers}")


def look_at_environment(environ: Mapping[str, str] = os.environ) -> Diagnosis:
    """Which variables change what bulkmail does; their values may be secret."""
    names = sorted(name for name in environ if name.startswith("BULKMAIL_"))
    return Diagnosis("environment", State.OK, ", ".join(names) or "no variable of bulkmail is set")


def requirements_of(extra: str) -> list[str]:
    """The names of the packages that bulkmail needs here, or that `extra` adds; empty where it is not installed."""
    try:
        lines = metadata.requires(NAME) or []
    except metadata.PackageNotFoundError:
        return []
    found = []
    for line in lines:
        name = _NAME.match(line)
        marker = line.partition(";")[2]
        wanted = _EXTRA.search(marker)
        if name is None or (wanted[1] if wanted else "") != extra or not _holds_here(marker):
            continue
        found.append(name[0])
    return found


def _holds_here(marker: str) -> bool:
    """Whether a marker about the platform, the only kind that bulkmail has beside extras, holds on this one."""
    about = _PLATFORM.search(marker)
    return about is None or (sys.platform == about[2]) == (about[1] == "==")


_NAME = lazy_pattern(r"[A-Za-z0-9][\w.-]*")
_EXTRA = lazy_pattern(r"""extra\s*==\s*['"]([\w.-]+)['"]""")
_PLATFORM = lazy_pattern(r"""sys_platform\s*(==|!=)\s*['"](\w+)['"]""")


def version_of(package: str) -> str | None:
    """The version of a package that is installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
