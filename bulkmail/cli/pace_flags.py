"""The flags that say how fast and at what hours a campaign goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import click

from bulkmail.model.errors import ConfigError
from bulkmail.model.pace import Pace

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

PACE_OPTIONS = (
    click.option("--rate", metavar="RATE", help='Maximum rate: "50/s", "3000/h", "1 per 2s".'),
    click.option("--quota", metavar="N/TIME", help='Maximum recipients: "2000/day", "500/hour, 2000/day".'),
    click.option("--window", metavar="HOURS", help='Sending hours: "Mon-Fri 09:00-17:00 Europe/Vienna".'),
    click.option("--start", metavar="MOMENT", help='Do not send before: "2026-12-01 09:00 Europe/Vienna".'),
    click.option("--ramp", metavar="RAMP", help='Raise the daily volume of a new sender: "200/day +30%".'),
    click.option(
        "--canary",
        metavar="N",
        type=click.IntRange(min=0),
        help="Send to N recipients first, and to the rest only if those succeed.",
    ),
    click.option(
        "--wait",
        metavar="TIME",
        help='How long to keep running for retries, quotas and sending hours: "10m", "forever", "0".',
    ),
)

lift_option = click.option(
    "--lift-pause", is_flag=True, help="Send even though a provider asked us to back off or reported a used-up quota."
)


def pace_options(function: F) -> F:
    """Adds the flags to a command that hands them on to `with_pace_flags`."""
    for option in reversed(PACE_OPTIONS):
        function = option(function)
    return function


def with_pace_flags(pace: Pace, flags: Mapping[str, Any]) -> Pace:
    """`pace` with what was typed, the other things as they were.  Raises `ConfigError` naming the flag."""
    from bulkmail.model.quota import parse_quota
    from bulkmail.model.ramp import parse_ramp
    from bulkmail.model.rate import Rate
    from bulkmail.model.window import parse_start, parse_windows
    from bulkmail.settings.pacing import parse_wait
    from bulkmail.settings.zones import find_zone

    def read(name: str, usual: T, parse: Callable[[str], T]) -> T:
        typed = flags[name]
        if typed is None:
            return usual
        try:
            return parse(typed)
        except ConfigError as error:
            raise ConfigError(f"--{name} {typed!r}: {error}", hint=error.hint) from None

    breakers = pace.breakers if flags["canary"] is None else replace(pace.breakers, canary=flags["canary"])
    return replace(
        pace,
        rate=read("rate", pace.rate, Rate.parse),
        quota=read("quota", pace.quota, parse_quota),
        windows=read("window", pace.windows, lambda text: parse_windows(text, find_zone)),
        start=read("start", pace.start, lambda text: parse_start(text, find_zone)),
        ramp=read("ramp", pace.ramp, parse_ramp),
        wait=read("wait", pace.wait, parse_wait),
        breakers=breakers,
    )
