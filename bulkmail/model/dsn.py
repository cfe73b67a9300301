"""What the relay is asked to report about a message's further way (RFC 3461)."""

from __future__ import annotations

import re

from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy_dataclass import dataclass

EVENTS = ("success", "failure", "delay")


@dataclass(frozen=True, slots=True)
class Dsn:
    """Reports on these events, some of `EVENTS`, come to the reverse path; none of them: not even bounces.

    `returns_full`: a report of a failure brings back the whole message and not only its headers.
    """

    events: tuple[str, ...]
    returns_full: bool = False


def parse_dsn(text: str, *, returns: str = "headers") -> Dsn:
    """The reports in `"failure, delay"` or `"never"`; `returns` is `"headers"` or `"full"`.  Raises `ConfigError`."""
    if returns not in ("headers", "full"):
        raise ConfigError(f"dsn_return={returns[:40]!r}", hint="write headers or full")
    words = [word for word in re.split(r"[,\s]+", text.strip().lower()) if word]
    if words == ["never"]:
        return Dsn((), returns == "full")
    if not words or not set(words) <= set(EVENTS):
        raise ConfigError(
            f"dsn={text[:60]!r}", hint='write one or several of success, failure and delay, or "never" for no bounces'
        )
    return Dsn(tuple(event for event in EVENTS if event in words), returns == "full")
