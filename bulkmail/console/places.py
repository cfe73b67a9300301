"""From the place that a finding or an error names, such as `message.txt:3`, to the field of the form that holds it."""

from __future__ import annotations

import re
from pathlib import PurePath

from bulkmail.console.document import HEADS, PACES, Document
from bulkmail.model.lazy import dataclass
from bulkmail.settings.layers import FILE_NAME

_PLACE = re.compile(r"([^\s:'\"]+):(\d{1,9})(?!\d)")
_HEADER = re.compile(r"\s*\[\[?\s*([\w.\"' -]+?)\s*\]")
_KEY = re.compile(r"\s*([\w.\"'-]+(?:\s*\.\s*[\w\"'-]+)*)\s*=")
_FIELDS: dict[tuple[str, ...], str] = {
    ("relay",): "relay",
    ("relay", "url"): "relay",
    ("recipients",): "list",
    ("recipients", "file"): "list",
    **{("message", key): key for key in HEADS},
    **{("sending", key): key for key in PACES},
}


@dataclass(frozen=True, slots=True)
class NamedField:
    """A field of the form, by its id, and the line in it; 0 where it has only one.

    `is_text`: a key that the form does not have, in the text of all settings.
    """

    id: str
    line: int
    words: str
    is_text: bool = False

    def address(self, campaign: str) -> str:
        """Where the field is, from any page."""
        query = f"?line={self.line}" if self.line else ""
        return f"/c/{campaign}{'/settings' if self.is_text else ''}{query}#{self.id}"


def field_of(document: Document, *texts: str) -> NamedField | None:
    """The field that holds the first known place in `texts`; None where there is none."""
    for text in texts:
        for name, line in _PLACE.findall(text):
            found = _field(document, PurePath(name).name, int(line))
            if found is not None:
                return found
    return None


def _field(document: Document, name: str, line: int) -> NamedField | None:
    for body in document.bodies:
        if body.file and not body.why_not and PurePath(body.file).name == name:
            return NamedField(f"body-{body.kind}", line, f"{body.file}, line {line}")
    if name == FILE_NAME:
        return _setting(document, line)
    if document.list_file and name == PurePath(document.list_file).name:
        return NamedField("list", 0, "the list")
    return None


def _setting(document: Document, line: int) -> NamedField:
    """The field of the key that is written at `line`, or else that line among all settings."""
    lines = document.settings.split("\n")[:line]
    key: tuple[str, ...] = ()
    table: tuple[str, ...] = ()
    began = 0
    for number, text in enumerate(lines, 1):
        if header := _HEADER.match(text):
            table, key, began = _names(header[1]), (), number
        elif found := _KEY.match(text):
            key, began = _names(found[1]), number
    whole = (*table, *key)
    if whole in _FIELDS and key and not document.fault:
        return NamedField(_FIELDS[whole], 0, f"{FILE_NAME}, line {line}")
    inline = {body.kind for body in document.bodies if not body.file}
    if whole[:1] == ("message",) and whole[1:2] and whole[1] in inline:
        return NamedField(f"body-{whole[1]}", max(1, line - began), f"{FILE_NAME}, line {line}")
    return NamedField("settings", line, f"{FILE_NAME}, line {line}", is_text=True)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in text.split("."))
