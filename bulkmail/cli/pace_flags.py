"""The flags that say how fast and at what hours a campaign goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from bulkmail.model.pace import Pace

F = TypeVar("F", bound=Callable[..., Any])

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
    click.option("--processes", metavar="N", help='Processes to use: "auto", or 1 to compose in this one only.'),
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
    typed = {f"--{name}": value for name, value in flags.items() if value is not None}
    if not typed:
        return pace
    from bulkmail.settings.pacing import with_flags

    return with_flags(pace, typed)
