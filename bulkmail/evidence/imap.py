"""Whether a folder on an IMAP server has messages, asked by Message-ID."""

from __future__ import annotations

import imaplib
import re
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from email.parser import BytesHeaderParser
from urllib.parse import unquote, urlsplit

from bulkmail.evidence.sighting import ENVELOPE_FIELDS, Sighting, sighted
from bulkmail.model.errors import ConfigError, RelayError
from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.model.printing import printable
from bulkmail.model.relay import Secret

TIMEOUT = 60.0  # seconds for each answer
_FIELDS = " ".join(("MESSAGE-ID", *(name.upper() for name in ENVELOPE_FIELDS)))
_ASKABLE = re.compile(r"[!#-\[\]-~]{3,900}")  # what may stand between quotes without being escaped
_MOST_HITS = 20  # messages looked at for one Message-ID
_MOST_BYTES = 4 << 20  # of all answers about one Message-ID
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

    room = _MOST_BYTES

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
            size = size if size > _MOST_BYTES else _MOST_BYTES
            raise RelayError(
                f"{self.host} port {self.port} {does} {size:,} bytes where headers of messages were asked for,"
                f" and was left: at most {_MOST_BYTES:,} bytes are read",
                hint="check that host and port are those of an IMAP server that you trust",
            )
        self.room -= size


class BoundedTls(Bounded, imaplib.IMAP4_SSL):
    """The same over TLS."""


def look_in_imap(
    mailbox: Mailbox,
    password: Secret,
    *,
    folder: str,
    message_ids: Iterable[str],
    context: ssl.SSLContext | None = None,
    told: Callable[[str], None] = lambda message_id: None,
) -> Iterator[Sighting]:
    """Asks `folder` for each of `message_ids`, changing nothing there.  Blocks; raises `RelayError`.

    `told` is called with a Message-ID that cannot be asked for: it holds what no search may.
    """
    try:
        client = connect(mailbox, context or ssl.create_default_context())
    except (OSError, ValueError, imaplib.IMAP4.error) as error:
        raise RelayError(f"{mailbox} cannot be reached: {words_of(error)}", hint="check host, port and TLS") from None
    try:
        log_in(client, mailbox, password)
        _enter(client, folder)
        for message_id in message_ids:
            client.room = _MOST_BYTES
            if _ASKABLE.fullmatch(message_id):
                yield from _find(client, message_id, place=f"{folder} of {mailbox}")
            else:
                told(message_id)
    except (OSError, ValueError, imaplib.IMAP4.error) as error:  # ValueError: a number of 5,000 digits
        raise RelayError(f"{mailbox} did not answer as IMAP servers do: {words_of(error)}") from None
    finally:
        with suppress(OSError, ValueError, imaplib.IMAP4.error, RelayError):
            client.logout()
        with suppress(OSError):
            client.shutdown()  # which a logout that failed left out


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


def _enter(client: imaplib.IMAP4, folder: str) -> None:
    name = folder.replace("\\", "\\\\").replace('"', '\\"')
    if not folder.isascii() or not folder.isprintable():
        raise ConfigError(f"{printable(folder)} is no folder name that can be asked for", hint="write it in ASCII")
    said, _ = client.select(f'"{name}"', readonly=True)
    if said != "OK":
        raise RelayError(
            f"there is no folder {printable(folder)}", hint="name one with --folder, such as Sent or INBOX"
        )


def _find(client: imaplib.IMAP4, message_id: str, *, place: str) -> Iterator[Sighting]:
    """The search is for a part of the field, so each hit is looked at."""
    _, found = client.uid("SEARCH", "HEADER", "Message-ID", f'"{message_id}"')
    hits = found[0].split() if found and isinstance(found[0], bytes) else []
    for number in hits[:_MOST_HITS]:
        _, fetched = client.uid("FETCH", number.decode("ascii", "replace"), f"(BODY.PEEK[HEADER.FIELDS ({_FIELDS})])")
        for part in fetched:
            if isinstance(part, tuple):
                sighting = sighted(BytesHeaderParser().parsebytes(part[1]), place)
                if sighting is not None and sighting.message_id == message_id:
                    yield sighting


def words_of(error: Exception) -> str:
    """What the system or the server said, fit to be printed."""
    return printable(getattr(error, "strerror", None) or str(error) or type(error).__name__)
