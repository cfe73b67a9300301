"""One HTTPS request outwards: no redirects, ten seconds, 64 KB."""

from __future__ import annotations

import time
from http.client import HTTPException, HTTPSConnection
from urllib.parse import urlsplit

TIMEOUT = 10.0  # seconds
LONGEST = 65_536  # bytes


def fetch(address: str) -> bytes:
    """What is at an https address.  Blocks for `TIMEOUT` seconds at most; raises `OSError`."""
    parts = urlsplit(address)
    if parts.scheme != "https" or not parts.hostname:
        raise OSError("not an https address")
    until = time.monotonic() + TIMEOUT
    connection = HTTPSConnection(parts.hostname, parts.port or 443, timeout=TIMEOUT)
    try:
        connection.request("GET", f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}")
        answer = connection.getresponse()
        if answer.status != 200:
            raise OSError(f"answered {answer.status}")
        body = bytearray()
        while piece := answer.read1(8_192):
            body += piece
            if len(body) > LONGEST or time.monotonic() > until:
                raise OSError("the answer is too long or too slow")
        return bytes(body)
    except HTTPException as error:
        raise OSError(f"no HTTP answer: {type(error).__name__}") from None
    finally:
        connection.close()
