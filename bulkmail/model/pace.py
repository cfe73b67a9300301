"""How fast and how patiently a campaign goes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

from bulkmail.model.rate import Rate
from bulkmail.model.retry import RetryPolicy


class Durability(Enum):
    """What an outcome that we spoke of survives."""

    PROCESS = "process"  # kill -9
    POWER = "power"  # the plug pulled


@dataclass(frozen=True, slots=True)
class Pace:
    """Speed and patience of one run.  `rate` None is as fast as the relay takes it.

    `wait` is how many seconds a run waits for the next deferred delivery before it ends and leaves it to the next run;
    infinity waits for all.  `patience` is how many seconds a relay that stopped working in the middle is tried again.
    `limit`, if not None, is the most deliveries begun in this run.
    """

    rate: Rate | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    wait: float = 600.0
    patience: float = 300.0
    limit: int | None = None
    messages_per_session: int = 1000
    session_age: float = 300.0
    durability: Durability = Durability.PROCESS

    @property
    def waits_for_all(self) -> bool:
        """Whether the run goes on until nothing is deferred any more."""
        return math.isinf(self.wait)
