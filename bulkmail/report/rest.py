"""Why a run is paused or stopped, and until when, as its outbox remembers it and as people read it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from typing import TypedDict

import msgspec

from bulkmail.model.breaker import StopRequest
from bulkmail.model.schedule import say_until
from bulkmail.model.timing import Hold
from bulkmail.outbox.sqlite_file import Moment
from bulkmail.text import printable

SETTING = "rest"
STOPPED = "stopped"  # a setting of the outbox: who stopped the run, until it goes on
LONGEST = 400  # characters of a reason


class _Recorded(TypedDict):
    until: Moment | None  # None: until the run is resumed
    why: str


def recorded(hold: Hold) -> str:
    """A hold as the setting `rest` of an outbox."""
    until = None if math.isinf(hold.until) else hold.until
    return json.dumps(_Recorded(until=until, why=printable(hold.why, LONGEST)))


def say_rest(hold: Hold, now: float) -> str:
    """A hold for people."""
    why = printable(hold.why, LONGEST)
    return (
        f"Sending is paused: {why}."
        if math.isinf(hold.until)
        else f"Sending is paused until {say_until(hold.until, now)}: {why}."
    )


def rest_of(settings: Mapping[str, str], now: float) -> Hold | None:
    """What the settings of an outbox say, unless it is over by `now`."""
    kept = settings.get(SETTING)
    if not kept:
        return None
    found = msgspec.json.decode(kept, type=_Recorded)
    hold = Hold(math.inf if found["until"] is None else found["until"], found["why"])
    return hold if hold.lasts(now) else None


def stopped_by(settings: Mapping[str, str]) -> StopRequest | None:
    """Who stopped the run, if it has not gone on since.  Raises `OutboxError`."""
    kept = settings.get(STOPPED)
    return StopRequest.read(kept) if kept else None


def next_try(due: float | None, now: float) -> str | None:
    """When deferred messages will be retried, unless that is now, for users who resume too soon."""
    if due is None or due <= now:
        return None
    return f"Deferred messages will be retried from {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(due))} on."
