"""The files that a program's letter names: those of its page, read now, and those of its rows."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from bulkmail.message.attachments.filetypes import guess_type
from bulkmail.message.compose.bodies import (
    attached_names,
    has_row_images,
    local_names,
    optional_images,
    with_attached_images,
)
from bulkmail.model.campaign import Attachment, Campaign, InlineImage, RowAttachment, RowPictures, Template, is_template
from bulkmail.model.errors import ConfigError

Attached = str | os.PathLike[str] | Attachment | RowAttachment
"""A file, or what is in one, or a template of a path such as `"invoices/{{ id }}.pdf"`, one file for each row."""


def read_attachments(
    items: Iterable[Attached], *, root: str | os.PathLike[str]
) -> tuple[tuple[Attachment, ...], tuple[RowAttachment, ...]]:
    """What everybody gets, read now, and what each row names below `root`.  Raises `ConfigError`."""
    everybody: list[Attachment] = []
    rows: list[RowAttachment] = []
    for item in items:
        if isinstance(item, Attachment):
            everybody.append(item)
        elif isinstance(item, RowAttachment):
            rows.append(item)
        elif isinstance(item, str) and is_template(item):
            rows.append(RowAttachment(Template("attachments", item), os.path.abspath(root)))
        else:
            name = Path(item).name
            everybody.append(Attachment(name, guess_type(name), _read(Path(item), "the attachment")))
    return tuple(everybody), tuple(rows)


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
