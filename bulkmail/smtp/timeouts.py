"""How long to wait for a relay at each stage."""

from __future__ import annotations

from bulkmail.model.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds without any progress, by stage; the defaults are those of RFC 5321 §4.5.3.2.

    `connect` is for reaching the host, all its addresses together; `block` for each piece of the body that is not
    taken; `end` for the answer to the end of the message: too short a wait there is a duplicate in someone's inbox.
    """

    connect: float = 30.0
    greeting: float = 300.0
    ehlo: float = 300.0
    mail: float = 300.0
    rcpt: float = 300.0
    data: float = 120.0
    block: float = 180.0
    end: float = 600.0
    quit: float = 5.0
