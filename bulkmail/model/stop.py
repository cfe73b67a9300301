"""A request to stop a run: who asked, when, and whether messages under way are aborted."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from bulkmail.model.errors import OutboxError
from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.text import printable

LONGEST_NAME = 200  # characters of who asked
NO_ONE_NAMED = "an unnamed user"
_LAST = 253_402_000_000  # in the year 9999, wherever the clock stands


@dataclass(frozen=True, slots=True)
class StopRequest:
    """`by` is a user and a computer, `at` wall-clock seconds; with `now` messages under way are aborted."""

    by: str = NO_ONE_NAMED
    at: Annotated[float, msgspec.Meta(ge=0, le=_LAST)] = 0.0
    now: bool = False

    def recorded(self) -> str:
        """As a note, and as the setting `stopped` of an outbox."""
        kept = {"by": printable(self.by, LONGEST_NAME), "at": self.at, "now": self.now}
        return msgspec.json.encode(kept).decode()

    @classmethod
    def read(cls, kept: str | bytes) -> StopRequest:
        """The reverse.  Raises `OutboxError`."""
        try:
            found = msgspec.json.decode(kept, type=cls)
        except (ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise OutboxError(f"this is no request to stop: {error}") from None
        return cls(printable(found.by, LONGEST_NAME) or NO_ONE_NAMED, found.at, found.now)

    @property
    def sentence(self) -> str:
        """For people who look at the run later."""
        return f"Stopped by {self.by} at {datetime.fromtimestamp(self.at):%Y-%m-%d %H:%M:%S}."
