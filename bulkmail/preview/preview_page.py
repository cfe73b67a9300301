"""Messages as one page that opens anywhere: as on a desktop and on a phone, as text, with headers and attachments."""

from __future__ import annotations

from collections.abc import Iterable
from email.message import EmailMessage
from pathlib import Path

from bulkmail.message.html.framed import framed
from bulkmail.message.html.scanner import DEEPEST_READ
from bulkmail.model.delivery import Message
from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy import dataclass
from bulkmail.pages.kit import page_of
from bulkmail.preview.message_parts import header, headers, parse, pictures, say_size, take_parts
from bulkmail.preview.preview_files import file_stem, write_file
from bulkmail.text import count, printable

MOST_MESSAGES = 200  # a browser has to hold them all
LARGEST_PAGE = 40_000_000  # characters of messages, pictures inside them included

_LONGEST_PART = 2_000_000  # characters of one message
_VIEWS = (("desktop", "Desktop"), ("phone", "Phone"), ("text", "Text"), ("headers", "Headers"))


@dataclass(frozen=True, slots=True)
class Sheet:
    """One message on the page.  `html` is a page of its own, for a frame in which nothing runs."""

    label: str
    subject: str
    sender: str
    to: str
    size: str
    text: str | None
    html: str | None
    remote: str
    no_html: str
    headers: tuple[tuple[str, str], ...]
    enclosures: tuple[dict[str, str], ...]

    @property
    def length(self) -> int:
        """Characters that it puts on the page, about."""
        return len(self.html or "") + len(self.text or "")


def sheet_of(message: Message, label: str) -> Sheet:
    """The message as the page shows it; `label` says which it is, as "row 3, people.csv:4"."""
    parsed = parse(message)
    parts = take_parts(parsed)
    html, remote, no_html = _page(parsed, parts.html)
    text = parts.text
    if text is not None and len(text) > _LONGEST_PART:
        text = text[:_LONGEST_PART] + "…"
    return Sheet(
        label=printable(label),
        subject=header(parsed, "Subject"),
        sender=header(parsed, "From"),
        to=header(parsed, "To") or printable(message.envelope.forward_path),
        size=say_size(sum(map(len, message.buffers))),
        text=text,
        html=html,
        remote=count(remote, "thing comes", "things come") if remote and html is not None else "",
        no_html=no_html,
        headers=tuple(headers(parsed)),
        enclosures=tuple(_enclosures(parsed)),
    )


def _page(parsed: EmailMessage, html: str | None) -> tuple[str | None, int, str]:
    """The page for the frame with what was left out of it, or why there is none."""
    if html is None:
        return None, 0, "This message has no HTML part: its text is all there is."
    shown = framed(html, pictures(parsed)) if len(html) <= _LONGEST_PART else ("", 0)
    if shown is None:
        return (
            None,
            0,
            f"The HTML of this message has over {DEEPEST_READ:,} elements one within the other: too many.",
        )
    if max(len(html), len(shown[0])) > _LONGEST_PART:
        return None, 0, "The HTML of this message is too long to be shown here."
    return *shown, ""


def _enclosures(parsed: EmailMessage) -> Iterable[dict[str, str]]:
    for enclosure in take_parts(parsed).enclosures:
        yield {
            "name": enclosure.name,
            "content_type": enclosure.content_type,
            "size": say_size(enclosure.size_bytes),
        }


class Album:
    """Messages gathered for one page, as many as a browser can show."""

    def __init__(self) -> None:
        self.sheets: list[Sheet] = []
        self._length = 0

    @property
    def is_full(self) -> bool:
        """Whether no further message should be added."""
        return len(self.sheets) >= MOST_MESSAGES or self._length >= LARGEST_PAGE

    def add(self, message: Message, label: str) -> None:
        """Adds a message at the end."""
        sheet = sheet_of(message, label)
        self.sheets.append(sheet)
        self._length += sheet.length

    def write(self, folder: Path, stem: str, *, title: str, chosen: int = 0) -> Path:
        """Writes STEM.html, which shows message `chosen` (from 0) first; only its owner can read it.

        Raises `ConfigError`, also when there is no message.
        """
        if not self.sheets:
            raise ConfigError("there is no message to show")
        page = page_of(
            "bulkmail.preview",
            title=printable(title),
            subtitle=f"{count(len(self.sheets), 'message')}, as they would be read",
            views=_VIEWS,
            sheets=self.sheets,
            chosen=chosen,
        )
        return write_file(folder, file_stem(stem) + ".html", page)
