"""What a server said it can do in its answer to EHLO."""

from __future__ import annotations

import re
from collections.abc import Iterable

from bulkmail.model.lazy import dataclass


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The extensions a session may use (RFC 5321 §4.1.1.1).  All absent after a mere HELO.

    `size_limit`: bytes, 0 if SIZE is offered without a limit, None if it is not offered (RFC 1870).
    `auth_mechanisms`: upper case, in the server's order (RFC 4954).  `sandbox`: the server says that it delivers
    nothing, as ours do.
    """

    pipelining: bool = False
    chunking: bool = False
    size_limit: int | None = None
    smtputf8: bool = False
    eight_bit_mime: bool = False
    starttls: bool = False
    dsn: bool = False
    requiretls: bool = False
    sandbox: bool = False
    auth_mechanisms: tuple[str, ...] = ()


SANDBOX = "X-BULKMAIL-SANDBOX"
"""The keyword by which a server says that it delivers nothing (RFC 5321 §4.1.1.1: one of our own begins with X)."""

_MECHANISM = re.compile(r"[A-Z0-9_-]{1,20}")  # RFC 4422 §3.1
_SIZE = re.compile(r"[0-9]{1,20}")  # RFC 1870 §4


def parse_capabilities(lines: Iterable[str]) -> Capabilities:
    """The capabilities in the lines of an EHLO answer; the first line is the server's name.  Never raises."""
    extensions: dict[str, list[str]] = {}
    for line in list(lines)[1:]:
        # "AUTH=LOGIN" is how servers before RFC 4954 said it, and some still say it beside the new form.
        words = re.sub(r"^AUTH=", "AUTH ", line.upper()).split()
        if words:
            extensions.setdefault(words[0], []).extend(words[1:])
    return Capabilities(
        pipelining="PIPELINING" in extensions,
        chunking="CHUNKING" in extensions,
        size_limit=_size_limit(extensions.get("SIZE")),
        smtputf8="SMTPUTF8" in extensions,
        eight_bit_mime="8BITMIME" in extensions,
        starttls="STARTTLS" in extensions,
        dsn="DSN" in extensions,
        requiretls="REQUIRETLS" in extensions,
        sandbox=SANDBOX in extensions,
        auth_mechanisms=tuple(dict.fromkeys(word for word in extensions.get("AUTH", ()) if _MECHANISM.fullmatch(word))),
    )


def _size_limit(words: list[str] | None) -> int | None:
    if words is None:
        return None
    return int(words[0]) if words and _SIZE.fullmatch(words[0]) else 0
