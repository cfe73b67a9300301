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
    click.option("--rate", metavar="RATE", help='At most so many: "50/s", "3000/h", "1 per 2s".'),
    click.option("--quota", metavar="N/TIME", help='Recipients for the account: "2000/day", "500/hour, 2000/day".'),
    click.option("--window", metavar="HOURS", help='Only then: "Mon-Fri 09:00-17:00 Europe/Vienna".'),
    click.option("--start", metavar="MOMENT", help='Not before: "2026-12-01 09:00 Europe/Vienna".'),
    click.option("--ramp", metavar="RAMP", help='More each day, for a new sender: "200/day +30%".'),
    click.option("--canary", metavar="N", type=click.IntRange(min=0), help="First N; the rest if they fare well."),
    click.option("--wait", metavar="TIME", help='Wait so long for what must wait: "10m", "forever", "0".'),
    click.option("--processes", metavar="N", help='Processes to use: "auto", or 1 to compose in this one only.'),
)

lift_option = click.option(
    "--lift-pause", is_flag=True, help="Go on although a provider wants a rest, or says that its quota is used up."
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
    from bulkmail.settings.pacing import parse_processes, parse_wait
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
        processes=read("processes", pace.processes, parse_processes),
        breakers=breakers,
    )
