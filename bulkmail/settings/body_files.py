"""The bodies of a campaign: text, HTML, Markdown, MJML, calendar, and the files that a page names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from bulkmail.message.attachments.file_parts import guess_type
from bulkmail.message.compose.bodies import (
    attached_names,
    has_row_images,
    local_names,
    optional_images,
    with_attached_images,
)
from bulkmail.model.campaign import Campaign, InlineImage, RowPictures, Template, is_template
from bulkmail.model.errors import ConfigError
from bulkmail.model.recipient import has_control
from bulkmail.settings.campaign_files import FileReader, chosen_by_row, on_disk
from bulkmail.settings.layers import Sources
from bulkmail.settings.problems import Said, show
from bulkmail.settings.schema import BodyTable

LARGEST_IMAGE = 10_000_000  # bytes; a message's pictures have thousands
LONGEST_STYLESHEET = 1_000_000  # bytes

_SUFFIXES = {"text": "txt", "html": "html", "markdown": "md", "mjml": "mjml", "calendar": "ics"}
_PAGES = ("html", "markdown", "mjml")


class BodyFiles(TypedDict):
    """Fields of `Campaign`."""

    markdown: Template | None
    mjml: Template | None
    preheader: Template | None
    calendar: Template | None
    inline_css: bool


def body(sources: Sources, reader: FileReader, part: str) -> Template | None:
    """The text, HTML or the like, from a file, standard input, or the campaign file itself."""
    message, overrides = sources.file.message, sources.overrides
    if part in ("text", "html"):
        typed = overrides.text if part == "text" else overrides.html
        if typed is not None:
            return reader.message(sources.typed(f"--{part}", typed))
    table: BodyTable | None = getattr(message, part)
    if table is None or (part in _PAGES and overrides.html is not None):
        return None
    key = ("message", part)
    if (table.file is None) == (table.inline is None):
        if not any(path[:2] == key for path in sources.broken):
            sources.problems.add(
                f"{sources.place(key)}: needs either file or inline", f'write {part} = "message.{_SUFFIXES[part]}"'
            )
        return None
    if table.inline is not None:
        return Template(sources.template_name(part), table.inline)
    said = Said(table.file or "", sources.place(key), sources.home)
    if is_template(said.value):
        return chosen_by_row(said, table.fallback, part=part, sources=sources, reader=reader)
    if table.fallback is not None:
        what = f"{said}: has a fallback, and names the same file for every row"
        sources.problems.add(
            what, f'write {part} = {{ file = "message-{{{{ lang }}}}.{_SUFFIXES[part]}", fallback = … }}'
        )
    return reader.message(said)


def more_bodies(sources: Sources, reader: FileReader) -> BodyFiles:
    """The bodies other than text and HTML."""
    message = sources.file.message
    given = [part for part in _PAGES if getattr(message, part) is not None]
    for part in given[1:]:
        what = f"{sources.place(('message', part))}: the message is given by {given[0]} already"
        sources.problems.add(what, "keep one of html, markdown and mjml")
    return BodyFiles(
        markdown=body(sources, reader, "markdown"),
        mjml=body(sources, reader, "mjml"),
        preheader=sources.template("preheader", message.preheader),
        calendar=body(sources, reader, "calendar"),
        inline_css=message.inline_css,
    )


def with_local_files(campaign: Campaign, sources: Sources, reader: FileReader) -> Campaign:
    """The campaign with the pictures and style sheets that its page names; missing ones are reported."""
    try:
        images, stylesheets = local_names(campaign)
    except ConfigError as error:
        sources.problems.add(str(error), error.hint)
        return campaign
    if not sources.file.message.embed:
        images = {}
    elif has_row_images(campaign):
        campaign = replace(campaign, row_pictures=_row_pictures(campaign, sources))
    named = attached_names(campaign) if sources.file.message.embed else []
    page = campaign.html or campaign.markdown or campaign.mjml
    finder = _Finder(sources, reader, page.name if page else "")
    found = tuple(finder.images(images))
    campaign = replace(campaign, stylesheets=tuple(finder.stylesheets(stylesheets)))
    if sources.file.message.embed:
        known = {image.source for image in found}
        more = {source: file for source, file in optional_images(campaign).items() if source not in known}
        found += tuple(finder.images({source: file for source, file in more.items() if finder.has(file)}))
    campaign, shown_attached = with_attached_images(campaign, named)
    for source in sorted(set(named) - {image.source for image in shown_attached}):
        what = f"{page.name if page else ''}: names {show(source)}, and no attachment has that name"
        sources.problems.add(what, "attach the file, or name it by its path in the campaign's folder, without cid:")
    found += shown_attached
    attachments = campaign.attachments
    if (
        sources.is_message_file
    ):  # where a page can show a picture only if ATTACHMENT brings it: one part is meant, not two
        shown = {(image.filename, image.content) for image in found}
        attachments = tuple(each for each in attachments if (each.filename, each.content) not in shown)
    return replace(campaign, attachments=attachments, images=found)


def _row_pictures(campaign: Campaign, sources: Sources) -> RowPictures:
    """Where pictures of rows are looked for: in the campaign's folder, and there beside the page first."""
    page = campaign.html or campaign.markdown or campaign.mjml
    root = Path(os.path.expanduser(sources.home)).absolute()
    folder = (root / (page.name if page else "")).parent
    beside = folder.relative_to(root).as_posix() if folder.is_relative_to(root) else ""
    return RowPictures(str(root), "" if beside == "." else beside, are_attached=sources.is_message_file)


class _Finder:
    """Finds what the page called `name` names: beside it, or else in the campaign's folder, and never above that."""

    def __init__(self, sources: Sources, reader: FileReader, name: str) -> None:
        self._sources = sources
        self._reader = reader
        self._name = name
        beside = Path(name).parent
        self._folders = list(dict.fromkeys([sources.home / beside, beside, sources.home]))

    def images(self, names: dict[str, str]) -> Iterator[InlineImage]:
        """The pictures.  `names` is what the page says, and the file that is meant."""
        for source, file in names.items():
            content = self._content(source, file, longest=LARGEST_IMAGE, fix="embed = false leaves all pictures out")
            if content is not None:
                filename = Path(file).name
                yield InlineImage(source, filename, guess_type(filename), content)

    def has(self, file: str) -> bool:
        """Whether there is such a file."""
        return self._path(file) is not None

    def stylesheets(self, names: dict[str, str]) -> Iterator[Template]:
        """The style sheets."""
        for source, file in names.items():
            content = self._content(source, file, longest=LONGEST_STYLESHEET, fix="")
            if content is not None:
                yield Template(source, content.decode("utf-8-sig", "replace"))

    def _content(self, source: str, file: str, *, longest: int, fix: str) -> bytes | None:
        place = f"{self._name}: names the file {show(source)}"
        if is_template(source):  # a style sheet
            what = f"{place}, which depends on the row and cannot be brought along"
            self._sources.problems.add(what, "give its address on the web, https://…, or set embed = false")
            return None
        path = self._path(file)
        if path is None:
            what = f"{place}, which is not in {self._folders[0]}"
            self._sources.problems.add(what, fix or "put it there, or give its address on the web, https://…")
            return None
        content = self._reader.content(Said(str(path.absolute()), place, Path(".")), longest=longest)
        if content is not None and len(content) > longest:
            what = f"{place}, which is larger than {longest / 1_000_000:g} MB"
            self._sources.problems.add(what, "make it smaller, or give its address on the web, https://…")
            return None
        return content

    def _path(self, file: str) -> Path | None:
        if not file or has_control(file) or "\\" in file or Path(file).is_absolute():
            return None
        for folder in self._folders:
            path = on_disk(folder / file)
            try:
                is_inside = path.resolve().is_relative_to(self._sources.home.resolve()) or (
                    self._sources.path is None and path.resolve().is_relative_to(folder.resolve())
                )
                if is_inside and path.is_file():
                    return path
            except (OSError, RuntimeError, ValueError):
                continue
        return None
