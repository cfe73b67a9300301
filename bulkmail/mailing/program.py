"""What a program hands over and reads back: its list, the files that its message names, and the outcomes."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import anyio
from anyio import to_thread

from bulkmail.engine.contracts import DeliveryResult, Event, ResultBatch
from bulkmail.mailing.following import Followed, RunRows, said
from bulkmail.mailing.previous_run import Digest, DigestedRows
from bulkmail.mailing.rows import Given, GivenRows, NoRows, Rows, asks_for_delivery
from bulkmail.message.attachments.file_parts import guess_type
from bulkmail.message.compose.bodies import (
    attached_names,
    has_row_images,
    local_names,
    optional_images,
    with_attached_images,
)
from bulkmail.model.campaign import Attachment, Campaign, InlineImage, RowAttachment, RowPictures, Template, is_template
from bulkmail.model.errors import BulkmailError, ConfigError, EmptyList
from bulkmail.model.lazy import dataclass
from bulkmail.model.schedule import Schedule
from bulkmail.recipients.list_reading import ListOptions
from bulkmail.recipients.list_source import open_list
from bulkmail.report.report import Report


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


Attached = str | os.PathLike[str] | Attachment | RowAttachment
"""A file, or what is in one, or a template of a path such as `"invoices/{{ id }}.pdf"`, one file for each row."""


def read_attachments(
    items: Iterable[Attached], *, root: str | os.PathLike[str]
) -> tuple[tuple[Attachment, ...], tuple[RowAttachment, ...]]:
    """What everyone gets, read now, and what each row names below `root`.  Raises `ConfigError`."""
    everyone: list[Attachment] = []
    rows: list[RowAttachment] = []
    for item in items:
        if isinstance(item, Attachment):
            everyone.append(item)
        elif isinstance(item, RowAttachment):
            rows.append(item)
        elif isinstance(item, str) and is_template(item):
            rows.append(RowAttachment(Template("attachments", item), os.path.abspath(root)))
        else:
            name = Path(item).name
            everyone.append(Attachment(name, guess_type(name), _read(Path(item), "the attachment")))
    return tuple(everyone), tuple(rows)


def with_page_files(campaign: Campaign, folder: str | os.PathLike[str]) -> Campaign:
    """The campaign with the pictures and style sheets of `folder` that its page names.  Raises `ConfigError`."""
    images, stylesheets = local_names(campaign)
    if has_row_images(campaign):
        campaign = replace(campaign, row_pictures=RowPictures(os.path.abspath(folder)))
    campaign, attached = with_attached_images(campaign, attached_names(campaign))
    sheets = tuple(
        Template(source, _read(Path(folder) / file, "the style sheet").decode("utf-8-sig", "replace"))
        for source, file in stylesheets.items()
    )
    campaign = replace(campaign, stylesheets=sheets)
    more = {
        source: file
        for source, file in optional_images(campaign).items()
        if source not in images and (Path(folder) / file).is_file()
    }
    return replace(
        campaign,
        images=tuple(
            InlineImage(source, Path(file).name, guess_type(file), _read(Path(folder) / file, "the picture"))
            for source, file in (images | more).items()
        )
        + attached,
    )


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its name holds a NUL"
        raise ConfigError(f"{what} {path} cannot be read: {reason}") from None


LAG = 1000  # outcomes that may wait for a slow reader before sending waits too


class SendingStopped(BulkmailError):
    """The run stopped before its end; `__cause__` says why, `report` how far it came.

    With an outbox on disk, the same call continues where this one stopped.
    """

    def __init__(self, cause: BulkmailError, report: Report) -> None:
        super().__init__(str(cause), hint=cause.hint)
        self.report = report


class DeliveryResults:
    """The outcomes of a run, one by one as they become durable; `report` is there when it is over.

    Iterating raises what ended the run before its time, as `SendingStopped`.  The methods are for `Mailer.deliver()`.
    """

    def __init__(self) -> None:
        self.report: Report | None = None
        self._send, self._receive = anyio.create_memory_object_stream[DeliveryResult](math.inf)
        self._room = anyio.Event()
        self._error: Exception | None = None
        self._is_left = False

    def __aiter__(self) -> DeliveryResults:
        return self

    async def __anext__(self) -> DeliveryResult:
        try:
            settled = await self._receive.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            self.raise_error()
            raise StopAsyncIteration from None
        if self._receive.statistics().current_buffer_used < LAG:
            self._room.set()
        return settled

    def observe(self, event: Event) -> None:
        """Hands outcomes to the reader, while there is one."""
        for result in event.results if isinstance(event, ResultBatch) else ():
            if not self._is_left:
                self._send.send_nowait(result)

    async def has_room(self) -> None:
        """Returns when the reader keeps up: unread outcomes must not pile up."""
        while not self._is_left and self._receive.statistics().current_buffer_used >= LAG:
            self._room = anyio.Event()
            await self._room.wait()

    def leave(self) -> None:
        """The reader has left."""
        self._is_left = True
        self._room.set()
        self._receive.close()

    def end(self, error: Exception | None) -> None:
        """The run is over."""
        self._error = error
        if isinstance(error, SendingStopped):
            self.report = error.report
        self._send.close()

    def raise_error(self) -> None:
        """Raises what the run ended by, if that is an exception."""
        if self._error is not None:
            raise self._error
