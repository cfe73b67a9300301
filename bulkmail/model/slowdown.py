"""What a relay or a provider has complained of, what it is given since, and until when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from bulkmail.model.adapt import AdaptiveRate
from bulkmail.model.lazy_dataclass import dataclass

MOST_KEPT = 200  # relays and providers that are kept in mind for those who look on
LONGEST_WORDS = 400  # characters


@dataclass(frozen=True, slots=True)
class Slowdown:
    """A relay, or one provider through it, that has asked for less in this run.

    `provider` is empty for the relay itself.  It has throttled us `times`, last `at`; `why` is our name for it,
    `words` are the server's.  `speed` is how its rate rises again, None if it was never lowered, and `lowest` the
    lowest rate so far in messages a second.  `connections` is the most it gets, None for as many as configured.  We
    back off until `until`, 0 for not at all.  All times are seconds of one clock.
    """

    relay: str
    provider: str
    times: int
    at: float
    why: str
    words: str = ""
    speed: AdaptiveRate | None = None
    lowest: float | None = None
    connections: int | None = None
    until: float = 0.0

    @property
    def key(self) -> tuple[str, str]:
        """Relay and provider."""
        return self.relay, self.provider

    def is_left_alone(self, now: float) -> bool:
        """Whether nothing goes there at `now`."""
        return self.until > now

    def per_second(self, now: float) -> float | None:
        """Messages a second that it gets at `now`; None when its complaints do not hold them back any more."""
        return self.speed.now(now) if self.speed is not None and self.speed.is_lowered(now) else None

    def is_over(self, now: float) -> bool:
        """Whether it is treated as if it had never complained."""
        return not self.is_left_alone(now) and self.per_second(now) is None and self.connections is None

    def shifted(self, seconds: float) -> Slowdown:
        """The same by a clock that is `seconds` ahead."""
        return replace(
            self,
            at=self.at + seconds,
            until=self.until + seconds if self.until else 0.0,
            speed=None if self.speed is None else replace(self.speed, since=self.speed.since + seconds),
        )


class Slowdowns:
    """The latest of each relay and provider; above 200 the one that throttled longest ago is dropped."""

    def __init__(self, earlier: Iterable[Slowdown] = ()) -> None:
        self._each = {slowdown.key: slowdown for slowdown in earlier}

    def __iter__(self) -> Iterator[Slowdown]:
        """Relays first, then providers; in each group those that throttled most often first."""
        return iter(sorted(self._each.values(), key=lambda each: (each.provider != "", -each.times, each.key)))

    def __len__(self) -> int:
        return len(self._each)

    def note(self, slowdown: Slowdown) -> Slowdown | None:
        """Takes note; returns what was known of the same relay or provider before, if anything."""
        known = self._each.get(slowdown.key)
        self._each[slowdown.key] = slowdown
        if len(self._each) > MOST_KEPT:
            del self._each[min(self._each.values(), key=lambda each: each.at).key]
        return known
