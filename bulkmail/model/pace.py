"""How fast and how patiently a campaign goes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

from bulkmail.model.breaker import BreakerLimits
from bulkmail.model.lane import MailboxProviders
from bulkmail.model.quota import NO_QUOTA, Quota
from bulkmail.model.ramp import Ramp
from bulkmail.model.rate import Rate
from bulkmail.model.retry import PROVIDER_BACKOFF, RELAY_BACKOFF, Backoff, RetryPolicy
from bulkmail.model.window import ALWAYS, Windows


class Durability(Enum):
    """What an outcome that we spoke of survives."""

    PROCESS = "process"  # kill -9
    POWER = "power"  # the plug pulled


@dataclass(frozen=True, slots=True)
class Pace:
    """Speed and patience of one run.  `rate` None is as fast as the relay takes it.

    `retry` is how often a recipient is tried again; `relay_backoff` and `provider_backoff` say how long to back off
    from a relay that fails or throttles, and from a provider that throttles.
    `wait` is how many seconds a run waits for the next deferred delivery before it ends and leaves it to the next run;
    infinity waits for all.  `patience` is how many seconds a relay that stopped working in the middle is tried again.
    `limit`, if not None, is the most deliveries begun in this run.  `start`, if not None, is the wall-clock second
    before which nothing goes.  `quota` holds for each account that messages go through.
    `providers` None are the known providers, none of them with limits.  `processes` is how many may be at work, all
    but one to compose; 0 is as many as are worth while.
    """

    rate: Rate | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    wait: float = 600.0
    patience: float = 300.0
    limit: int | None = None
    messages_per_session: int = 1000
    session_age: float = 300.0
    durability: Durability = Durability.PROCESS
    quota: Quota = NO_QUOTA
    windows: Windows = ALWAYS
    start: float | None = None
    ramp: Ramp | None = None
    mailbox_providers: MailboxProviders | None = None
    breakers: BreakerLimits = field(default_factory=BreakerLimits)
    relay_backoff: Backoff = RELAY_BACKOFF
    provider_backoff: Backoff = PROVIDER_BACKOFF
    processes: int = 0

    @property
    def waits_for_all(self) -> bool:
        """Whether the run goes on until nothing is deferred any more."""
        return math.isinf(self.wait)
