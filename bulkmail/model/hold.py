"""Why nothing may go just now, and until when: the one answer of everything that can say "not now"."""

from __future__ import annotations

import math

from bulkmail.model.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing goes before `until`, because of `why`: half a sentence.

    `until` is seconds of the clock of anyone who says it, by the clock on the wall unless something else is said;
    infinity when time alone does not help.  `is_planned` tells whether hours, quotas, limits and retries ask for that,
    rather than a relay that fails.
    """

    until: float
    why: str
    is_planned: bool = True

    def lasts(self, now: float, *, longest: float = math.inf) -> bool:
        """Whether it is not over at `now`; one that would last more than `longest` seconds came of a wrong clock."""
        return now < self.until <= now + longest

    def extended(self, now: float, seconds: float, why: str, *, longest: float = math.inf) -> Hold:
        """Until at least `seconds` from now, `longest` at most; one that lasts longer already stays."""
        until = now + min(seconds, longest)
        return self if self.lasts(now, longest=longest) and self.until >= until else Hold(until, why)


NO_HOLD = Hold(-math.inf, "")
"""What is over at any time."""
