"""Lists as files in a folder of their own, named as a user there would name them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bulkmail.model.recipient import BadRow, Recipient
from bulkmail.recipients.list_reading import ListOptions
from bulkmail.recipients.list_source import open_list
from tests.recipients.blocks import read_by_blocks


class ReadList:
    """A list that was read to its end, by rows and by blocks."""

    def __init__(self, name: str, options: ListOptions) -> None:
        with open_list(name, options) as people:
            self.name = people.name
            self.rows: list[Recipient | BadRow] = list(people)
            self.columns = people.columns
            self.notices = people.notices
            self.repeated = people.repeated
        if name != "-":
            assert read_by_blocks(name, options) == (self.rows, self.notices)

    @property
    def people(self) -> list[Recipient]:
        return [row for row in self.rows if isinstance(row, Recipient)]

    @property
    def bad(self) -> list[str]:
        """`place: reason` of each bad row."""
        return [f"{row.place}: {row.reason}" for row in self.rows if isinstance(row, BadRow)]

    @property
    def addresses(self) -> list[str]:
        return [person.address.wire for person in self.people]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write(folder: Path) -> Callable[[str, str | bytes], str]:
    """Writes a file, text as UTF-8, and gives its name."""

    def write_file(name: str, content: str | bytes) -> str:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return name

    return write_file


@pytest.fixture
def read(write: Callable[[str, str | bytes], str]) -> Callable[..., ReadList]:
    """Writes a list and reads it."""

    def read_list(content: str | bytes, name: str = "list.csv", **options: Any) -> ReadList:
        return ReadList(write(name, content), ListOptions(**options))

    return read_list


@pytest.fixture
def standard_input(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Puts bytes into standard input."""

    def put(content: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))

    return put
