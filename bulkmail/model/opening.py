"""When a session with one relay may be opened, and when to give up on it: the one place that decides both."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from bulkmail.model.outcome import Reason
from bulkmail.model.reply import Fault, Reply
from bulkmail.model.retry import RELAY_BACKOFF, Backoff
from bulkmail.model.timing import (
    DISMISSALS_MERGED_WITHIN,
    FIRST_OPENINGS,
    LAST_WAIT_AT_LEAST,
    LATER_OPENINGS,
    LOGIN_RETRIED_AFTER,
    OPENINGS_WINDOW,
)
from bulkmail.model.verdict import judge


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
    that carried nothing is never repeated without back-off, whatever ended it: refused, lost, or unused.  On top of
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
        self.leaving = 0  # of the open ones, those that say goodbye
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
        """The relay dealt with a message, whatever it thought of it."""
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


def login_wait(event: Reply | Fault) -> float:
    """Seconds to wait before another login: a minute where the relay counts them, else 0."""
    verdict = judge(event)
    return LOGIN_RETRIED_AFTER if verdict.reason is Reason.TOO_MANY_LOGINS and not verdict.stops else 0.0
