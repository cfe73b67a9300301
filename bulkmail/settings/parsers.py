"""How each value is read that settings, flags and resumed runs write as a text or a number: one parser a concept."""

from __future__ import annotations

import math

from bulkmail.model.errors import ConfigError
from bulkmail.model.pace import Durability
from bulkmail.model.quota import DAY
from bulkmail.model.retry import parse_schedule
from bulkmail.model.units import parse_duration


def parse_wait(text: str) -> float:
    """Seconds in `"10m"`, `"forever"` (infinity) or `"0"`.  Raises `ConfigError`."""
    if text.strip().lower() == "forever":
        return math.inf
    try:
        return parse_duration(text)
    except ConfigError as error:
        raise ConfigError(str(error), hint='write "10m", "forever" or "0"') from None


def parse_positive(text: str) -> float:
    """Seconds, more than none.  Raises `ConfigError`."""
    seconds = parse_duration(text)
    if not seconds:
        raise ConfigError("must be longer than nothing", hint='write "30s", "10m", "2h" or "5d"')
    return seconds


def parse_rests(text: str) -> tuple[float, ...]:
    """A schedule for a relay or a provider: shorter waits would bother it, longer ones are no waits."""
    steps = parse_schedule(text)
    if not all(1 <= step <= DAY for step in steps):
        raise ConfigError("each wait must be a second at least and a day at most", hint='write "30s, 1m, 5m*3"')
    return steps


def parse_durability(text: str) -> Durability:
    """`"process"` or `"power"`.  Raises `ConfigError`."""
    try:
        return Durability(text)
    except ValueError:
        raise ConfigError(
            "is not a kind of durability", hint='write "process" (survives kill -9) or "power" (survives a power cut)'
        ) from None


def at_least_one(number: int) -> int:
    """`number` if it is 1 or more.  Raises `ConfigError`."""
    if number < 1:
        raise ConfigError("must be 1 or more", hint="write a whole number from 1")
    return number


def not_negative(number: int) -> int:
    """`number` if it is 0 or more.  Raises `ConfigError`."""
    if number < 0:
        raise ConfigError("must be 0 or more", hint="write a whole number, 0 for never")
    return number
