"""What every place that mail is read from can do, and what is done with mail once its events are durable."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Protocol

from bulkmail.model.errors import ConfigError, RelayError
from bulkmail.model.lazy import dataclass

MOST_BYTES = 262_144
"""Of a mail that are read; what is behind them is an attachment."""

BATCH = 200
"""Mails whose events are stored in one transaction."""


@dataclass(frozen=True, slots=True)
class Afterwards:
    """What becomes of mail that was understood and whose events are durable: `keep`, `move` to `folder`, `delete`.

    Mail that was not understood is always kept where it is.
    """

    what: str = "keep"
    folder: str = ""

    @classmethod
    def parse(cls, text: str) -> Afterwards:
        """`"keep"`, `"move=FOLDER"` or `"delete"`.  Raises `ConfigError`."""
        what, _, folder = text.strip().partition("=")
        if (what in ("keep", "delete") and not folder) or (what == "move" and _FOLDER.fullmatch(folder)):
            return cls(what, folder)
        raise ConfigError(f"--then {text[:60]!r} is not known", hint="write keep, move=FOLDER or delete")

    def __str__(self) -> str:
        return f"{self.what}={self.folder}" if self.folder else self.what


_FOLDER = re.compile(r"[^\x00-\x1f\x7f\"\\*%]{1,200}")
KEEP = Afterwards()


@dataclass(frozen=True, slots=True)
class FetchedMail:
    """One mail: `raw` are at most `MOST_BYTES` of it; `key` is what its place knows it by."""

    key: str
    raw: bytes

    @property
    def digest(self) -> str:
        """The same for a mail wherever it is read: programs that store mail add fields and change line ends."""
        data = self.raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if data.startswith(b"From "):
            data = data.partition(b"\n")[2]
        head, _, body = data.partition(b"\n\n")
        head = _OF_STORAGE.sub(b"", head + b"\n")
        body = re.sub(rb"^>(>*From )", rb"\1", body, flags=re.MULTILINE).rstrip(b"\n")
        return blake2b(head.rstrip(b"\n") + b"\n\n" + body, digest_size=16).hexdigest()


_OF_STORAGE = re.compile(
    rb"^(?:(?:x-)?status|x-uid|x-uidl|x-keywords|x-mozilla-\w+|content-length|lines):.*\n(?:[ \t].*\n)*",
    re.IGNORECASE | re.MULTILINE,
)


AFTER_TROUBLE = (5.0, 15.0, 60.0, 300.0)
"""Seconds before a place that failed is read again, by how often it did in a row."""


def pause_after(failures: int) -> float:
    """Seconds to wait after the `failures`-th failure in a row, from 1."""
    return AFTER_TROUBLE[min(failures, len(AFTER_TROUBLE)) - 1]


class Interruptible:
    """Reading that another thread can end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._interrupted = threading.Event()

    def interrupt(self) -> None:
        """Ends a wait at once, and reading with a `RelayError` before the next mails; it cannot be taken up again."""
        self._interrupted.set()

    def _pause(self, seconds: float) -> None:
        self._interrupted.wait(seconds)

    def _go_on(self) -> None:
        if self._interrupted.is_set():
            raise RelayError(f"{self.name}: reading was interrupted", hint="what was read is stored")


class MailSource(Protocol):
    """A place that mail is read from.  Blocks; what cannot be read is a `RelayError` or `ConfigError`."""

    name: str
    """For people, and for what is remembered of it: `imap bounces@example.com at imap.example.com:993, INBOX`."""

    is_pushed: bool
    """Whether mail is pushed to us, so that silence means nothing."""

    def batches(self) -> Iterator[Sequence[FetchedMail]]:
        """All mail that is there and was not read before, at most `BATCH` at a time, marking nothing as seen."""
        ...

    def done(self, mails: Sequence[FetchedMail], *, understood: frozenset[str]) -> None:
        """Called when the events of a batch are durable: moves or deletes those whose key is `understood`."""
        ...

    def wait(self, seconds: float) -> None:
        """Returns when new mail may be there, at the latest after `seconds`."""
        ...

    def interrupt(self) -> None:
        """Ends a wait in another thread at once, and reading before the next mails; it cannot be taken up again."""
        ...

    def close(self) -> None:
        """Lets go of it.  May be called again."""
        ...
