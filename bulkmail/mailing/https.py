"""One HTTPS request outwards: no redirects, ten seconds, 64 KB."""

from __future__ import annotations

import time
from collections.abc import Mapping
from http.client import HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from bulkmail.model.lazy_dataclass import dataclass

TIMEOUT = 10.0  # seconds
LONGEST = 65_536  # bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answered: the status and the body, which is complete."""

    status: int
    body: bytes


def request(
    address: str, *, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """The answer to a request.  Blocks for `TIMEOUT` seconds or so; raises `OSError` without the address."""
    parts = urlsplit(address)
    if parts.scheme != "https" or not parts.hostname:
        raise OSError("not an https address")
    until = time.monotonic() + TIMEOUT
    connection = HTTPSConnection(parts.hostname, parts.port or 443, timeout=TIMEOUT)
    try:
        target = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        connection.request(method, target, body=body, headers=dict(headers or {}))
        answer = connection.getresponse()
        found = bytearray()
        while piece := answer.read1(8_192):
            found += piece
            if len(found) > LONGEST or time.monotonic() > until:
                raise OSError("the answer is too long or too slow")
        return Answer(answer.status, bytes(found))
    except HTTPException as error:
        raise OSError(f"no HTTP answer: {type(error).__name__}") from None
    finally:
        connection.close()
