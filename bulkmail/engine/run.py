"""What the senders of one run share: the work, the rate, the relay's health, and how the run is to end."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio

from bulkmail.engine.clock import Clock, SystemClock
from bulkmail.engine.health import Health
from bulkmail.engine.ports import Compose, Connect, Ending, Event, Observe
from bulkmail.engine.turnstile import Turnstile
from bulkmail.engine.work import Work
from bulkmail.model.pace import Pace
from bulkmail.outbox.journal import Journal
from bulkmail.outbox.outbox import Job, Outbox

IDLE = 5.0  # seconds an unused session is kept


def _nobody(event: Event) -> None:
    """Watches nothing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to do and by what means.

    `connections` is the most sessions at a time; `ready` is awaited before a job is taken; `wants` chooses the jobs.
    """

    outbox: Outbox
    compose: Compose
    connect: Connect
    relay_name: str
    connections: int
    pace: Pace = field(default_factory=Pace)
    observe: Observe = _nobody
    ready: Callable[[], Awaitable[None]] | None = None
    wants: Callable[[Job], bool] | None = None
    clock: Clock = field(default_factory=SystemClock)
    dice: Callable[[], float] = random.random


class Run:
    """The shared state.  Every change is made in one plain call without an await, so that nothing needs a lock."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.clock = plan.clock
        self.journal = Journal(plan.outbox)
        self.work = Work(plan.outbox, limit=plan.pace.limit, wants=plan.wants)
        self.turnstile = Turnstile(plan.pace.rate, plan.clock, pause=self.pause)
        self.health = Health(connections=useful_connections(plan), patience=plan.pace.patience)
        self.senders = 0
        self.ending: Ending | None = None
        self._wake = anyio.Event()

    def end(self, ending: Ending) -> None:
        """Begin nothing more.  The first reason stands, except that an error outranks the user's word."""
        if self.ending is None or (ending.error and not self.ending.error):
            self.ending = ending
        self.nudge()

    def nudge(self) -> None:
        """Something changed: whoever pauses looks again."""
        self._wake.set()
        self._wake = anyio.Event()

    async def pause(self, seconds: float) -> bool:
        """Returns after `seconds`, or sooner when something changed; False when the run is ending."""
        if self.ending is not None:
            return False
        async with anyio.create_task_group() as group:
            group.start_soon(self._alarm, seconds, group.cancel_scope)
            await self._wake.wait()
            group.cancel_scope.cancel()
        return self.ending is None

    async def _alarm(self, seconds: float, scope: anyio.CancelScope) -> None:
        await self.clock.sleep(seconds)
        scope.cancel()


def useful_connections(plan: Plan) -> int:
    """No more sessions than the rate keeps busy: one that waits long for its turn is closed by the server."""
    rate = plan.pace.rate
    if rate is None:
        return plan.connections
    return min(plan.connections, math.ceil(rate.per_second * IDLE) + rate.burst)
