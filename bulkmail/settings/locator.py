"""Where in a TOML text each key stands: `tomllib` says what a text means, not on which line."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left
from contextlib import suppress

from bulkmail.model.pattern import lazy_pattern

KeyPath = tuple[str | int, ...]
"""`("message", "attachments", 0, "file")`: keys by name, items of a list by number."""

_SPACE = lazy_pattern(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY = lazy_pattern(r"[A-Za-z0-9_-]+")
TOML_STRING = lazy_pattern(
    r'"""(?:[^\\]|\\.)*?"{3,5}' r"|'''.*?'{3,5}" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = lazy_pattern(r"[^,\]}#\n]*")


def locate_keys(text: str) -> dict[KeyPath, int]:
    """The line, from 1, of every table, key and list item in `text`, which `tomllib` has accepted.

    The first line counts where a table is opened twice.  A text that is not TOML gives what was understood of it.
    """
    reader = _Reader(text)
    with suppress(_Lost, RecursionError):  # the line number is optional; the error is reported anyway
        reader.read_document()
    return reader.lines


class _Lost(Exception):
    """The text is not what `tomllib` would have accepted."""


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.lines: dict[KeyPath, int] = {}
        self._line_ends = [found.start() for found in re.finditer("\n", text)]
        self._list_lengths: dict[KeyPath, int] = {}

    def read_document(self) -> None:
        table: KeyPath = ()
        while self._skip_space():
            if self._take("[["):
                table = self._next_in_list(self._key_path(()))
                self._expect("]]")
            elif self._take("["):
                table = self._key_path(())
                self._expect("]")
            else:
                self._read_pair(table)

    def _read_pair(self, table: KeyPath) -> None:
        path = self._key_path(table)
        self._expect("=")
        self._read_value(path)

    def _read_value(self, path: KeyPath) -> None:
        self._skip_space()
        if self._take("["):
            self._read_list(path)
        elif self._take("{"):
            self._read_inline_table(path)
        elif found := TOML_STRING.match(self.text, self.position) or _SCALAR.match(self.text, self.position):
            self.position = found.end()

    def _read_list(self, path: KeyPath) -> None:
        number = 0
        while self._skip_space() and not self._take("]"):
            self._note((*path, number), self.position)
            self._read_value((*path, number))
            number += 1
            self._skip_space()
            if not self._take(","):
                self._expect("]")
                return

    def _read_inline_table(self, path: KeyPath) -> None:
        while self._skip_space() and not self._take("}"):
            self._read_pair(path)
            self._skip_space()
            if not self._take(","):
                self._expect("}")
                return

    def _key_path(self, table: KeyPath) -> KeyPath:
        """Reads `a.b."c d"`, noting each step of it."""
        path = table
        while True:
            self._skip_space()
            start = self.position
            path = self._into_last((*path, self._key()))
            self._note(path, start)
            self._skip_space()
            if not self._take("."):
                return path

    def _key(self) -> str:
        found = _BARE_KEY.match(self.text, self.position)
        if found:
            self.position = found.end()
            return found[0]
        found = TOML_STRING.match(self.text, self.position)
        if not found:
            raise _Lost
        self.position = found.end()
        try:
            return str(tomllib.loads(f"key = {found[0]}")["key"])
        except ValueError:
            raise _Lost from None

    def _next_in_list(self, path: KeyPath) -> KeyPath:
        """The path of the table that `[[path]]` opens."""
        if path and isinstance(path[-1], int):
            path = path[:-1]  # it was the last item's
        number = self._list_lengths.get(path, 0)
        self._list_lengths[path] = number + 1
        self._note((*path, number), self.position)
        return (*path, number)

    def _into_last(self, path: KeyPath) -> KeyPath:
        """After `[[a]]`, `a` in `[a.b]` means its last item."""
        length = self._list_lengths.get(path, 0)
        return (*path, length - 1) if length else path

    def _note(self, path: KeyPath, start: int) -> None:
        self.lines.setdefault(path, bisect_left(self._line_ends, start) + 1)

    def _skip_space(self) -> bool:
        """Passes blanks, line ends and comments; False at the end of the text."""
        found = _SPACE.match(self.text, self.position)
        self.position = found.end() if found else self.position
        return self.position < len(self.text)

    def _take(self, token: str) -> bool:
        if not self.text.startswith(token, self.position):
            return False
        self.position += len(token)
        return True

    def _expect(self, token: str) -> None:
        self._skip_space()
        if not self._take(token):
            raise _Lost
