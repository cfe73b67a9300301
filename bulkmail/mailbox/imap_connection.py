"""A connection to an IMAP server that reads no more than it has room for."""

from __future__ import annotations

import imaplib
import ssl
from contextlib import suppress
from urllib.parse import unquote, urlsplit

from bulkmail.model.errors import ConfigError, RelayError
from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.model.relay import Secret
from bulkmail.text import printable

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
