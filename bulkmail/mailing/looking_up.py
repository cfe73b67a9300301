"""Where the deliveries of a run are looked up, for what comes back about them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from pathlib import Path

from bulkmail.model.errors import OutboxError
from bulkmail.model.feedback_event import KnownRun
from bulkmail.outbox.finding import FoundDelivery
from bulkmail.outbox.reader import OutboxReader
from bulkmail.text import printable

log = logging.getLogger("bulkmail.mailing")


class RunOutbox:
    """The outbox of `run`, opened for each look, so that none is held between two.

    `told` gets a sentence when it cannot be read.
    """

    def __init__(self, run: KnownRun, told: Callable[[str], None] = lambda sentence: None) -> None:
        self._run = run
        self._told = told

    def find(
        self,
        *,
        numbers: Collection[int] = (),
        rows: Collection[int] = (),
        message_ids: Collection[str] = (),
        paths: Collection[str] = (),
    ) -> list[FoundDelivery]:
        """The deliveries with one of these numbers, rows, Message-IDs or forward paths.

        No deliveries where the file cannot be read, or is another run by now: then its numbers mean other rows.
        """
        run = self._run
        try:
            with OutboxReader.open(Path(run.outbox)) as reader:
                if reader.run_id != run.run_id:
                    return []
                return reader.find(numbers=numbers, rows=rows, message_ids=message_ids, paths=paths)
        except OutboxError as error:
            log.warning("an outbox cannot be looked into", extra={"outbox": run.outbox, "why": str(error)})
            self._told(f"what is about {printable(run.campaign or run.run_id)} cannot be matched: {error}")
            return []


def outbox_of(run: KnownRun, told: Callable[[str], None] = lambda sentence: None) -> RunOutbox | None:
    """Where to look for the deliveries of `run`; None when its outbox is gone."""
    return RunOutbox(run, told) if run.outbox and Path(run.outbox).is_file() else None
