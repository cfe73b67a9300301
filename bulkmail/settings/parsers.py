"""How each value is read that settings, flags and resumed runs write: one parser a concept."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from datetime import UTC, tzinfo
from pathlib import Path

from bulkmail.model.errors import ConfigError
from bulkmail.model.pace import Durability
from bulkmail.model.quantities import parse_duration, parse_share
from bulkmail.model.quota import DAY
from bulkmail.model.retry import parse_schedule
from bulkmail.settings.problems import show
from bulkmail.text import did_you_mean


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


def parse_percentage(text: str) -> float:
    """The share in `"10%"`, 0 to 1.  Raises `ConfigError`."""
    try:
        return parse_share(text)
    except ConfigError:
        raise ConfigError("is not a percentage", hint='write "10%", or "100%" to allow all') from None


def parse_processes(text: str) -> int:
    """How many processes, 0 for `"auto"`.  Raises `ConfigError`."""
    if text == "auto":
        return 0
    try:
        return at_least_one(int(text))
    except (ConfigError, ValueError):
        raise ConfigError("is no number of processes", hint='write "auto", or a whole number from 1') from None


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


LOCAL_TIME = Path("/etc/localtime")
_WRITE = "write the zone behind the hours, for example Europe/Vienna"


def find_zone(name: str, *, environ: Mapping[str, str] = os.environ, local_time: Path = LOCAL_TIME) -> tzinfo:
    """The zone of `name` (`"Europe/Vienna"`, `"UTC"`), of this machine when it is empty.  Raises `ConfigError`."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    wanted = name or environ.get("TZ", "").removeprefix(":") or _linked(local_time)
    if not wanted:
        raise ConfigError("this machine does not say which time zone it is in", hint=_WRITE)
    if wanted.upper() in ("UTC", "GMT", "Z"):
        return UTC
    try:
        return ZoneInfo(wanted)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # unknown; not a name but a path; a folder of zones
        raise _unknown(wanted, is_ours=not name) from None


def _linked(local_time: Path) -> str:
    """The name that a link such as `/usr/share/zoneinfo/Europe/Vienna` ends with; empty when it is no link."""
    try:
        target = os.readlink(local_time)
    except OSError:
        return ""
    _, found, name = target.replace("\\", "/").partition("zoneinfo/")
    return name if found else ""


def _unknown(name: str, *, is_ours: bool) -> ConfigError:
    from zoneinfo import available_timezones

    if is_ours:
        return ConfigError(f"this machine's time zone, {show(name)}, is none that is known", hint=_WRITE)
    known = available_timezones()
    if not known:
        return ConfigError(
            f"no time zone is known on this machine, so neither is {show(name)}",
            hint="install the time zone data: pip install tzdata",
        )
    return ConfigError(f"{show(name)} is not a time zone", hint=did_you_mean(name, sorted(known)) or _WRITE)
