"""When to try again, as arithmetic.  The waiting is done elsewhere."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

from bulkmail.model.errors import ConfigError
from bulkmail.model.pattern import lazy_pattern
from bulkmail.model.timing import LONGEST_ASKED_WAIT
from bulkmail.model.units import parse_duration

_STEP = lazy_pattern(r"\s*(?P<duration>[^*,]+?)\s*(?:\*\s*(?P<times>\d{1,4})\s*)?")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How patient to be with a recipient that was deferred.  All times are seconds.

    Without `schedule` the waits double from `first` up to `longest`.  With one they are its steps, after the last of
    which the delivery expires.  Either way it also expires after `max_attempts` tries and before it is `max_age` old.
    Each wait is spread over 50 % to 150 % of itself, so that many deferred together do not return together; half a
    wait is still long enough for greylisting at the default of 300 s.  A written schedule is kept exactly.
    """

    first: float = 300.0
    longest: float = 4000.0
    max_attempts: int = 20
    max_age: float = 5 * 86400.0
    schedule: tuple[float, ...] = ()

    def delay(self, attempts: int, *, age: float, jitter: float, asked: float = 0.0) -> float | None:
        """Seconds until try number `attempts + 1`; None when the delivery expires instead.

        `attempts` are those made (1 or more), `age` the seconds since the first, `jitter` a random number in [0, 1).
        `asked` is how long the server asks us to back off: it makes a wait longer, never shorter.
        """
        if attempts >= self.max_attempts:
            return None
        if self.schedule:
            if attempts > len(self.schedule):
                return None
            wait = self.schedule[attempts - 1]
        else:
            wait = min(self.longest, self.first * _doubled(attempts)) * (0.5 + jitter)
        wait = max(wait, asked)
        return wait if age + wait <= self.max_age else None


def parse_schedule(text: str) -> tuple[float, ...]:
    """The waits in `"1m, 5m*2, 1h*3"`, in seconds.  Raises `ConfigError`."""
    waits: list[float] = []
    for step in text.split(","):
        found = _STEP.fullmatch(step)
        if not found:
            raise ConfigError(f"cannot read {step.strip()!r} in a retry schedule", hint='write "1m, 5m*2, 1h*3"')
        waits += [parse_duration(found["duration"])] * int(found["times"] or 1)
    if not 0 < len(waits) <= 1000:
        raise ConfigError("a retry schedule has 1 to 1000 steps", hint='write "1m, 5m*2, 1h*3"')
    return tuple(waits)


# "try again in 5 minutes", "retry after 300 seconds", "please wait 2 hours", "Retry in: 90s", "again in 00:05:00"
_ASKED = lazy_pattern(
    r"(?:\b(?:again|retry|retried|back|come back|wait|resend)\b[^.;\d]{0,20}|\bdeferred for |\bgr[ea]y.?listed for )"
    r"(?:(?P<clock>\d{1,2}:\d{2}:\d{2})|(?P<number>\d{1,7})\s*(?P<unit>s|sec|secs|seconds?|m|min|mins|minutes?|h|hrs?|hours?|days?))\b",
    re.IGNORECASE,
)
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def asked_wait(text: str, *, longest: float = LONGEST_ASKED_WAIT) -> float:
    """Seconds that a server's reply asks us to back off, at most `longest`; 0 when it names no time."""
    found = _ASKED.search(text)
    if not found:
        return 0.0
    if found["clock"]:
        hours, minutes, seconds = (int(part) for part in found["clock"].split(":"))
        return min(longest, hours * 3600.0 + minutes * 60.0 + seconds)
    return min(longest, int(found["number"]) * _UNITS[found["unit"][0].lower()])


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)})[a-z]*\.?"
# "1 Dec 2026", "Dec 1, 2026", "2026-12-01", each with a time of day behind it or without
_CLOCK = r"(?:[ T,]{1,3}(?:at )?(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2}))?(?:\.\d+)?)?"
_ZONE = r"(?: ?(?P<sign>[+-])(?P<zone_hours>\d{2}):?(?P<zone_minutes>\d{2}))?"
_DATES = tuple(
    lazy_pattern(rf"\b{day}(?!\d){_CLOCK}{_ZONE}", re.IGNORECASE)
    for day in (
        rf"(?P<day>\d{{1,2}})[ -]{_MONTH}[ -](?P<year>20\d\d)",
        rf"{_MONTH} (?P<day>\d{{1,2}})(?:st|nd|rd|th)?,? (?P<year>20\d\d)",
        r"(?P<year>20\d\d)-(?P<number>\d{2})-(?P<day>\d{2})",
    )
)


def asked_until(text: str) -> float | None:
    """The wall-clock second that a server's words name, in UTC where they name no zone; None when they name no day."""
    for pattern in _DATES:
        if (found := pattern.search(text)) is not None:
            named = found.groupdict()
            month = named.get("month")
            offset = int(named["zone_hours"] or 0) * 3600 + int(named["zone_minutes"] or 0) * 60
            try:
                moment = datetime.datetime(
                    int(named["year"]),
                    _MONTHS.index(month.lower()) + 1 if month else int(named["number"]),
                    int(named["day"]),
                    int(named["hour"] or 0),
                    int(named["minute"] or 0),
                    int(named["second"] or 0),
                    tzinfo=datetime.UTC,
                )
            except ValueError:  # 31 February
                return None
            return moment.timestamp() - (offset if named["sign"] == "+" else -offset)
    return None


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to back off from a relay or a provider after a number of failures or throttling replies in a row.

    In seconds.  Without `schedule` the waits double from `first` up to `longest`, each spread over 50 % to 100 % of
    itself.  With a schedule they are its steps, kept exactly; its last step repeats.
    """

    first: float = 60.0
    longest: float = 3600.0
    schedule: tuple[float, ...] = ()

    def wait(self, times: int, *, jitter: float, asked: float = 0.0, least: float = 0.0) -> float:
        """Seconds to back off after number `times` (1 or more), `jitter` being a random number in [0, 1).

        `least` is the shortest wait after such a reply: it doubles instead of `first`, is kept exactly the first time,
        then spread over 100 % to 150 %.  `asked` is how long the server asks us to back off: it makes a wait longer,
        never shorter.
        """
        if self.schedule:
            own = self.schedule[min(times, len(self.schedule)) - 1]
        elif least:
            own = least * _doubled(times) * (1.0 + jitter / 2 if times > 1 else 1.0)
            own = min(own, max(least, self.longest))
        else:
            own = min(self.longest, self.first * _doubled(times)) * (0.5 + jitter / 2)
        return max(own, asked)


def _doubled(times: int) -> float:
    # Capped because 2.0 ** 1100 is an error, not a long wait.
    return float(2.0 ** min(times - 1, 60))


RELAY_BACKOFF = Backoff(first=1.0, longest=300.0)
REFUSED_BACKOFF = Backoff(first=4.0, longest=300.0)
"""For a row that was refused because of us: long enough that another is tried before it."""
PROVIDER_BACKOFF = Backoff()
"""By an hour a provider has been lowered to a rate that hardly any provider minds."""
