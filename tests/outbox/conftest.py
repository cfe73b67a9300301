"""Outboxes on disk and in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bulkmail.outbox.outbox import Entry, Outbox
from tests.outbox.making import fill


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.outbox"


@pytest.fixture
def create(path: Path) -> Iterator[Callable[..., Outbox]]:
    """Makes outboxes at `path` that are closed at the end."""
    made: list[Outbox] = []

    def create(entries: list[Entry] | None = None, **options: object) -> Outbox:
        values: dict[str, object] = {"path": path, "campaign": None} | options
        made.append(Outbox.create(**values))  # type: ignore[arg-type]
        return made[-1] if entries is None else fill(made[-1], entries)

    yield create
    for outbox in made:
        outbox.close()


@pytest.fixture
def memory() -> Iterator[Outbox]:
    with Outbox.create(None, campaign=None) as outbox:
        yield outbox
