"""One message as files: as it goes on the wire, and its parts for looking at."""

from __future__ import annotations

import os
import re
from pathlib import Path

from bulkmail.message.html.framed import with_pictures
from bulkmail.model.delivery import Message
from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy import lazy_pattern
from bulkmail.preview.message_parts import parse, pictures, take_parts
from bulkmail.text import printable

_LONGEST_STEM = 120  # bytes; file systems take 255

# A mail program runs no script and fills in no form; a browser that does would show something else than the message.
_POLICY = (
    '<meta http-equiv="Content-Security-Policy" content="'
    "script-src 'none'; object-src 'none'; frame-src 'none'; form-action 'none'\">\n"
)
_DOCTYPE = lazy_pattern(r"\A\s*<!doctype[^>]*>\s*", re.IGNORECASE)


def write_message(message: Message, folder: Path, stem: str) -> list[Path]:
    """Writes STEM.eml, byte by byte what the relay would get, and STEM.txt and STEM.html if there are such parts.

    Makes the folder; replaces files of these names; only their owner can read them.  `stem` may come from a cell: it is
    made a plain file name.  The HTML is as in the message but for a line at its top that keeps a browser from running
    scripts, and for its own pictures, which are in it instead of `cid:`.  Returns what was written.

    Raises `ConfigError`.
    """
    parsed = parse(message)
    parts = take_parts(parsed)
    contents = {".eml": b"".join(message.buffers)}
    if parts.text is not None:
        contents[".txt"] = parts.text.encode("utf-8", "replace")
    if parts.html is not None:
        contents[".html"] = _page(with_pictures(parts.html, pictures(parsed)))
    return [write_file(folder, file_stem(stem) + suffix, content) for suffix, content in contents.items()]


def file_stem(text: str) -> str:
    """`text` as a file name without suffix: no separators, no leading dot or dash, at most 120 bytes, not empty."""
    cleaned = re.sub(r"[^\w.@+-]+", "_", printable(text)).lstrip(".-")
    return cleaned.encode()[:_LONGEST_STEM].decode("utf-8", "ignore") or "message"


def _page(html: str) -> bytes:
    """UTF-8 with a byte order mark, which outdoes whatever charset the page itself still claims."""
    doctype = _DOCTYPE.match(html)
    top = doctype.end() if doctype else 0
    return (html[:top] + _POLICY + html[top:]).encode("utf-8-sig", "replace")


def write_file(folder: Path, name: str, content: bytes) -> Path:
    """Writes `name` in `folder`, which it makes, readable by its owner only.  Raises `ConfigError`."""
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(path, "wb", opener=_open_private) as file:
            file.write(content)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ConfigError(
            f"cannot write {printable(str(path), 4_000)}: {getattr(error, 'strerror', None) or error}",
            hint="name a folder that you may write to, with --out FOLDER",
        ) from None
    return path


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
