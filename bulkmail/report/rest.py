"""Why a run is paused or stopped, and until when, as its outbox remembers it and as people read it."""

from __future__ import annotations

import math
import time

from bulkmail.model.schedule import say_until
from bulkmail.model.timing import Hold
from bulkmail.outbox.run_info import RunInfo
from bulkmail.text import printable

LONGEST = 400  # characters of a reason


def say_rest(hold: Hold, now: float) -> str:
    """A hold for people."""
    why = printable(hold.why, LONGEST)
    return (
        f"Sending is paused: {why}."
        if math.isinf(hold.until)
        else f"Sending is paused until {say_until(hold.until, now)}: {why}."
    )


def rest_of(info: RunInfo, now: float) -> Hold | None:
    """What an outbox notes, unless it is over by `now`."""
    hold = info.rest.hold if info.rest is not None else None
    return hold if hold is not None and hold.lasts(now) else None


def next_try(due: float | None, now: float) -> str | None:
    """When deferred messages will be retried, unless that is now, for users who resume too soon."""
    if due is None or due <= now:
        return None
    return f"Deferred messages will be retried from {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(due))} on."
