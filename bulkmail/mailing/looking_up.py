"""Where the deliveries of a run are looked up, for what comes back about them."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from bulkmail.model.errors import OutboxError
from bulkmail.model.feedback_event import KnownRun
from bulkmail.outbox.finding import FoundDelivery
from bulkmail.outbox.reader import OutboxReader

log = logging.getLogger("bulkmail.mailing")


class RunOutbox:
    """The outbox of a run, opened for each look, so that none is held between two."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def find(
        self,
        *,
        numbers: Collection[int] = (),
        rows: Collection[int] = (),
        message_ids: Collection[str] = (),
        paths: Collection[str] = (),
    ) -> list[FoundDelivery]:
        """The deliveries with one of these numbers, rows, Message-IDs or forward paths; none if it cannot be read."""
        try:
            with OutboxReader.open(self._path) as reader:
                return reader.find(numbers=numbers, rows=rows, message_ids=message_ids, paths=paths)
        except OutboxError as error:
            log.warning("an outbox cannot be looked into", extra={"outbox": str(self._path), "why": str(error)})
            return []


def outbox_of(run: KnownRun) -> RunOutbox | None:
    """Where to look for the deliveries of `run`; None when its outbox is gone."""
    path = Path(run.outbox)
    return RunOutbox(path) if run.outbox and path.is_file() else None
