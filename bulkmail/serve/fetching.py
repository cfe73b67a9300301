"""What is at an https address, as the proofs of webhooks need it."""

from __future__ import annotations

from bulkmail.mailing.https import request


def fetch(address: str) -> bytes:
    """The content at an https address.  Blocks for ten seconds at most; raises `OSError`."""
    answer = request(address)
    if answer.status != 200:
        raise OSError(f"answered {answer.status}")
    return answer.body
