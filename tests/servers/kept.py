"""A real server that keeps what it was sent in a Maildir, and the counting of it."""

from __future__ import annotations

import email
import email.policy
import time
from collections import Counter
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

UNKNOWN = "unknown"
"""No one whose local part begins so has a mailbox: the server answers RCPT with 550 5.1.1."""


@dataclass(frozen=True)
class MailServer:
    """Listens on loopback, takes mail for every domain, delivers it here and nowhere else.

    `recipient_header` is the one in which it notes whom a kept message was for; `kept_in` are the files below `maildir`
    that are one each.
    """

    port: int
    maildir: Path
    log: Path
    recipient_header: str
    host: str = "127.0.0.1"
    kept_in: str = "new/*"

    @property
    def url(self) -> str:
        """The relay URL: plain, as nothing leaves the machine."""
        return f"smtp://{self.host}:{self.port}?tls=off"

    def kept(self) -> list[EmailMessage]:
        """The messages delivered so far, in no order."""
        return [
            email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
            for path in self.maildir.glob(self.kept_in)
        ]

    def count(self) -> int:
        """How many messages were delivered so far."""
        return sum(1 for _ in self.maildir.glob(self.kept_in))

    def recipients(self) -> Counter[str]:
        """How often each address was written to, among the messages delivered so far."""
        return Counter(str(message[self.recipient_header]) for message in self.kept())

    def wait_for(self, count: int, *, seconds: float = 15.0) -> None:
        """Returns when `count` messages are delivered and no more follow; raises `AssertionError` otherwise.

        An accepted message reaches the Maildir a moment after its reply.
        """
        deadline = time.monotonic() + seconds
        while self.count() < count and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.1)  # one too many would come just now
        assert self.count() == count, f"{self.count()} messages kept instead of {count}; the log ends:\n{self.tail()}"

    def tail(self, lines: int = 15) -> str:
        """The end of the server's log."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-lines:])
