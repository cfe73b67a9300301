"""What a run is to do, and by what means."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import field

from bulkmail.engine.clock import Clock, SystemClock
from bulkmail.engine.contracts import Compose, Event, Observe, Outlet, QueueKey, Sign, Store
from bulkmail.model.breaker import Breaker
from bulkmail.model.lazy import dataclass
from bulkmail.model.pace import Pace
from bulkmail.model.route import MailboxProviders
from bulkmail.model.shaper import Feedback, Shaper, Slowdown


def _unobserved(event: Event) -> None:
    """Ignores every event."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to do and by what means.

    It has more attributes than a class should, because it is all that a run is given; nearly all have a default.

    `serving` says which of `outlets`, by number, the jobs of each queue of `store` may go through; None is one
    queue, 0, through all.  `providers` names the provider of a queue that has but one; in the others every domain is
    what `lanes` says.  `shaper` is that of an earlier part of the same campaign.  `sign`, if not None, finishes what
    `compose` made, in a thread.  `ready` is awaited before a job is taken.  `breaker` watches in place of the usual
    one.  `planned_until` is the latest planned time of a delivery, wall-clock seconds, that the run waits for however
    short its `wait` is.
    """

    store: Store
    compose: Compose
    outlets: Sequence[Outlet]
    serving: Mapping[QueueKey, Sequence[int]] | None = None
    pace: Pace = field(default_factory=Pace)
    lanes: MailboxProviders = field(default_factory=MailboxProviders)
    providers: Mapping[QueueKey, str] = field(default_factory=dict)
    shaper: Shaper | None = None
    feedback: Feedback = field(default_factory=Feedback)
    sign: Sign | None = None
    observe: Observe = _unobserved
    ready: Callable[[], Awaitable[None]] | None = None
    breaker: Breaker | None = None
    planned_until: float = 0.0
    clock: Clock = field(default_factory=SystemClock)
    rng: Callable[[], float] = random.random


def make_shaper(lanes: MailboxProviders, pace: Pace, *, known: Iterable[Slowdown] = ()) -> Shaper:
    """Keeps the rates of a campaign and lowers them; `known` are the slowdowns of the past, in monotonic seconds."""
    return Shaper(
        lanes, rate=pace.rate, relay_backoff=pace.relay_backoff, provider_backoff=pace.provider_backoff, known=known
    )
