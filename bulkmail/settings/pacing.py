"""How fast and how patiently a campaign goes: flags and `[sending]`, read into a `Pace`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from bulkmail.model.errors import ConfigError
from bulkmail.model.pace import Durability, Pace
from bulkmail.model.quota import DAY
from bulkmail.model.rate import Rate
from bulkmail.model.retry import Backoff, RetryPolicy, parse_schedule
from bulkmail.model.units import parse_duration
from bulkmail.settings.problems import Said
from bulkmail.settings.sources import Sources

T = TypeVar("T")


def build_pace(sources: Sources) -> Pace:
    """Speed and patience; settings with a fault are reported and left at its default."""
    sending, overrides, usual = sources.file.sending, sources.overrides, Pace()
    relay = _backoff(sources, "relay", sending.retry.relay, usual.relay_backoff)
    patience = sources.pick(("sending", "patience"), sending.patience)
    session_age = sources.pick(("sending", "session_age"), sending.session_age)
    messages = sources.pick(("sending", "messages_per_session"), sending.messages_per_session)
    wait = sources.pick(("sending", "wait"), sending.wait, flag="--wait", typed=overrides.wait)
    durability = sources.pick(("sending", "durability"), sending.durability)
    limit = None if overrides.limit is None else sources.typed("--limit", overrides.limit)
    return Pace(
        rate=_rate(sources),
        retry=_retry(sources),
        wait=read(sources, wait, parse_wait, usual.wait),
        # A written schedule is kept to its end unless set otherwise.
        patience=read(sources, patience, parse_duration, sum(relay.schedule) or usual.patience),
        limit=read(sources, limit, at_least_one, None),
        messages_per_session=read(sources, messages, at_least_one, usual.messages_per_session),
        session_age=read(sources, session_age, parse_positive, usual.session_age),
        durability=read(sources, durability, _parse_durability, usual.durability),
        relay_backoff=relay,
        provider_backoff=_backoff(sources, "mailbox_provider", sending.retry.mailbox_provider, usual.provider_backoff),
    )


def read(sources: Sources, said: Said[Any] | None, parse: Callable[..., T], usual: T) -> T:
    """What `parse` makes of a setting; `usual` when it is not set, or wrong: then the fault is noted."""
    if said is None:
        return usual
    try:
        return parse(said.value)
    except ConfigError as error:
        sources.problems.add(f"{said}: {error}", error.hint)
        return usual


def _rate(sources: Sources) -> Rate | None:
    sending = sources.file.sending
    said = sources.pick(("sending", "rate"), sending.rate, flag="--rate", typed=sources.overrides.rate)
    burst = sources.pick(("sending", "burst"), sending.burst)
    if burst is not None and said is None and ("sending", "rate") not in sources.broken:
        sources.problems.add(f"{burst}: has no effect without a rate", 'write rate = "50/s" as well')
    size: int | None = read(sources, burst, at_least_one, None)
    return read(sources, said, lambda text: Rate.parse(text, burst=size), None)


def _retry(sources: Sources) -> RetryPolicy:
    """A written schedule is kept to its end unless `max_attempts` or `max_age` say otherwise."""
    sending, usual = sources.file.sending, RetryPolicy()
    key = ("sending", "retry", "recipient")
    said = sources.pick(key, sending.retry.recipient, flag="--retry", typed=sources.overrides.retry)
    attempts = sources.pick(("sending", "max_attempts"), sending.max_attempts)
    age = sources.pick(("sending", "max_age"), sending.max_age)
    schedule: tuple[float, ...] = read(sources, said, parse_schedule, ())
    return RetryPolicy(
        schedule=schedule,
        max_attempts=read(sources, attempts, at_least_one, len(schedule) + 1 if schedule else usual.max_attempts),
        max_age=read(sources, age, parse_positive, max(usual.max_age, 2 * sum(schedule))),
    )


def _backoff(sources: Sources, scope: str, written: str | None, usual: Backoff) -> Backoff:
    said = sources.pick(("sending", "retry", scope), written)
    return replace(usual, schedule=read(sources, said, _parse_rests, ()))


def _parse_rests(text: str) -> tuple[float, ...]:
    """A back-off schedule: each wait has a least and a greatest length."""
    steps = parse_schedule(text)
    if not all(1 <= step <= DAY for step in steps):
        raise ConfigError("each wait must be a second at least and a day at most", hint='write "30s, 1m, 5m*3"')
    return steps


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


def at_least_one(number: int) -> int:
    """`number` if it is 1 or more.  Raises `ConfigError`."""
    if number < 1:
        raise ConfigError("must be 1 or more", hint="write a whole number from 1")
    return number


def _parse_durability(text: str) -> Durability:
    try:
        return Durability(text)
    except ValueError:
        raise ConfigError(
            "is not a kind of durability", hint='write "process" (survives kill -9) or "power" (survives a power cut)'
        ) from None
