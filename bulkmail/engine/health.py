"""How a relay is doing: when it may be bothered again, how gradually sessions open, when to give up on it."""

from __future__ import annotations

from collections.abc import Callable

from bulkmail.model.retry import RELAY_BACKOFF, Backoff


class Health:
    """Pure bookkeeping about one relay; every method is plain arithmetic on the times it is given (seconds, monotonic).

    Opening is gradual, one until the first has succeeded: then at most as many sessions at once as are open already, so
    that a wrong password is tried once and not by the whole pool; where nobody logs in, three times as many.
    """

    def __init__(
        self, limit: Callable[[], int], *, patience: float, backoff: Backoff = RELAY_BACKOFF, logs_in: bool = True
    ) -> None:
        """`limit` is the most sessions that it bears just now."""
        self._limit = limit
        self._at_once = 1 if logs_in else 3  # sessions that may be opening for each that is open
        self.open = 0
        self.opening = 0
        self.is_proven = False
        self.resume_at = 0.0
        self._patience = patience
        self._backoff = backoff
        self._failures = 0
        self._failing_since: float | None = None

    def may_open(self, now: float) -> bool:
        """Whether one more session may be opened now."""
        if now < self.resume_at or self.open + self.opening >= self.limit:
            return False
        return self.opening < (1 if self._failures else max(1, self.open * self._at_once))

    def trouble(self, now: float, *, dice: float, asked: float = 0.0) -> None:
        """The relay failed: leave it alone for a while.  Several failures within one such while count as one.

        `asked` is for how many seconds it wants that itself, 0 when it did not say.
        """
        if self._failing_since is None:
            self._failing_since = now
        if now >= self.resume_at:
            self._failures += 1
            self.resume_at = now + self._backoff.wait(self._failures, dice=dice)
        self.resume_at = max(self.resume_at, now + asked)

    def fine(self) -> None:
        """The relay dealt with a message, whatever it thought of it."""
        self._failures = 0
        self._failing_since = None

    @property
    def limit(self) -> int:
        """The most sessions at a time, as far as is known just now."""
        return self._limit()

    @property
    def is_failing(self) -> bool:
        """Whether it has dealt with nothing since it failed."""
        return self._failing_since is not None

    def is_hopeless(self, now: float) -> bool:
        """Whether it has failed for longer than patience allows."""
        return self._failing_since is not None and now - self._failing_since >= self._patience
