"""What is attached: files for all recipients, read now, and files that each row names, read when it is sent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bulkmail.model.campaign import Attachment, RowAttachment, Template
from bulkmail.model.pattern import lazy_pattern
from bulkmail.settings.files import CONTENT_TYPE, FileReader, resolve
from bulkmail.settings.problems import Said, show
from bulkmail.settings.schema import AttachmentTable
from bulkmail.settings.sources import Sources

_TAG = lazy_pattern(r"\{\{|\{%|\{#")


def attachments(sources: Sources, reader: FileReader) -> tuple[Attachment, ...]:
    """The files for all recipients."""
    found = [
        reader.attachment(said, name=table.name, content_type=table.type)
        for said, table in _settings(sources)
        if not _is_of_row(said, table)
    ]
    return sources.enclosed + tuple(attachment for attachment in found if attachment is not None)


def row_attachments(sources: Sources) -> tuple[RowAttachment, ...]:
    """The files that each row names: those whose path, or whose name, is a template."""
    found = [_row_attachment(sources, said, table) for said, table in _settings(sources) if _is_of_row(said, table)]
    return tuple(attachment for attachment in found if attachment is not None)


def _settings(sources: Sources) -> Iterator[tuple[Said[str], AttachmentTable]]:
    """The file's and the flags'."""
    for number, table in enumerate(sources.file.message.attachments):
        place = sources.place(("message", "attachments", number))
        if table.file and table.file.strip():
            yield Said(table.file.strip(), place, sources.home), table
        else:
            sources.problems.add(f"{place}: an attachment names no file", 'write { file = "menu.pdf" }')
    for name in sources.overrides.attach:
        yield sources.typed("--attach", name), AttachmentTable(file=name)


def _is_of_row(said: Said[str], table: AttachmentTable) -> bool:
    return bool(_TAG.search(said.value) or _TAG.search(table.name or ""))


def _row_attachment(sources: Sources, said: Said[str], table: AttachmentTable) -> RowAttachment | None:
    if table.type is not None and not CONTENT_TYPE.fullmatch(table.type):
        sources.problems.add(
            f"{said}: its type {show(table.type)} is not a content type", 'write type = "application/pdf"'
        )
        return None
    root, prefix = _root_of(sources, said)
    if not root.is_dir():
        sources.problems.add(
            f"{said}: there is no folder {root}", "files of rows are looked for there; make it, or set attachments_root"
        )
        return None
    return RowAttachment(
        path=Template(said.place, said.value),
        root=str(root.absolute()),
        filename=None if table.name is None else Template(said.place, table.name),
        content_type=table.type or "",
        is_optional=table.optional,
        prefix=prefix,
    )


def _root_of(sources: Sources, said: Said[str]) -> tuple[Path, int]:
    """The folder that a row's file must be below, and how much of its path stands for that.

    It is the campaign's own folder, `attachments_root`, or, where there is none, another that the path itself begins
    with: the text before the first tag comes from the campaign, and no cell changes it.
    """
    message = sources.file.message
    if message.attachments_root is not None:
        place = sources.place(("message", "attachments_root"))
        return resolve(Said(message.attachments_root, place, sources.home)), 0
    tag = _TAG.search(said.value)
    literal = said.value[: tag.start()] if tag else ""
    folder = literal[: literal.rfind("/") + 1]
    if Path(folder).is_absolute() or folder.startswith("~") or ".." in folder.split("/"):
        return resolve(Said(folder, said.place, sources.home)), len(folder)
    return Path(os.path.expanduser(sources.home)), 0
