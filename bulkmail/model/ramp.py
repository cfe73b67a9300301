"""A beginning that grows day by day: how many recipients a new sender may write to on its n-th day."""

from __future__ import annotations

import math
import re

from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.model.pattern import lazy_pattern

DAY = 86400.0
MOST = 10**9  # recipients a day: by then it is no ramp any more
_HINT = 'write "200/day +30%", "200/day +100" or "200/day +30% up to 5000"'
_RAMP = lazy_pattern(
    r"(?P<first>\d{1,9})\s*(?:/|per|a)\s*(?:d|day)[\s,]*\+\s*(?P<step>\d{1,9}(?:\.\d{1,3})?)\s*(?P<percent>%)?"
    r"(?:\s*/\s*(?:d|day))?(?:[\s,]*(?:up )?to\s*(?P<top>\d{1,9}))?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Ramp:
    """`first` recipients on the first day, each day `percent` per cent and `more` recipients more, never over `top`.

    A day is 86,400 s from the first message of the campaign on, whatever the calendar says.
    """

    first: int
    percent: float = 0.0
    more: int = 0
    top: int | None = None

    def __str__(self) -> str:
        step = f"{self.percent:g}%" if self.percent else f"{self.more}"
        return f"{self.first}/day +{step}" + (f" up to {self.top}" if self.top is not None else "")

    def allowance(self, day: int) -> int:
        """How many on day number `day`, the first being 0.  Never fewer than the day before."""
        top = MOST if self.top is None else self.top
        if self.percent:
            # In logarithms: a campaign of three years would be over what a double holds.
            steep = day * math.log1p(self.percent / 100) + math.log(self.first)
            grown = top if steep > math.log(MOST) else math.floor(self.first * (1 + self.percent / 100) ** day + 1e-9)
        else:
            grown = self.first + self.more * day
        return min(top, grown)

    def day(self, began_at: float, now: float) -> int:
        """Which day it is; 0 also when the clock was set back to before the beginning."""
        return max(0, math.floor((now - began_at) / DAY))

    def begins_at(self, began_at: float, day: int) -> float:
        """When day number `day` begins, wall-clock seconds."""
        return began_at + day * DAY


def parse_ramp(text: str) -> Ramp:
    """The ramp in `"200/day +30%"`, `"200/day +100"`, `"200/day +30% up to 5000"`.  Raises `ConfigError`."""
    found = _RAMP.fullmatch(text.strip())
    if not found or (not found["percent"] and "." in found["step"]):
        raise ConfigError(f"cannot read the ramp {text!r}", hint=_HINT)
    first, top = int(found["first"]), None if found["top"] is None else int(found["top"])
    if not first:
        raise ConfigError(f"the ramp {text!r} begins with nothing", hint=_HINT)
    if not float(found["step"]):
        raise ConfigError(
            f"the ramp {text!r} does not grow", hint=f'write quota = "{first}/day" for the same every day'
        )
    if top is not None and top < first:
        raise ConfigError(f"the ramp {text!r} ends below where it begins", hint=_HINT)
    if found["percent"]:
        if float(found["step"]) > 1000:
            raise ConfigError(f"the ramp {text!r} grows by more than 1000% a day", hint=_HINT)
        return Ramp(first, percent=float(found["step"]), top=top)
    return Ramp(first, more=int(found["step"]), top=top)
