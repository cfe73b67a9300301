"""Send rate as arithmetic: who may go when.  The sleeping is done elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from bulkmail.model.errors import ConfigError
from bulkmail.model.pattern import lazy_pattern

_SECONDS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86400),
}
_UNITS = (("s", 1), ("min", 60), ("h", 3600), ("d", 86400))  # as a rate is shown
_PER = lazy_pattern(
    r"(?P<number>\d{1,9}(?:\.\d{1,6})?)\s*(?:/|per)\s*(?P<span>\d{1,6}(?:\.\d{1,3})?)?\s*(?P<unit>[a-z]+)"
)


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `burst + per_second × T` in any window of T seconds (generic cell rate algorithm, ITU-T I.371).

    The state is one number, the theoretical arrival time `tat`, which starts at minus infinity and is threaded through:
    `wait()` says how long until one may go, `take()` books it.  `per_second` is above 0, `burst` at least 1.
    """

    per_second: float
    burst: int = 1

    def wait(self, tat: float, now: float) -> float:
        """Seconds until one more may go; 0 when it may go now."""
        return max(0.0, tat - (self.burst - 1) / self.per_second - now)

    def take(self, tat: float, now: float) -> float:
        """The new `tat` after one went at `now`.  Only when `wait()` was 0."""
        return max(tat, now) + 1.0 / self.per_second

    @classmethod
    def parse(cls, text: str, *, burst: int | None = None) -> Rate:
        """The rate in `"50/s"`, `"3000/h"`, `"1 per 2s"`.  Raises `ConfigError`.

        Without `burst` it is what a twentieth of a second holds, at least 1: enough to make up for timers that wake a
        little late, so that the rate is reached and not just never exceeded.
        """
        found = _PER.fullmatch(text.strip().lower())
        unit = _SECONDS.get(found["unit"]) if found else None
        if not found or not unit or not float(found["number"]) or (found["span"] and not float(found["span"])):
            raise ConfigError(f"cannot read the rate {text!r}", hint='write "50/s", "3000/h" or "1 per 2s"')
        per_second = float(found["number"]) / (float(found["span"] or 1) * unit)
        return cls(per_second, max(1, int(per_second / 20)) if burst is None else burst)

    def __str__(self) -> str:
        """In the first unit that says it in full: `"2.5/s"`, `"50/min"`, `"100/h"`, else `"1 per 7s"`."""
        for name, seconds in _UNITS:
            number = self.per_second * seconds
            if number >= 1 and _is_whole(number * 10):
                return f"{round(number, 1):.12g}/{name}"
        gap = 1 / self.per_second
        for name, seconds in reversed(_UNITS):
            if _is_whole(gap / seconds):
                return f"1 per {gap / seconds:.0f}{name}"
        name, seconds = next(((n, s) for n, s in _UNITS if self.per_second * s >= 1), _UNITS[-1])
        return f"{self.per_second * seconds:.3g}/{name}"


def _is_whole(number: float) -> bool:
    return round(number) >= 1 and abs(number - round(number)) <= 1e-9 * number
