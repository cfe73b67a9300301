"""A message that was written at the terminal, as settings and as a campaign folder."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from pathlib import Path

from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy import dataclass
from bulkmail.settings.layers import FILE_NAME
from bulkmail.settings.overrides import Overrides

LIST_NAME, TEXT_NAME = "people.csv", "message.txt"


@dataclass(frozen=True, slots=True)
class Draft:
    """What was asked for.  `relay` is a URL or a preset with its user; `list_source` is a file, or empty where `to` has
    the addresses.

    Without a list the subject and the text are not templates: braces in them are braces.
    """

    relay: str
    sender: str
    subject: str
    text: str
    list_source: str = ""
    to: tuple[str, ...] = ()
    together: bool = False

    @property
    def overrides(self) -> Overrides:
        """The same as flags."""
        return Overrides(
            recipients=self.list_source or None,
            to=self.to,
            together=self.together,
            sender=self._literal(self.sender),
            subject=self._literal(self.subject),
            text=self._literal(self.text),
            relay=self.relay,
        )

    def _literal(self, text: str) -> str:
        return text if self.list_source else literal(text)


def literal(text: str) -> str:
    """A template that comes out as `text`."""
    return re.sub(r"\{(?=[{%#])", "{{ '{' }}", text)


def write_campaign(folder: Path, draft: Draft) -> None:
    """Writes the draft into `folder`, which must not be there yet.  Raises `ConfigError`."""
    try:
        folder.mkdir(mode=0o700, parents=True)
        recipients = LIST_NAME
        if draft.list_source:
            recipients = Path(draft.list_source).name
            shutil.copyfile(draft.list_source, folder / recipients)
        else:
            (folder / LIST_NAME).write_text(_list_of(draft), encoding="utf-8")
        overrides = draft.overrides
        (folder / TEXT_NAME).write_text(overrides.text or "", encoding="utf-8")
        lines = [
            f"relay = {_toml(overrides.relay or '')}",
            f"recipients = {_toml(recipients)}",
            "",
            "[message]",
            f"from = {_toml(overrides.sender or '')}",
            f"subject = {_toml(overrides.subject or '')}",
            f"text = {_toml(TEXT_NAME)}",
        ]
        if draft.together and draft.to[1:]:
            lines.append(f"to = {_toml(', '.join(draft.to[1:]))}")
        (folder / FILE_NAME).write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{os.fspath(error.filename or folder)}: cannot be written: {error.strerror}") from None


def _list_of(draft: Draft) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["email"])
    writer.writerows([address] for address in (draft.to[:1] if draft.together else draft.to))
    return file.getvalue()


def _toml(text: str) -> str:
    """`text` as a basic string: those of JSON are such, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
