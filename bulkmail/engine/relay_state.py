"""One of the relays of a run: how it is doing, how fast it may go, and whether it has room."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from bulkmail.engine.clock import Clock
from bulkmail.engine.contracts import Outlet
from bulkmail.engine.occupancy import Occupancy
from bulkmail.engine.permission import Permission
from bulkmail.engine.turnstile import Turnstile
from bulkmail.model.breaker import Strikes
from bulkmail.model.errors import BulkmailError
from bulkmail.model.opening import OpeningBudget
from bulkmail.model.pace import Pace
from bulkmail.model.rate import Rate
from bulkmail.model.reply import Fault, Reply
from bulkmail.model.shaper import Shaper
from bulkmail.model.timing import IDLE_SESSION_KEPT, RELAY_FULL_AFTER, SILENCE_NOTED_AFTER, SILENCE_NOTED_AGAIN_AFTER


class RelayState:
    """Shared by the workers that hold sessions with one relay.

    `error`, once set, is why it gets nothing any more in this run.  `idle` are its workers without anything to do,
    `in_hand` the jobs they have, `moved_at` (monotonic) is when one was last begun or dealt with.  `failure` is how it
    failed last.
    """

    def __init__(
        self,
        outlet: Outlet,
        *,
        pace: Pace,
        shaper: Shaper,
        clock: Clock,
        pause: Callable[[float], Awaitable[bool]],
        permission: Permission,
    ) -> None:
        """`shaper` keeps the rates of all relays; `pause` as for a turnstile."""
        route = outlet.route
        self.connect = outlet.connect
        self.name = route.label
        self.weight = route.weight or 1
        self.is_weighted = route.weight is not None
        self.priority = route.priority
        self.messages_per_session = route.messages_per_session or pace.messages_per_session
        self.session_age = route.session_age or pace.session_age
        self.patience = pace.patience
        self.most_connections = useful_connections(route.relay.connections, [pace.rate, route.rate])
        shaper.add_relay(self.name, connections=self.most_connections, rate=route.rate)
        self._shaper = shaper
        self.turnstile = Turnstile(shaper, self.name, clock, pause=pause)
        self.health = OpeningBudget(
            partial(shaper.connections, self.name),
            patience=pace.patience,
            backoff=pace.relay_backoff,
            logs_in=bool(route.relay.username),
        )
        self.occupancy = Occupancy()
        self.permission = permission
        self.workers = 0
        self.idle = 0
        self.in_hand = 0
        self.error: BulkmailError | None = None
        self.is_reported = False  # that it fails
        self.strikes = Strikes()
        self.is_on_trial = False  # refused for now because of us: one message at a time tries again
        self.trying: object | None = None  # which session does
        self.moved_at = clock.monotonic()
        self.failure: Reply | Fault | None = None
        self._clock = clock
        self._awaiting = 0  # sessions that are opening, or under way
        self._turned_at = self.moved_at  # when one of them last began to be
        self._told_silence = 0.0

    @contextmanager
    def awaiting(self) -> Iterator[None]:
        """While the server has to do something."""
        self._awaiting += 1
        self._turned_at = self._clock.monotonic()
        try:
            yield
        finally:
            self._awaiting -= 1

    def silence_to_tell(self, now: float) -> float:
        """Seconds for which the server has not answered although it is its turn; 0 while there is nothing to tell."""
        silence = now - max(self.moved_at, self._turned_at)
        if not self._awaiting or silence < SILENCE_NOTED_AFTER:
            self._told_silence = 0.0
        elif not self._told_silence or silence - self._told_silence >= SILENCE_NOTED_AGAIN_AFTER:
            self._told_silence = silence
            return silence
        return 0.0

    @property
    def is_out(self) -> bool:
        """Whether it gets nothing any more."""
        return self.error is not None

    def may_try(self, session: object) -> bool:
        """Whether `session` may begin a message as far as a refusal of us is concerned; it `has_tried()` afterwards."""
        if self.is_on_trial and self.trying is None:
            self.trying = session
        return not self.is_on_trial or self.trying is session

    def has_tried(self, session: object) -> None:
        """Another may try."""
        if self.trying is session:
            self.trying = None

    def is_able(self, now: float) -> bool:
        """Whether it takes what it is given, so that others need not."""
        is_held = self.permission.rest() or self._shaper.relay_wait(self.name, now) > RELAY_FULL_AFTER
        return not (self.is_out or self.health.is_failing or self.is_full(now) or is_held)

    def is_hopeful(self, now: float) -> bool:
        """Whether it may be reckoned with in this run, as far as is known now."""
        return not (self.is_out or self.health.is_hopeless(now) or self.permission.rest())

    def is_full(self, now: float) -> bool:
        """Whether it has had no room for long: every sender is busy, or held back by the relay's own rate."""
        if now - self.moved_at <= RELAY_FULL_AFTER or self.idle:
            return False
        return self.in_hand > 0 or (self._shaper.own_wait(self.name, now) > 0)


def useful_connections(connections: int, rates: Sequence[Rate | None]) -> int:
    """No more sessions than the rates keep busy: one that waits long for its turn is closed by the server."""
    return min([connections, *(math.ceil(rate.per_second * IDLE_SESSION_KEPT) + rate.burst for rate in rates if rate)])
