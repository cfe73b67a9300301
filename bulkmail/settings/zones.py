"""Time zones by name, and the one that this machine lives in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, tzinfo
from pathlib import Path

from bulkmail.model.errors import ConfigError
from bulkmail.settings.problems import show
from bulkmail.text import did_you_mean

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
    return ConfigError(f"{show(name)} is not a time zone", hint=did_you_mean(name, known) or _WRITE)
