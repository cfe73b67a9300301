"""Why a run is paused or stopped, and until when, as its outbox remembers it and as people read it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

import msgspec

from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.model.printing import printable
from bulkmail.model.stop import StopRequest
from bulkmail.model.window import say_until
from bulkmail.outbox.shape import Moment

SETTING = "rest"
STOPPED = "stopped"  # a setting of the outbox: who stopped the run, until it goes on
LONGEST = 400  # characters of a reason


@dataclass(frozen=True, slots=True)
class Resting:
    """Nobody is written to before `until` (wall-clock seconds), because of `why`; None: until somebody goes on."""

    until: Moment | None
    why: str

    def recorded(self) -> str:
        """As the setting `rest` of an outbox."""
        return json.dumps({"until": self.until, "why": printable(self.why, LONGEST)})

    def sentence(self, now: float) -> str:
        """For people."""
        why = printable(self.why, LONGEST)
        return f"It rests: {why}." if self.until is None else f"It rests until {say_until(self.until, now)}: {why}."


def rest_of(settings: Mapping[str, str], now: float) -> Resting | None:
    """What the settings of an outbox say, unless it is over by `now`."""
    kept = settings.get(SETTING)
    if not kept:
        return None
    resting = msgspec.json.decode(kept, type=Resting)
    return None if resting.until is not None and resting.until <= now else resting


def stopped_by(settings: Mapping[str, str]) -> StopRequest | None:
    """Who stopped the run, if it has not gone on since.  Raises `OutboxError`."""
    kept = settings.get(STOPPED)
    return StopRequest.read(kept) if kept else None


def next_try(due: float | None, now: float) -> str | None:
    """From when on what was put off may be tried again, unless that is now: who goes on too soon would wonder."""
    if due is None or due <= now:
        return None
    return f"What was put off may be tried again from {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(due))} on."
