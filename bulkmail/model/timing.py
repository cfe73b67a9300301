"""When nothing may go just now (`Hold`), and the times that scheduling lives by, in seconds, in one place."""

from __future__ import annotations

import math

from bulkmail.model.lazy import dataclass

# -- The times that scheduling lives by, in seconds, in one place.
#
# What users set (rates, retry schedules, patience, sending hours) is in `model/pace`; how long servers are waited for
# within a session, in `smtp/timeouts`; how a quota is reserved, beside its ledger.


# -- sessions that are open

IDLE_SESSION_KEPT = 5.0
"""How long a session without a message stays open; one whose next message is further away is closed before."""

# -- looking again: every change wakes the waiting workers as well

SHORT_WAIT = 0.5
"""Shorter waits for a rate are slept through, which costs less than watching for a change."""

PROVIDER_SESSIONS_CHECKED_AFTER = 0.05
"""When a message is looked at again whose provider has as many sessions busy as it may."""

OTHER_RELAY_CHECKED_AFTER = 1.0
"""When a worker looks again that leaves the next message to another relay."""

QUOTA_ANSWER_CHECKED_AFTER = 1.0
"""When a worker looks again that awaits the quota ledger's answer; too short for its session to be closed meanwhile."""

WALL_CLOCK_CHECKED_AFTER = 60.0
"""The longest wait for hours and quotas: the clock on the wall may be set, the machine asleep."""

# -- a relay that is silent, or full

SILENCE_NOTED_AFTER = 10.0
"""After how much silence of a server whose turn it is there is a notice."""

SILENCE_NOTED_AGAIN_AFTER = 60.0
"""After how much more silence there is another."""

RELAY_FULL_AFTER = 10.0
"""How long a relay may keep all its sessions busy without getting anywhere before others do its work."""

# -- throttling, and notices about it

COMPLAINTS_MERGED_WITHIN = 2.0
"""Complaints this close are about what was already under way, and count as one."""

SAME_NOTICE_AFTER = 60.0
"""How often a notice about the same relay or provider is given."""

ACCEPTED_COUNTED_WITHIN = 0.05
"""What was accepted within this time is counted in one step while nothing is slowed down."""

PROVIDERS_FORGOTTEN_EVERY = 10.0
"""How often providers with nothing to remember are looked for."""

LONGEST_SUSPENSION = 86_400.0
"""The longest pause of a relay or provider that throttles."""

LONGEST_ASKED_WAIT = 6 * 3600.0
"""A server that asks for more patience is asked again after this."""

LONGEST_ACCOUNT_PAUSE = 31 * 86_400.0
"""A provider whose quota ends on a later day is asked again after this."""

# -- a rate that was lowered, on its way up

RATE_DOUBLES_BELOW_PEAK_IN = 5.0
"""While it is far below every rate that was too high."""

PEAK_REACHED_IN = 20.0
"""For the last tenth up to a rate that was too high, or `PEAK_REACHED_BY` messages, whichever takes longer."""

PEAK_REACHED_BY = 60

RATE_DOUBLES_ABOVE_PEAK_IN = 300.0
"""Above every rate that was too high."""

RISING_RATE_UPDATED_EVERY = 0.5
"""How often the rate limiter is given the rate of the moment."""

RISING_RATE_CHECKED_AFTER = 1.0
"""The longest wait for a rate that is rising: the wait was calculated with a rate that is too low by then."""

# -- a number of sessions that was refused

CONCURRENCY_RETRIED_AFTER = 60.0
"""When it is tried again at first; twice as long each time that it is refused again."""

CONCURRENCY_RETRIED_WITHIN = 3600.0

# -- opening sessions

OPENINGS_WINDOW = 60.0
"""The window of `FIRST_OPENINGS` and `LATER_OPENINGS`."""

FIRST_OPENINGS = 30
"""Openings in the first window with a relay through which nothing is carried."""

LATER_OPENINGS = 6
"""The same in each later window."""

LAST_WAIT_AT_LEAST = 1.0
"""The wait that patience cuts short is not cut below this."""

# -- telling observers

OUTCOMES_TOLD_WITHIN = 0.2
"""After which observers hear of acceptances, if not before."""

LARGEST_BATCH = 512
"""Acceptances that they are told of at once."""

DISMISSALS_MERGED_WITHIN = 1.0
"""Sessions that a relay ends this close together are ended because of the relay."""

LOGIN_RETRIED_AFTER = 60.0
"""Where the relay counts logins."""


# -- Why nothing may go just now, and until when: the one answer of everything that can say "not now".


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing goes before `until`, because of `why`: half a sentence.

    `until` is seconds of the wall clock unless the place that makes it says otherwise;
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
