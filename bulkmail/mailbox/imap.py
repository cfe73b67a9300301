"""A folder on an IMAP server, read by UID without marking anything as seen."""

from __future__ import annotations

import imaplib
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from bulkmail.mailbox.mail_source import BATCH, KEEP, MOST_BYTES, Afterwards, FetchedMail, Interruptible
from bulkmail.model.errors import ConfigError, RelayError
from bulkmail.model.feedback_event import ReadingPlaces
from bulkmail.model.lazy import dataclass
from bulkmail.model.relay import Secret
from bulkmail.text import printable

if TYPE_CHECKING:
    from imap_tools import BaseMailBox


TIMEOUT = 60.0  # seconds for each answer
MOST_HEADER_BYTES = 4 << 20
"""Of all answers to one question about headers."""

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A login on an IMAP server.  With `is_implicit` TLS comes first, without it STARTTLS, unless not `has_tls`."""

    host: str
    port: int
    username: str
    is_implicit: bool = True
    has_tls: bool = True

    def __str__(self) -> str:
        return f"{self.username} at {self.host}:{self.port}"

    @classmethod
    def parse(cls, url: str) -> Mailbox:
        """`imaps://USER@HOST[:PORT]`, or `imap://` for STARTTLS; `?tls=off` for a server on this machine.

        Raises `ConfigError`, which never repeats what may be a password.
        """
        fix = "write imaps://USER@HOST, with %40 for the @ in a user name"
        try:
            parts = urlsplit(url)
            port, host, user = parts.port, parts.hostname or "", unquote(parts.username or "")
        except ValueError:
            raise ConfigError("that is no IMAP address", hint=fix) from None
        if parts.password is not None:
            raise ConfigError(
                "a password does not belong into an IMAP address: others on this machine can read it there",
                hint="leave it out; it is asked for, or put it into BULKMAIL_IMAP_PASSWORD or --imap-password-file",
            )
        if parts.scheme not in ("imap", "imaps") or not host or not user or parts.path.strip("/") or parts.fragment:
            raise ConfigError("that is no IMAP address with user and host", hint=fix)
        if parts.query not in ("", "tls=off") or (parts.query and parts.scheme == "imaps"):
            raise ConfigError("the only option of an IMAP address is ?tls=off, with imap://", hint=fix)
        if parts.query and host not in _LOOPBACK:
            raise ConfigError(f"tls=off would send the password to {printable(host)} in clear text", hint=fix)
        is_implicit = parts.scheme == "imaps"
        return cls(printable(host), port or (993 if is_implicit else 143), user, is_implicit, not parts.query)


class Bounded(imaplib.IMAP4):
    """Reads no more than it has room for, whatever size the server announces: raises `RelayError`, and hangs up."""

    room = MOST_HEADER_BYTES

    def read(self, size: int) -> bytes:
        self._take(size, "announces an answer of")
        return super().read(size)

    def readline(self) -> bytes:
        line = super().readline()
        self._take(len(line), "sends more than")
        return line

    def _take(self, size: int, does: str) -> None:
        if size > self.room:
            with suppress(OSError):
                self.shutdown()
            size = size if size > MOST_HEADER_BYTES else MOST_HEADER_BYTES
            raise RelayError(
                f"{self.host} port {self.port} {does} {size:,} bytes where headers of messages were asked for,"
                f" and was left: at most {MOST_HEADER_BYTES:,} bytes are read",
                hint="check that host and port are those of an IMAP server that you trust",
            )
        self.room -= size


class BoundedTls(Bounded, imaplib.IMAP4_SSL):
    """The same over TLS."""


def connect(mailbox: Mailbox, context: ssl.SSLContext) -> Bounded:
    """A connection, not logged in.  Raises `OSError`, `ValueError` or `imaplib.IMAP4.error`."""
    if mailbox.is_implicit:
        return BoundedTls(mailbox.host, mailbox.port, ssl_context=context, timeout=TIMEOUT)
    client = Bounded(mailbox.host, mailbox.port, timeout=TIMEOUT)
    if mailbox.has_tls:
        try:
            client.starttls(context)
        except BaseException:
            client.shutdown()
            raise
    return client


def log_in(client: imaplib.IMAP4, mailbox: Mailbox, password: Secret) -> None:
    """By PLAIN where that is offered, because LOGIN knows ASCII only.  Raises `RelayError`."""
    secret = password.reveal()
    try:
        if "AUTH=PLAIN" in client.capabilities:
            client.authenticate("PLAIN", lambda _: f"\0{mailbox.username}\0{secret}".encode())
        else:
            client.login(mailbox.username, secret)
    except (imaplib.IMAP4.error, UnicodeEncodeError):  # its words may repeat what was said
        raise RelayError(f"{mailbox} refused the login", hint="check user name and password") from None


def words_of(error: Exception) -> str:
    """What the system or the server said, fit to be printed."""
    return printable(getattr(error, "strerror", None) or str(error) or type(error).__name__)


IDLE_SECONDS = 540.0
"""For which one IDLE lasts: servers and routers drop connections that are silent for longer."""

_POLL_SECONDS = 60.0  # between two looks where the server has no IDLE
_FETCHED = 50  # mails that one command asks for
_ANSWER_ROOM = 64 << 20  # bytes of all answers to one command
_TROUBLE = (OSError, ValueError, imaplib.IMAP4.error)


class ImapSource(Interruptible):
    """Mail in one folder.  It connects when it is first used, and again after the connection was lost.

    With `keep`, `places` remember how far the folder was read; otherwise all that is in it was not read yet.
    """

    is_pushed = False

    def __init__(
        self,
        mailbox: Mailbox,
        password: Secret,
        *,
        folder: str = "INBOX",
        then: Afterwards = KEEP,
        places: ReadingPlaces | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(f"imap {printable(str(mailbox))}, {printable(folder)}")
        self._mailbox = mailbox
        self._password = password
        self._folder = folder
        self._then = then
        self._places = places if then.what == "keep" else None
        self._context = context
        self._open: BaseMailBox | None = None
        self._validity = 0

    def batches(self) -> Iterator[Sequence[FetchedMail]]:
        """All mail in the folder that was not read before.  Raises `RelayError`."""
        try:
            box = self._connected()
            uids = self._unread(box)
            for start in range(0, len(uids), BATCH):
                batch: list[FetchedMail] = []
                for at in range(start, min(start + BATCH, len(uids)), _FETCHED):
                    batch += self._fetch(box, uids[at : min(at + _FETCHED, start + BATCH)])
                self._go_on()
                yield batch
        except _TROUBLE as error:
            raise self._lost(error) from None

    def _connected(self) -> BaseMailBox:
        if self._open is not None:
            with suppress(*_TROUBLE):
                self._open.client.noop()
                return self._open
            self.close()
        self._open = _log_in(self._mailbox, self._password, self._context or ssl.create_default_context())
        self._enter(self._open)
        return self._open

    def _enter(self, box: BaseMailBox) -> None:
        from imap_tools.errors import ImapToolsError

        try:
            if self._then.what == "move" and not box.folder.exists(self._then.folder):
                box.folder.create(self._then.folder)
            box.folder.set(self._folder, readonly=self._then.what == "keep")
        except ImapToolsError as error:
            self.close()
            raise RelayError(
                f"{self.name}: the folder cannot be opened or made: {printable(str(error), 200)}",
                hint="name one with --folder, such as INBOX",
            ) from None
        validity = box.client.response("UIDVALIDITY")[1]
        self._validity = int(validity[0]) if validity and validity[0] else 0

    def _unread(self, box: BaseMailBox) -> list[int]:
        validity, last = self._places.place(self.name) if self._places else (0, 0)
        first = last + 1 if validity == self._validity else 1
        box.client.room = _ANSWER_ROOM  # type: ignore[attr-defined]
        found = sorted(int(uid) for uid in box.uids(f"UID {first}:*", charset=None))
        return [uid for uid in found if uid >= first]  # n:* names the last mail, whatever n is

    def _fetch(self, box: BaseMailBox, uids: Sequence[int]) -> Iterator[FetchedMail]:
        box.client.room = len(uids) * (MOST_BYTES + 10_000) + 100_000  # type: ignore[attr-defined]
        wanted = ",".join(map(str, uids))
        said, answer = box.client.uid("FETCH", wanted, f"(UID BODY.PEEK[]<0.{MOST_BYTES}>)")
        if said != "OK":
            raise OSError(f"FETCH was answered by {said}")
        yield from _mails(answer)

    def done(self, mails: Sequence[FetchedMail], *, understood: frozenset[str]) -> None:
        """Moves or deletes those that were understood, or remembers how far the folder was read."""
        if not mails:
            return
        if self._places is not None:
            self._places.set_place(self.name, (self._validity, max(int(mail.key) for mail in mails)))
        uids = [mail.key for mail in mails if mail.key in understood]
        if self._then.what == "keep" or not uids:
            return
        from imap_tools.errors import ImapToolsError

        try:
            box = self._connected()
            if self._then.what == "move" and "MOVE" in box.client.capabilities:
                box.move(uids, self._then.folder)
                return
            if self._then.what == "move":
                box.copy(uids, self._then.folder)
            self._remove(box, uids)
        except ImapToolsError as error:
            raise RelayError(
                f"{self.name}: the server refuses {self._then}: {printable(str(error), 200)}",
                hint="the events are stored; leave out --then",
            ) from None
        except _TROUBLE as error:
            raise self._lost(error) from None

    def _remove(self, box: BaseMailBox, uids: Sequence[str]) -> None:
        """Only these, where the server can (RFC 4315): a plain EXPUNGE takes others' deleted mail along."""
        wanted = ",".join(uids)
        box.client.uid("STORE", wanted, "+FLAGS.SILENT", r"(\Deleted)")
        if "UIDPLUS" in box.client.capabilities:
            box.client.uid("EXPUNGE", wanted)

    def wait(self, seconds: float) -> None:
        """IDLE (RFC 2177), begun again before anything on the way drops the connection; else a pause."""
        from imap_tools.errors import ImapToolsError

        try:
            box = self._connected()
            if "IDLE" not in box.client.capabilities:
                self._pause(min(_POLL_SECONDS, seconds))
                return
            box.client.room = _ANSWER_ROOM  # type: ignore[attr-defined]
            box.idle.wait(timeout=min(IDLE_SECONDS, seconds))
        except (*_TROUBLE, ImapToolsError) as error:
            raise self._lost(error) from None

    def interrupt(self) -> None:
        """Ends a wait at once by cutting the connection."""
        super().interrupt()
        box = self._open
        if box is not None:
            with suppress(OSError, AttributeError):  # it may be closed just now
                box.client.sock.shutdown(socket.SHUT_RDWR)

    def _lost(self, error: Exception) -> RelayError:
        self.close()
        return RelayError(f"{self.name}: {words_of(error)}", hint="check host, port and TLS; what was read is stored")

    def close(self) -> None:
        """Logs out."""
        box, self._open = self._open, None
        if box is not None:
            with suppress(*_TROUBLE, RelayError):
                box.client.logout()
            with suppress(OSError):
                box.client.shutdown()


def _log_in(mailbox: Mailbox, password: Secret, context: ssl.SSLContext) -> BaseMailBox:
    """Raises `RelayError`."""
    from imap_tools import BaseMailBox as Box

    try:
        client = connect(mailbox, context)
    except _TROUBLE as error:
        raise RelayError(f"{mailbox} cannot be reached: {words_of(error)}", hint="check host, port and TLS") from None

    class OpenedMailbox(Box):
        """imap-tools over a connection that reads no more than it has room for."""

        def _get_mailbox_client(self) -> imaplib.IMAP4:
            return client

    try:
        log_in(client, mailbox, password)
        client.capabilities = tuple(client.capability()[1][0].decode("ascii", "replace").upper().split())  # now more
        return OpenedMailbox()
    except BaseException as error:
        with suppress(OSError):
            client.shutdown()
        if isinstance(error, (*_TROUBLE, AttributeError, IndexError)):
            raise RelayError(f"{mailbox} did not answer as IMAP servers do: {words_of(error)}") from None
        raise


def _mails(answer: Sequence[Any]) -> Iterator[FetchedMail]:
    """The mails in the answer to FETCH: each literal follows a line that has its UID, or precedes one."""
    for number, part in enumerate(answer):
        if not isinstance(part, tuple):
            continue
        behind = answer[number + 1] if number + 1 < len(answer) else b""
        line = part[0] + b" " + (behind if isinstance(behind, bytes) else b"")
        words = line.replace(b"(", b" ").replace(b")", b" ").split()
        uid = next((words[at + 1] for at, word in enumerate(words[:-1]) if word.upper() == b"UID"), b"")
        if uid.isdigit():
            yield FetchedMail(uid.decode(), part[1])
