"""When to try again, as arithmetic: a delivery, and the opening of a session with a relay."""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
from collections import deque
from collections.abc import Callable

from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy import lazy_pattern
from bulkmail.model.quantities import parse_duration
from bulkmail.model.timing import (
    DISMISSALS_MERGED_WITHIN,
    FIRST_OPENINGS,
    LAST_WAIT_AT_LEAST,
    LATER_OPENINGS,
    LONGEST_ASKED_WAIT,
    OPENINGS_WINDOW,
)

# -- When to try again, as arithmetic.  The waiting is done elsewhere.


_STEP = lazy_pattern(r"\s*(?P<duration>[^*,]+?)\s*(?:\*\s*(?P<times>\d{1,4})\s*)?")


@dataclasses.dataclass(frozen=True, slots=True)
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


@dataclasses.dataclass(frozen=True, slots=True)
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


# -- When a session with one relay may be opened, and when to give up on it: the one place that decides both.


class Dismissals:
    """Sessions that a relay ends although they work, and what that says of the most messages in a session."""

    def __init__(self) -> None:
        self._at = -math.inf  # when it last did
        self._once_after: set[int] = set()  # messages after which it did
        self._most_carried = 0  # messages, in one session

    def carried(self, messages: int) -> None:
        """A session is over that has carried `messages`."""
        self._most_carried = max(self._most_carried, messages)

    def add(self, now: float, messages: int) -> int | None:
        """The relay ended a session that had carried `messages`, without a word of a limit.

        Returns 0 if that is the end of this session only; more if it is the most messages that it takes in a session,
        which is known when it happens twice and none carried more; None if several sessions end at once, which says
        more of the relay than of them.
        """
        before, self._at = self._at, now
        self.carried(messages)
        if messages in self._once_after and messages >= self._most_carried:
            return messages
        self._once_after.add(messages)
        return None if now - before < DISMISSALS_MERGED_WITHIN else 0


class OpeningBudget:
    """Pure bookkeeping about one relay; every method is plain arithmetic on the times it is given (seconds, monotonic).

    An opening has carried something when a recipient got an outcome of its own through it, accepted or refused.  One
    that carried nothing is never repeated without back-off, however it ended: refused, lost, or unused.  On top of
    that a relay through which nothing is carried sees at most 30 openings in the first minute and 6 a minute later.

    It has more attributes and methods than other classes: whether a session may be opened and whether the relay works
    answer one another, and in two classes each would ask the other.

    Opening is gradual, one until the first has succeeded: then at most as many sessions at once as are open already, so
    that a wrong password is tried once and not by the whole pool; without a login, three times as many.

    It has more attributes and methods than a class should, because one place decides: what is open, what openings came
    to, and whether the relay works at all.
    """

    def __init__(
        self, limit: Callable[[], int], *, patience: float, backoff: Backoff = RELAY_BACKOFF, logs_in: bool = True
    ) -> None:
        """`limit` is the most sessions that the relay takes at the moment."""
        self._limit = limit
        self._at_once = 1 if logs_in else 3  # sessions that may be opening for each that is open
        self.open = 0
        self.opening = 0
        self.leaving = 0  # of the open ones, those that are being closed by QUIT
        self.fruitful = 0  # of the open ones, those that have carried something
        self.is_proven = False
        self.resume_at = 0.0  # nothing goes through the relay before
        self.opens_at = 0.0  # no session is opened before
        self._patience = patience
        self._backoff = backoff
        self._failures = 0  # of the relay, in a row
        self.failing_since: float | None = None
        self._fruitless = 0  # openings that carried nothing, since one did
        self._begun_at = math.inf  # the first of those in `_begun`
        self._begun: deque[float] = deque(maxlen=FIRST_OPENINGS)  # when openings began since one carried something
        self.dismissals = Dismissals()

    # -- may one be opened?

    def may_open(self, now: float) -> bool:
        """Whether one more session may be opened now."""
        if self.wait(now) > 0 or self.open + self.opening >= self.limit:
            return False
        is_careful = self._failures or self._fruitless
        return self.opening < (1 if is_careful else max(1, self.open * self._at_once))

    def wait(self, now: float) -> float:
        """Seconds until a session may be opened, as far as that is a matter of time."""
        return max(0.0, self.resume_at - now, self.opens_at - now, self._most_wait(now))

    def _most_wait(self, now: float) -> float:
        """Seconds until the relay has room for one more opening that may carry nothing."""
        if now < self._begun_at + OPENINGS_WINDOW:
            return self._begun_at + OPENINGS_WINDOW - now if len(self._begun) >= FIRST_OPENINGS else 0.0
        if len(self._begun) < LATER_OPENINGS:
            return 0.0
        return self._begun[-LATER_OPENINGS] + OPENINGS_WINDOW - now

    @property
    def limit(self) -> int:
        """The most sessions at a time, as far as is known at the moment."""
        return self._limit()

    @property
    def is_crowded(self) -> bool:
        """Whether a session that is open should be closed, because there are more than the relay takes."""
        return self.open - self.leaving > self._limit()

    # -- what became of the openings

    def begin(self, now: float) -> None:
        """An opening begins; `opened()` or `failed()` follows."""
        if not self._begun:
            self._begun_at = now
        self._begun.append(now)
        self.opening += 1

    def opened(self) -> None:
        """It succeeded: the session is past its login."""
        self.opening -= 1
        self.open += 1
        self.is_proven = True

    def failed(self) -> None:
        """It did not.  Unless we gave it up ourselves, `back_off()` follows."""
        self.opening -= 1

    def carried(self) -> None:
        """The first recipient got an outcome of its own through a session."""
        self.fruitful += 1
        self._fruitless = 0
        self._begun.clear()

    def closed(self, now: float, *, carried: int, was_lost: bool, jitter: float) -> None:
        """A session that carried `carried` messages has ended; `was_lost` unless we closed it ourselves."""
        self.open -= 1
        self.dismissals.carried(carried)
        if carried:
            self.fruitful -= 1
        elif was_lost:
            self.back_off(now, jitter=jitter)
        else:
            self.opens_at = max(self.opens_at, now + self._backoff.wait(1, jitter=jitter))

    def back_off(self, now: float, *, jitter: float, asked: float = 0.0) -> None:
        """An opening carried nothing: no other begins for a while.  Several within one such while count as one.

        `asked` is for how many seconds the relay wants that itself, 0 when it did not say.
        """
        if now >= self.opens_at:
            self._fruitless += 1
            self.opens_at = now + self._cut(now, self._backoff.wait(self._fruitless, jitter=jitter))
        self.opens_at = max(self.opens_at, now + asked)

    # -- does the relay work at all?

    def record_failure(self, now: float, *, jitter: float, asked: float = 0.0) -> None:
        """The relay failed: leave it alone for a while.  Several failures within one such while count as one.

        `asked` as for `back_off()`.
        """
        if self.failing_since is None:
            self.failing_since = now
        if now >= self.resume_at:
            self._failures += 1
            self.resume_at = now + self._cut(now, self._backoff.wait(self._failures, jitter=jitter))
        self.resume_at = max(self.resume_at, now + asked)
        self.opens_at = min(self.opens_at, max(self.resume_at, self._gives_up_at))

    def record_success(self) -> None:
        """The relay dealt with a message: it accepted or refused it."""
        self._failures = 0
        self.failing_since = None

    @property
    def is_failing(self) -> bool:
        """Whether it has dealt with nothing since it failed."""
        return self.failing_since is not None

    def is_hopeless(self, now: float) -> bool:
        """Whether it has failed for as long as patience allows."""
        return now >= self._gives_up_at

    def patience_left(self, now: float) -> float:
        """Seconds until it has failed for as long as patience allows; infinity while it does not fail."""
        return max(0.0, self._gives_up_at - now)

    @property
    def _gives_up_at(self) -> float:
        return math.inf if self.failing_since is None else self.failing_since + self._patience

    def _cut(self, now: float, wait: float) -> float:
        """`wait`, but no longer than patience lasts: what is tried last is tried when it ends, and not long after."""
        return min(wait, max(self._gives_up_at - now, LAST_WAIT_AT_LEAST))
