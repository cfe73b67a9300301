"""The token and the port of the console, kept between two starts so that open tabs go on working."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from contextlib import suppress
from html import escape
from pathlib import Path

from bulkmail.model.errors import ConfigError
from bulkmail.model.relay import Secret

TOKEN_FILE = "console-token"  # noqa: S105 - a name
PORT_FILE = "console-port"
OPENER_FILE = "console-open.html"
PORT = 8026
_TOKEN_BYTES = 32
_LONGEST = 200  # bytes of such a file


def keep_token(folder: Path, *, renew: bool = False) -> Secret:
    """The token in `folder`, made at the first time or if `renew`.  Raises `ConfigError`."""
    file = folder / TOKEN_FILE
    found = "" if renew else _read_private(file)
    if len(found) < _TOKEN_BYTES:
        found = secrets.token_urlsafe(_TOKEN_BYTES)
        _write_private(file, found)
    return Secret(found)


def kept_port(folder: Path) -> int:
    """The port of the last console; the usual one where there was none."""
    with suppress(OSError, ValueError):
        found = int((folder / PORT_FILE).read_text("ascii")[:_LONGEST])
        if 0 < found < 65536:
            return found
    return PORT


def keep_port(folder: Path, port: int) -> None:
    """Remembers the port.  Raises `ConfigError`."""
    _write_private(folder / PORT_FILE, str(port))


def write_opener(folder: Path, address: str) -> Path:
    """A page that leads to `address`: so the token is in no list of processes.  Raises `ConfigError`."""
    target = escape(address, quote=True)
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
        f'<meta http-equiv="refresh" content="0;url={target}"><title>bulkmail console</title>'
        f'<p><a href="{target}">Open the console</a></p>'
    )
    path = folder / OPENER_FILE
    _write_private(path, page)
    return path


def _read_private(file: Path) -> str:
    """What is in a file that only its owner can read; nothing for any other."""
    try:
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return ""
    with open(descriptor, encoding="ascii", errors="replace") as opened:
        status = os.fstat(opened.fileno())
        is_ours = os.name != "posix" or (status.st_uid == os.geteuid() and not status.st_mode & 0o077)
        return opened.read(_LONGEST).strip() if is_ours and stat.S_ISREG(status.st_mode) else ""


def _write_private(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A new file is its owner's alone, and takes the place of the old one as a whole.
        with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False, encoding="utf-8") as new:
            new.write(text)
        Path(new.name).replace(file)
    except OSError as error:
        raise ConfigError(
            f"{file}: cannot be written: {error.strerror}", hint="set BULKMAIL_STATE_DIR to a folder that you may write"
        ) from None
