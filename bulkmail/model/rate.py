"""Send rates as arithmetic: one, several booked together, one that yields to complaints; nothing sleeps here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.model.timing import (
    COMPLAINTS_MERGED_WITHIN,
    CONCURRENCY_RETRIED_AFTER,
    CONCURRENCY_RETRIED_WITHIN,
    PEAK_REACHED_BY,
    PEAK_REACHED_IN,
    RATE_DOUBLES_ABOVE_PEAK_IN,
    RATE_DOUBLES_BELOW_PEAK_IN,
)

# -- Send rate as arithmetic: who may go when.  The sleeping is done elsewhere.


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


@dataclasses.dataclass(frozen=True, slots=True)
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


# -- Several rates that a message must all respect, booked together or not at all.


class RateLimiter:
    """Rates by name (`"campaign"`, a relay's, a provider's) and how far each is booked.  Names without a rate are free.

    Every method is plain arithmetic on the times it is given: seconds of one clock that never goes back.  For every
    name, no window of T seconds holds more than `burst + per_second × T` of what `take()` said True to, in whatever
    order the names were asked for; while a rate is being changed, the highest of the window counts.
    """

    __slots__ = ("_before", "_rates", "_tats", "booked")

    def __init__(self, rates: Mapping[str, Rate] | None = None) -> None:
        self._rates: dict[str, Rate] = dict(rates or {})
        self._tats: dict[str, float] = {}
        self.booked: Mapping[str, float] = {}  # by the last `take()`: what `give_back()` undoes
        self._before: dict[str, float] = {}

    def rate(self, name: str) -> Rate | None:
        """The rate of `name`; None when it is free."""
        return self._rates.get(name)

    def wait(self, names: Iterable[str], now: float) -> float:
        """Seconds until one message may go that counts for all of `names`; 0 when it may go now."""
        longest = 0.0
        for name in names:
            rate = self._rates.get(name)
            if rate is not None:
                longest = max(longest, rate.wait(self._tats.get(name, -math.inf), now))
        return longest

    def take(self, names: Iterable[str], now: float) -> bool:
        """Books one message for all of `names`, each once; False, and nothing is booked, when one of them must wait."""
        booked: dict[str, float] = {}
        for name in names:
            rate = self._rates.get(name)
            if rate is not None:
                tat = self._tats.get(name, -math.inf)
                if rate.wait(tat, now) > 0:
                    return False
                booked[name] = rate.take(tat, now)
        self.booked, self._before = booked, {name: self._tats.get(name, -math.inf) for name in booked}
        self._tats.update(booked)
        return True

    def give_back(self, booked: Mapping[str, float]) -> None:
        """The message that `booked` was for did not go.  Without effect once another was booked, or a rate changed."""
        if booked is self.booked:
            for name, tat in self._before.items():
                if self._tats.get(name) == booked[name]:
                    self._tats[name] = tat
            self._before = {}

    def turn(self, name: str, rate: Rate | None, now: float) -> None:
        """From now on `name` goes at `rate`; None frees it.

        What is booked ahead stays booked, counted in messages: a relay that asked for less does not get a burst first.
        """
        old = self._rates.pop(name, None)
        if rate is None:
            self._tats.pop(name, None)
            return
        self._rates[name] = rate
        if old is not None and name in self._tats:
            ahead = max(0.0, self._tats[name] - now) * old.per_second
            self._tats[name] = now + ahead / rate.per_second

    def forget(self, now: float, *, beginning: str) -> None:
        """Frees the names that begin so and have nothing booked ahead: their next message is as good as a first."""
        for name in [name for name in self._rates if name.startswith(beginning)]:
            if self._tats.get(name, -math.inf) <= now:
                self._rates.pop(name)
                self._tats.pop(name, None)


# -- How a rate and a number of sessions yield to a server's complaints at once and come back slowly (AIMD).


FLOOR = 1 / 60  # messages a second: no rate falls below one a minute; to stop sending, there are suspensions
KEPT = 0.9  # of the rate that the server was seen to take, after it complained
CUT = 0.7  # of our own rate, when the server took less than that
BLOCKED = 0.5  # messages a second, at the most, while the server takes nothing
LAG = 1.5  # by how much, at the most, what was seen is below a rate that was rising
BOUNDLESS = 10_000.0  # messages a second: above it no rate is held any more


@dataclass(frozen=True, slots=True)
class AdaptiveRate:
    """The rate that a provider or relay accepts.  Rates are messages a second, times are monotonic seconds.

    `limit` is what was configured, None for no limit.  Nothing is held until the server complains.  Then the rate falls
    at once below what the server was seen to take.  A first complaint says little about what that is in the long run,
    as a burst may have been the reason: from there the rate doubles every 5 s, until the next complaint comes at a
    `peak` that was kept evenly.  From then on it doubles only up to nine tenths of the peak, goes up to it in a
    straight line (20 s or 60 messages), and doubles every 5 minutes above, until `limit`.  So a server with a fixed
    limit sees it tried now and then by little, and one that relented is used again within the hour.

    While the server takes nothing at all (`is_blocked`), single messages are tried ever more seldom, down to one a
    minute, until it takes one: then the peak is what it took in the long run, as most such servers count by the minute.
    """

    limit: float | None = None
    low: float | None = None
    peak: float = BOUNDLESS
    since: float = 0.0
    is_blocked: bool = False

    def now(self, now: float) -> float | None:
        """Messages a second at the moment; None when nothing holds them."""
        if self.low is None:
            return self.limit
        rate = self.low if self.is_blocked else self._risen(max(0.0, now - self.since))
        if self.limit is not None:
            return min(rate, self.limit)
        return rate if rate < BOUNDLESS else None

    def _risen(self, passed: float) -> float:
        """Messages a second so long after the last complaint."""
        low = self.low or FLOOR
        near = max(low, KEPT * self.peak)
        feeling = RATE_DOUBLES_BELOW_PEAK_IN * math.log2(near / low)
        climbing = max(PEAK_REACHED_IN, PEAK_REACHED_BY / self.peak) * (self.peak - near) / (self.peak * (1 - KEPT))
        if passed < feeling:
            return float(low * 2.0 ** (passed / RATE_DOUBLES_BELOW_PEAK_IN))
        if passed < feeling + climbing:
            return near + (self.peak - near) * (passed - feeling) / climbing
        # The exponent is capped: a laptop may sleep for a year.
        return float(self.peak * 2.0 ** min((passed - feeling - climbing) / RATE_DOUBLES_ABOVE_PEAK_IN, 60.0))

    def lowered(self, now: float, *, seen: float) -> AdaptiveRate:
        """After a complaint; `seen` is what the server took a second lately.

        Complaints in the same 2 s count as one.
        """
        if self.low is not None and 0 <= now - self.since < COMPLAINTS_MERGED_WITHIN:
            return self
        current = self.now(now)
        if seen <= 0:
            low, peak = min(BLOCKED, CUT * (BLOCKED if current is None else current)), self.peak
        elif self.low is None or current is None:
            low, peak = self._below(seen, current), BOUNDLESS
        else:
            low, peak = self._below(seen, current), min(current, LAG * seen)
        floor = FLOOR if self.limit is None else min(FLOOR, self.limit)
        low = max(floor, low)
        return replace(self, low=low, peak=max(low, peak), since=now, is_blocked=seen <= 0)

    @staticmethod
    def _below(seen: float, current: float | None) -> float:
        return KEPT * seen if current is None or seen < current else CUT * current

    def opened(self, now: float, *, sustained: float) -> AdaptiveRate:
        """After it took one although it was blocked; `sustained` is what it took a second in the long run."""
        low = self.low or FLOOR
        return replace(self, since=now, is_blocked=False, peak=max(low, sustained or self.peak))

    def is_rising(self, now: float) -> bool:
        """Whether it is about to rise, if nothing is throttled."""
        return self.is_lowered(now) and not self.is_blocked

    def is_lowered(self, now: float) -> bool:
        """Whether the server's complaints still hold us back."""
        return self.low is not None and self.now(now) != self.limit

    def rate(self, now: float, *, burst: int = 1) -> Rate | None:
        """What a `RateLimiter` keeps; while it is lowered there are no bursts, which is what servers complain of."""
        per_second = self.now(now)
        if per_second is None:
            return None
        return Rate(per_second, 1 if self.is_lowered(now) else burst)


MOSTLY = 0.5, 0.9  # shares taken between two complaints that may have nothing to do with the rate
IN_VAIN = 2  # times in a row that the rate was lowered and the same share was taken


@dataclass(frozen=True, slots=True)
class ComplaintShare:
    """How much is taken between two complaints.

    A server that refuses every fourth message at any rate refuses no less of them at a lower one: then the rate stays,
    or a run would come to a standstill.
    """

    taken: int = 0
    refused: int = 0
    last: float = 0.0
    in_vain: int = 0
    since: float = -math.inf

    def take(self, count: int = 1) -> ComplaintShare:
        """`count` more were taken."""
        return replace(self, taken=self.taken + count)

    def complain(self, now: float) -> ComplaintShare:
        """One more was refused.  Those within 2 s are one complaint."""
        if 0 <= now - self.since < COMPLAINTS_MERGED_WITHIN:
            return replace(self, refused=self.refused + 1)
        share = self.taken / (self.taken + self.refused + 1)
        is_same = MOSTLY[0] <= share < MOSTLY[1] and abs(share - self.last) <= 0.1
        return ComplaintShare(last=share, in_vain=self.in_vain + 1 if is_same else 0, since=now)

    @property
    def is_in_vain(self) -> bool:
        """Whether to lower the rate has changed nothing."""
        return self.in_vain >= IN_VAIN


SUCCESSES = 100  # messages taken, for one more session


@dataclass(frozen=True, slots=True)
class ConcurrencyLimit:
    """How many sessions a provider or relay tolerates, between 1 and `limit`.  Times are monotonic seconds.

    A refusal for too many sessions leaves as many as were open; any other complaint halves them.  One more is tried
    after 100 messages were taken; a number that was refused after a minute, and each time that it is refused again
    after twice as long, up to an hour.
    """

    limit: int
    allowed: int = 0
    refused: int = 0
    retry_at: float = 0.0
    patience: float = 0.0
    since: float = -1e18
    taken: int = 0

    @property
    def size(self) -> int:
        """The most sessions at the moment."""
        return self.allowed or self.limit

    def refuse(self, now: float, *, open: int) -> ConcurrencyLimit:
        """The server said that there are too many; `open` are those that it tolerates beside the one it refused."""
        size = max(1, min(self.size, open))
        again = self.refused == size + 1
        if again and now < self.retry_at:  # several were opening at once; they are one question and one answer
            return replace(self, allowed=size, taken=0)
        patience = min(CONCURRENCY_RETRIED_WITHIN, self.patience * 2) if again else CONCURRENCY_RETRIED_AFTER
        return replace(
            self, allowed=size, refused=size + 1, retry_at=now + patience, patience=patience, since=now, taken=0
        )

    def halve(self, now: float) -> ConcurrencyLimit:
        """The server said that it is too much; complaints in the same 2 s count as one."""
        if 0 <= now - self.since < COMPLAINTS_MERGED_WITHIN:
            return self
        return replace(self, allowed=max(1, self.size // 2), since=now, taken=0)

    def take(self, now: float, count: int = 1) -> ConcurrencyLimit:
        """The server took `count` more messages."""
        if self.size >= self.limit:
            return self
        taken = self.taken + count
        was_refused = self.size + 1 == self.refused
        if now < self.retry_at if was_refused else taken < SUCCESSES:
            return replace(self, taken=min(taken, SUCCESSES))
        return replace(self, allowed=self.size + 1, taken=0)


class Meter:
    """How many messages a second were taken: the mean over the last one to two times `span` seconds, monotonic ones.

    The only one here that changes in place: it sees every message.
    """

    __slots__ = ("_before", "_begun", "_begun_before", "_count", "_span")

    def __init__(self, span: float = 2.0) -> None:
        self._span = span
        self._begun = 0.0
        self._count = 0
        self._before = 0
        self._begun_before = 0.0

    def take(self, now: float, count: int = 1) -> None:
        """`count` more were taken."""
        if not 0 <= now - self._begun < self._span:
            self._turn(now)
        self._count += count

    def per_second(self, now: float) -> float:
        """0 when nothing was taken lately."""
        if not 0 <= now - self._begun < self._span:
            self._turn(now)
        # Less than a second says little: 14 that were taken in the first 10 ms are 14 a second, not 1,400.
        passed = max(1.0, now - (self._begun_before if self._before else self._begun))
        return (self._before + self._count) / passed

    def _turn(self, now: float) -> None:
        if 0 <= now - self._begun < 2 * self._span:
            self._before, self._begun_before = self._count, self._begun
            self._begun += self._span
        else:
            self._before, self._begun_before, self._begun = 0, 0.0, now
        self._count = 0
