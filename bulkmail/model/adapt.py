"""How a rate and a number of sessions yield to a server's complaints at once and come back slowly (AIMD)."""

from __future__ import annotations

import math
from dataclasses import replace

from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.model.rate import Rate
from bulkmail.model.timing import (
    COMPLAINTS_MERGED_WITHIN,
    CONCURRENCY_RETRIED_AFTER,
    CONCURRENCY_RETRIED_WITHIN,
    PEAK_REACHED_BY,
    PEAK_REACHED_IN,
    RATE_DOUBLES_ABOVE_PEAK_IN,
    RATE_DOUBLES_BELOW_PEAK_IN,
)

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
class Share:
    """How much is taken between two complaints.

    A server that refuses every fourth message at any rate refuses no less of them at a lower one: then the rate stays,
    or a run would come to a standstill.
    """

    taken: int = 0
    refused: int = 0
    last: float = 0.0
    in_vain: int = 0
    since: float = -math.inf

    def take(self, count: int = 1) -> Share:
        """`count` more were taken."""
        return replace(self, taken=self.taken + count)

    def complain(self, now: float) -> Share:
        """One more was refused.  Those within 2 s are one complaint."""
        if 0 <= now - self.since < COMPLAINTS_MERGED_WITHIN:
            return replace(self, refused=self.refused + 1)
        share = self.taken / (self.taken + self.refused + 1)
        is_same = MOSTLY[0] <= share < MOSTLY[1] and abs(share - self.last) <= 0.1
        return Share(last=share, in_vain=self.in_vain + 1 if is_same else 0, since=now)

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
