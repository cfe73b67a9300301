"""Whether mail that came back is being read, as the suppression list knows it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from bulkmail.mailing.suppression_sources import ListInUse, open_suppressions, recorded_list
from bulkmail.model.errors import OutboxError, SuppressionError


def intake_overdue(used: ListInUse | None, *, now: float | None = None) -> float:
    """Seconds for which intake should have succeeded and has not; 0.0 without a list, or one that cannot be read.

    Whoever needs the list to be read says so elsewhere.  Blocks.
    """
    if used is None or not os.path.exists(used.file):
        return 0.0
    try:
        with open_suppressions(Path(used.file), used.rules) as store:
            return store.intake_state().overdue(time.time() if now is None else now)
    except SuppressionError:
        return 0.0


def overdue_of(settings: Mapping[str, str]) -> float:
    """The same for the list that an outbox remembers in its `settings`."""
    try:
        return intake_overdue(recorded_list(settings))
    except OutboxError:
        return 0.0
