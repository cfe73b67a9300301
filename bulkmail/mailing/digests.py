"""Whether a list or ready-made messages are those that a run was begun with: 32 hex digits that say so."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from email.message import EmailMessage, Message
from functools import partial
from hashlib import blake2b
from itertools import islice
from pathlib import Path

from anyio import to_thread

from bulkmail.mailing.feed import Feed
from bulkmail.mailing.loading import Messages
from bulkmail.mailing.rows import GivenRows
from bulkmail.model.lazy import lazy_pattern
from bulkmail.model.recipient import BadRow, Recipient
from bulkmail.outbox.entries import encode_fields

BLOCK = 1 << 20
# A program that makes the same message again gives these other values each time.
_REGENERATED = frozenset({"date", "message-id", "mime-version", "content-id"})
_BOUNDARY = lazy_pattern(r";\s*boundary=(\"[^\"]*\"|[^;\s]*)", re.IGNORECASE)


class Digest:
    """Takes the parts of something one after another."""

    def __init__(self) -> None:
        self._state = blake2b(digest_size=16)

    def add(self, *parts: bytes) -> None:
        """Parts that are divided otherwise count as others."""
        for part in parts:
            self._state.update(b"%d:" % len(part))
            self._state.update(part)

    def add_file(self, path: Path) -> None:
        """The bytes of a file, if it is one."""
        if not path.is_file():
            return
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                self._state.update(block)

    def __str__(self) -> str:
        return self._state.hexdigest()


class DigestedRows:
    """The same rows, and `digest` of them all when they have been read to the end."""

    def __init__(self, rows: GivenRows, digest: Digest) -> None:
        self.digest = digest
        self.fetch = rows.fetch
        self.aclose = rows.aclose
        self.repeated = rows.repeated
        self.remarks = rows.remarks
        self._rows = rows

    @property
    def columns(self) -> list[str]:
        """As far as they are known."""
        return self._rows.columns

    @property
    def notices(self) -> list[str]:
        """What was noticed so far."""
        return self._rows.notices

    def __iter__(self) -> Iterator[Recipient | BadRow]:
        """Each row in order."""
        for row in self._rows:
            add_row(self.digest, row)
            yield row

    async def read_through(self) -> None:
        """Reads all rows for their digest alone."""
        await _read_through(iter(self), self.fetch)

    def close(self) -> None:
        """Closes what it reads from."""
        self._rows.close()


def add_row(digest: Digest, row: Recipient | BadRow) -> None:
    """One row of a list: its address and all its fields."""
    address, name = (row.address.wire, row.name) if isinstance(row, Recipient) else ("", row.reason)
    digest.add(_encoded(address), _encoded(name), encode_fields(row.fields, place=row.place))


async def digest_of_messages(messages: Messages) -> str:
    """The digest of ready-made messages: headers, parts and recipients, without what differs in each copy of them."""
    digest = Digest()
    feed: Feed[EmailMessage] = Feed(messages, lambda message: message)
    try:
        await _read_through(map(partial(add_message, digest), feed), feed.fetch)
    finally:
        await feed.aclose()
    return str(digest)


async def _read_through(items: Iterator[object], fetch: Callable[[], Awaitable[int]]) -> None:
    while True:
        ready = await fetch()
        # At the end the iterator is asked once more, so that it can come to its own end.
        taken = await to_thread.run_sync(lambda count: len(list(islice(items, count))), ready or 1)
        if not taken:
            return


def add_message(digest: Digest, message: EmailMessage) -> None:
    """One ready-made message."""
    ids = [str(part["Content-ID"]).strip("<> \t") for part in message.walk() if part["Content-ID"]]
    names = {name: f"part{number}" for number, name in enumerate(ids) if name}
    digest.add(b"message")
    for part in message.walk():
        digest.add(b"part")
        for name, value in part.raw_items():
            if name.lower() not in _REGENERATED:
                digest.add(_encoded(name.lower()), _encoded(_BOUNDARY.sub("", " ".join(str(value).split()))))
        if not part.is_multipart():
            digest.add(_content(part, names))


def _content(part: Message, names: dict[str, str]) -> bytes:
    """What the part holds; in a text, each part that it shows by its Content-ID is called by its place."""
    payload = part.get_payload(decode=True)
    content = payload if isinstance(payload, bytes) else _encoded(str(part.get_payload()))
    if part.get_content_maintype() == "text":
        for name, place in names.items():
            content = content.replace(_encoded(name), _encoded(place))
    return content


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
