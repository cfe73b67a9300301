"""Several rates that a message must all respect, booked together or not at all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from bulkmail.model.rate import Rate


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
