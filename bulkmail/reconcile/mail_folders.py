"""Whether a mail folder, a Maildir or one on an IMAP server, has messages: by their headers."""

from __future__ import annotations

import imaplib
import re
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from email.parser import BytesHeaderParser
from pathlib import Path

from bulkmail.mailbox.imap import MOST_HEADER_BYTES, Mailbox, connect, log_in, words_of
from bulkmail.mailbox.mail_files import mails_in, read_mail
from bulkmail.model.errors import ConfigError, RelayError
from bulkmail.model.relay import Secret
from bulkmail.reconcile.sighting import ENVELOPE_FIELDS, Sighting, sighted
from bulkmail.text import printable

_FIELDS = " ".join(("MESSAGE-ID", *(name.upper() for name in ENVELOPE_FIELDS)))
_ASKABLE = re.compile(r"[!#-\[\]-~]{3,900}")  # what may stand between quotes without being escaped
_MOST_HITS = 20  # messages looked at for one Message-ID
LONGEST_HEADER = 262_144  # bytes that are read of a message


def look_in_maildir(folder: Path) -> Iterator[Sighting]:
    """What lies in `new` and `cur` of `folder`.  Raises `ConfigError` where that is no Maildir or cannot be read."""
    for path in mails_in(folder):
        data = read_mail(path, LONGEST_HEADER)
        found = None if data is None else sighted(BytesHeaderParser().parsebytes(data), printable(str(path)))
        if found is not None:
            yield found


def look_in_imap(
    mailbox: Mailbox,
    password: Secret,
    *,
    folder: str,
    message_ids: Iterable[str],
    context: ssl.SSLContext | None = None,
    reported: Callable[[str], None] = lambda message_id: None,
) -> Iterator[Sighting]:
    """Asks `folder` for each of `message_ids`, changing nothing there.  Blocks; raises `RelayError`.

    `reported` is called with a Message-ID that cannot be asked for: it holds what no search may.
    """
    try:
        client = connect(mailbox, context or ssl.create_default_context())
    except (OSError, ValueError, imaplib.IMAP4.error) as error:
        raise RelayError(f"{mailbox} cannot be reached: {words_of(error)}", hint="check host, port and TLS") from None
    try:
        log_in(client, mailbox, password)
        _enter(client, folder)
        for message_id in message_ids:
            client.room = MOST_HEADER_BYTES
            if _ASKABLE.fullmatch(message_id):
                yield from _find(client, message_id, place=f"{folder} of {mailbox}")
            else:
                reported(message_id)
    except (OSError, ValueError, imaplib.IMAP4.error) as error:  # ValueError: a number of 5,000 digits
        raise RelayError(f"{mailbox} did not answer as IMAP servers do: {words_of(error)}") from None
    finally:
        with suppress(OSError, ValueError, imaplib.IMAP4.error, RelayError):
            client.logout()
        with suppress(OSError):
            client.shutdown()  # which a logout that failed left out


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
