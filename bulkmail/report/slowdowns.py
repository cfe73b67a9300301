"""Which relays and providers slowed a run down, as its outbox remembers it and as people read it."""

from __future__ import annotations

import time

from bulkmail.model.quantities import say_rate
from bulkmail.model.shaper import MOST_KEPT, Slowdown
from bulkmail.outbox.run_info import RunInfo
from bulkmail.report.row_words import iso
from bulkmail.text import count, printable

_LONGEST_NAME = 60  # characters
_LONGEST_WORDS = 200
_LATEST = 1e11  # wall-clock seconds: the year 5138
_FASTEST = 1e9  # messages a second


def slowdowns_of(info: RunInfo) -> tuple[Slowdown, ...]:
    """What an outbox notes, the most frequent first; nothing where it makes no sense."""
    return tuple(filter(_makes_sense, info.slowdowns[:MOST_KEPT]))


def _makes_sense(slowdown: Slowdown) -> bool:
    speed = slowdown.speed
    times = (slowdown.at, slowdown.until, speed.since if speed else 0.0)
    rates = (slowdown.lowest, *((speed.low, speed.peak, speed.limit) if speed else ()))
    return (
        slowdown.times > 0
        and all(0 <= when <= _LATEST for when in times)
        and all(rate is None or 0 < rate <= _FASTEST for rate in rates)
    )


def name_of(slowdown: Slowdown, *, has_several: bool = False) -> str:
    """Whose it is; with several relays also through which."""
    relay = printable(slowdown.relay, _LONGEST_NAME)
    if not slowdown.provider:
        return f"the relay {relay}"
    provider = printable(slowdown.provider, _LONGEST_NAME)
    return f"{provider} through {relay}" if has_several else provider


def treatment(slowdown: Slowdown, now: float) -> str:
    """`"paused until 14:05:10, then 5.0/s"`: how it is treated at `now`; empty when it is as before."""
    said = []
    if slowdown.is_left_alone(now):
        said.append(f"paused until {clock_time(slowdown.until, now)}")
    rate = slowdown.per_second(max(now, slowdown.until))
    if rate is not None:
        said.append(f"{'then ' if said else ''}{say_rate(rate)}")
    if slowdown.connections is not None:
        said.append(count(slowdown.connections, "connection"))
    return ", ".join(said)


def sentence(slowdown: Slowdown, now: float, *, is_running: bool, has_several: bool) -> str:
    """For people who know nothing of providers: who asked for less, how often, what it gets, and the server's words."""
    said = _asked(slowdown, has_several=has_several)
    if slowdown.lowest is not None:
        said += f", to {say_rate(slowdown.lowest)} at the least"
    if now_given := treatment(slowdown, now) if is_running or slowdown.is_left_alone(now) else "":
        said += f"; {'now ' if is_running else ''}{now_given}"
    elif is_running:
        said += "; back to full speed"
    return f"{said}: {words_of(slowdown)}"


def short_sentence(slowdown: Slowdown, now: float, *, has_several: bool) -> str:
    """The same on a line, of a run that is looked back on."""
    said = _asked(slowdown, has_several=has_several)
    if slowdown.is_left_alone(now):
        return f"{said}; paused until {clock_time(slowdown.until, now)}"
    return said if slowdown.lowest is None else f"{said}, to {say_rate(slowdown.lowest)} at the least"


def _asked(slowdown: Slowdown, *, has_several: bool) -> str:
    times = {1: "once", 2: "twice"}.get(slowdown.times, f"{slowdown.times:,} times")
    who = name_of(slowdown, has_several=has_several)
    if not slowdown.provider:
        who = f"{who[:1].upper()}{who[1:]}"  # a sentence; the name of a provider stays as it is written
    return f"{who} asked us to slow down {times}"


def words_of(slowdown: Slowdown) -> str:
    """The server's last words, or our name for them."""
    return printable(slowdown.words or slowdown.why, _LONGEST_WORDS)


def as_object(slowdown: Slowdown, now: float) -> dict[str, object]:
    """For programs; `provider` is null for a relay as a whole, and so is what does not hold at `now`."""
    rate = slowdown.per_second(now)
    return {
        "relay": slowdown.relay,
        "mailbox_provider": slowdown.provider or None,
        "times": slowdown.times,
        "last_at": iso(slowdown.at),
        "why": slowdown.why,
        "reply": words_of(slowdown),
        "until": iso(slowdown.until) if slowdown.is_left_alone(now) else None,
        "per_second": None if rate is None else round(rate, 3),
        "lowest_per_second": None if slowdown.lowest is None else round(slowdown.lowest, 3),
        "connections": slowdown.connections,
    }


def clock_time(when: float, now: float) -> str:
    """The time of day, with the day where it is another."""
    moment, today = time.localtime(when), time.localtime(now)
    return time.strftime("%H:%M:%S" if moment[:3] == today[:3] else "%Y-%m-%d %H:%M:%S", moment)
