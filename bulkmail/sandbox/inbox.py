"""What a rehearsal kept: the messages of a Maildir, numbered in order of arrival."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

from bulkmail.model.errors import BulkmailError
from bulkmail.model.lazy import dataclass
from bulkmail.sandbox.maildir import Maildir
from bulkmail.text import count, printable

LONGEST_HEAD = 262_144  # bytes of a message that are read to list it


@dataclass(frozen=True, slots=True)
class Kept:
    """One message as the list shows it; every text is safe to print.  `forward_path` is who the envelope named."""

    number: int
    path: Path
    forward_path: str
    sender: str
    to: str
    subject: str
    date: str


class Inbox:
    """A reading of a Maildir at one moment: later arrivals are in the next `Inbox`.  Number 1 is the oldest."""

    def __init__(self, maildir: Path) -> None:
        """Raises `BulkmailError` when there is no Maildir."""
        if not (maildir / "new").is_dir():
            raise BulkmailError(
                f"{printable(str(maildir))} is not a mail folder: it has no folder new in it",
                hint="name the folder that a rehearsal kept its mail in",
            )
        try:
            self._paths = Maildir(maildir).paths()
        except OSError as error:
            raise BulkmailError(f"cannot read the mail folder {printable(str(maildir))}: {error.strerror}") from None
        self._folder = maildir

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[Kept]:
        """Oldest first."""
        return (self._kept(number) for number in range(1, len(self) + 1))

    def __reversed__(self) -> Iterator[Kept]:
        """Newest first."""
        return (self._kept(number) for number in range(len(self), 0, -1))

    def get(self, number: int) -> EmailMessage:
        """The whole message.  Raises `BulkmailError` when there is none of this number, or it cannot be taken apart."""
        try:
            return _parse(self.read(number))
        except RecursionError:  # the email package recurses, a hostile message nests
            raise BulkmailError(
                f"message {number} has too many parts within parts",
                hint=f"read the file itself: {printable(str(self._path(number)), 4_000)}",
            ) from None

    def read(self, number: int) -> bytes:
        """The file's bytes.  Raises `BulkmailError` when there is none of this number."""
        path = self._path(number)
        try:
            return path.read_bytes()
        except OSError as error:
            raise _unreadable(path, error) from None

    def _path(self, number: int) -> Path:
        if not 1 <= number <= len(self):
            raise BulkmailError(
                f"there is no message {number}: {printable(str(self._folder))} holds {count(len(self), 'message')}",
                hint=f"name a number from 1 to {len(self)}" if self._paths else "send something to the sandbox first",
            )
        return self._paths[number - 1]

    def _kept(self, number: int) -> Kept:
        path = self._path(number)
        try:
            with path.open("rb") as file:
                head = file.read(LONGEST_HEAD).partition(b"\n\n")[0]
        except OSError as error:
            raise _unreadable(path, error) from None
        message = _parse(head)
        forward_path, sender, to, subject, date = (
            _header(message, name) for name in ("Delivered-To", "From", "To", "Subject", "Date")
        )
        return Kept(number, path, forward_path, sender, to, subject, date)


def _parse(content: bytes) -> EmailMessage:
    return email.message_from_bytes(content, policy=email.policy.default)


def _header(message: EmailMessage, name: str) -> str:
    """The header decoded, or empty.  The email package parses when asked, and some headers make it fail."""
    try:
        return printable(str(message.get(name, "")))
    except Exception:
        return "(cannot be read)"


def _unreadable(path: Path, error: OSError) -> BulkmailError:
    return BulkmailError(f"cannot read the message {printable(str(path))}: {error.strerror or error}")
