"""One of the relays of a run: how it is doing, how fast it may go, and whether it has room."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import anyio

from bulkmail.engine.account import Account
from bulkmail.engine.clock import Clock
from bulkmail.engine.contracts import Outlet
from bulkmail.engine.provider_use import ProviderUse
from bulkmail.model.breaker import Strikes
from bulkmail.model.errors import BulkmailError
from bulkmail.model.outcome import Fault, Reply
from bulkmail.model.pace import Pace
from bulkmail.model.rate import Rate
from bulkmail.model.retry import OpeningBudget
from bulkmail.model.shaper import Shaper
from bulkmail.model.timing import IDLE_SESSION_KEPT, RELAY_FULL_AFTER, SILENCE_NOTED_AFTER, SILENCE_NOTED_AGAIN_AFTER


class Silence:
    """For how long the server of a relay has not answered although it is its turn."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._awaiting = 0  # sessions that are opening, or under way
        self._turned_at = clock.monotonic()  # when one of them last began to be
        self._reported = 0.0

    @contextmanager
    def awaiting(self) -> Iterator[None]:
        """While the server has to do something."""
        self._awaiting += 1
        self._turned_at = self._clock.monotonic()
        try:
            yield
        finally:
            self._awaiting -= 1

    def to_tell(self, now: float, *, moved_at: float) -> float:
        """Seconds since `moved_at`, when the server last dealt with something; 0 while there is nothing to tell."""
        silence = now - max(moved_at, self._turned_at)
        if not self._awaiting or silence < SILENCE_NOTED_AFTER:
            self._reported = 0.0
        elif not self._reported or silence - self._reported >= SILENCE_NOTED_AGAIN_AFTER:
            self._reported = silence
            return silence
        return 0.0


class RelayState:
    """Shared by the workers that hold sessions with one relay.

    `error`, once set, is why it gets nothing any more in this run.  `idle` are its workers without anything to do,
    `in_hand` the jobs they have, `moved_at` (monotonic) is when one was last begun or dealt with.  `failure` is how it
    failed last.  `turn` is held by the worker whose message is next, where rates make them wait.

    It has more attributes than a class should: what a run knows of one relay is in one place, the limits that were
    configured for it and how it is doing; the arithmetic is that of its parts.
    """

    def __init__(
        self,
        outlet: Outlet,
        *,
        pace: Pace,
        shaper: Shaper,
        clock: Clock,
        account: Account,
    ) -> None:
        """`shaper` keeps the rates of all relays."""
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
        self.turn = anyio.Lock()
        self.health = OpeningBudget(
            partial(shaper.connections, self.name),
            patience=pace.patience,
            backoff=pace.relay_backoff,
            logs_in=bool(route.relay.username),
        )
        self.provider_use = ProviderUse()
        self.account = account
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
        self.silence = Silence(clock)

    def rate_wait(self, now: float) -> float:
        """Seconds until the next message could go, apart from those that wait and from its provider."""
        return self._shaper.relay_wait(self.name, now)

    def wait_for_turn(self, now: float) -> float:
        """Seconds until a worker that begins to wait now could go, as far as is known."""
        ahead = self.turn.statistics().tasks_waiting + self.turn.locked()
        return self.rate_wait(now) + (ahead * self._shaper.spacing(self.name) if ahead else 0.0)

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
        is_held = self.account.hold() or self._shaper.relay_wait(self.name, now) > RELAY_FULL_AFTER
        return not (self.is_out or self.health.is_failing or self.is_full(now) or is_held)

    def is_hopeful(self, now: float) -> bool:
        """Whether it may still be usable in this run, as far as is known now."""
        return not (self.is_out or self.health.is_hopeless(now) or self.account.hold())

    def is_full(self, now: float) -> bool:
        """Whether it has had no room for long: every sender is busy, or held back by the relay's own rate."""
        if now - self.moved_at <= RELAY_FULL_AFTER or self.idle:
            return False
        return self.in_hand > 0 or (self._shaper.own_wait(self.name, now) > 0)


def useful_connections(connections: int, rates: Sequence[Rate | None]) -> int:
    """No more sessions than the rates keep busy: one that waits long for its turn is closed by the server."""
    return min([connections, *(math.ceil(rate.per_second * IDLE_SESSION_KEPT) + rate.burst for rate in rates if rate)])
