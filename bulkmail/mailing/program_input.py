"""What one call of a program says of its list."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

from anyio import to_thread

from bulkmail.mailing.digests import Digest, DigestedRows
from bulkmail.mailing.following import Followed, RunRows, said
from bulkmail.mailing.rows import Given, GivenRows, NoRows, Rows, asks_for_delivery
from bulkmail.model.errors import ConfigError, EmptyList
from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.model.schedule import Schedule
from bulkmail.recipients.source import ListOptions, open_list


@dataclass(frozen=True, slots=True)
class ListOrder:
    """How to read the list and which rows are meant, as `Mailer.send()` says it."""

    options: ListOptions
    where: str
    suppress: tuple[str | os.PathLike[str], ...]
    allow_duplicates: bool
    allow_empty: bool
    max_invalid: float
    schedule: Schedule | None = None
    followed: Followed | None = None

    def digest(self, recipients: Given | None) -> Digest:
        """The digest of a list that is a file; of rows, what is known of it before they are read."""
        digest = Digest()
        digest.add(repr((self.options, self.where, self.allow_duplicates)).encode("utf-8", "surrogateescape"))
        if self.followed is not None:
            digest.add(repr((self.followed.run_id, said(self.followed.unless))).encode())
        if isinstance(recipients, str | os.PathLike):
            digest.add_file(Path(recipients))
        return digest

    @asynccontextmanager
    async def opened(self, recipients: Given | None, digest: Digest) -> AsyncIterator[Rows]:
        """The rows.  Unless they are in a file, or those of the run that is followed, `digest` gets each of them as it
        is read.
        """
        if recipients is None:
            if self.followed is None:
                raise ConfigError("no recipients are given", hint="give a list, or follow_up=OUTBOX")
            yield RunRows(self.followed)
            return
        options = replace(self.options, keeps_delivery=asks_for_delivery(self.where))
        if isinstance(recipients, str | os.PathLike):
            with closing(await to_thread.run_sync(_open, recipients, options)) as rows:
                yield rows
            return
        given = GivenRows(recipients, options)
        try:
            yield DigestedRows(given, digest)
        finally:
            await given.aclose()


def _open(path: str | os.PathLike[str], options: ListOptions) -> Rows:
    try:
        return open_list(path, options)
    except EmptyList as error:
        return NoRows(error)
