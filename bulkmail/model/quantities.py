"""Numbers as people write and read them: prices with their digits, durations, sizes."""

from __future__ import annotations

import math

from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy import lazy_pattern

# -- Numbers that keep the digits they were written with: a price of 19.90 is not to become 19.9.


class Literal(float):
    """A number that prints as `text`, and calculates as any other."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Literal:
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[type[Literal], tuple[str]]:
        return Literal, (self.text,)


def read_number(text: str) -> float:
    """The number that JSON writes as `text`.  Raises `ValueError` for one that is too large."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large a number")
    return number if repr(number) == text else Literal(text)


# -- Durations and sizes as people write and read them.


_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_SHARE = lazy_pattern(r"(?P<percent>\d{1,3}(?:\.\d{1,4})?)\s*%")
_DURATION = lazy_pattern(r"(?P<number>\d{1,9}(?:\.\d{1,3})?)\s*(?P<unit>s|min|m|h|d)?")


def parse_duration(text: str) -> float:
    """Seconds in `"90"`, `"90s"`, `"10m"` or `"10min"`, `"1.5h"`, `"2d"`.  Raises `ConfigError`."""
    found = _DURATION.fullmatch(text.strip())
    if not found:
        raise ConfigError(f"cannot read the duration {text!r}", hint='write "30s", "10m", "2h" or "5d"')
    return float(found["number"]) * _SECONDS[found["unit"] or "s"]


def parse_share(text: str) -> float:
    """0 to 1 for `"0%"` to `"100%"`, `"0.5 %"`.  Raises `ConfigError`."""
    found = _SHARE.fullmatch(text.strip())
    if not found or float(found["percent"]) > 100:
        raise ConfigError(f"cannot read the share {text!r}", hint='write "5%", from 0% to 100%')
    return float(found["percent"]) / 100


def say_duration(seconds: float) -> str:
    """`seconds` in at most two units: `"0.4 s"`, `"12 s"`, `"3 min 20 s"`, `"2 h 5 min"`, `"3 d 4 h"`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, name, part, part_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {name}" + (f" {rest} {part_name}" if rest else "")
    return f"{whole} s"


def say_rate(per_second: float) -> str:
    """`"240/s"`, `"2.5/s"`, `"30/min"`: at least one figure that is not 0, where there is any."""
    if per_second >= 10 or not per_second:
        return f"{per_second:,.0f}/s"
    return f"{per_second:.1f}/s" if per_second >= 1 else f"{per_second * 60:.2g}/min"
