"""One of the relays of a run: how it does, its account, the providers its sessions are busy with, throttling."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from bulkmail.engine.contracts import Clock, Limits, Outlet, Slowed
from bulkmail.model.breaker import Strikes, say_slowed
from bulkmail.model.errors import BulkmailError
from bulkmail.model.outcome import Fault, Reply, Scope
from bulkmail.model.pace import Pace
from bulkmail.model.rate import Rate
from bulkmail.model.retry import OpeningBudget
from bulkmail.model.shaper import Shaper, Slowdown, ThrottleDecision
from bulkmail.model.timing import (
    ACCEPTED_COUNTED_WITHIN,
    IDLE_SESSION_KEPT,
    PROVIDERS_FORGOTTEN_EVERY,
    RELAY_FULL_AFTER,
    SAME_NOTICE_AFTER,
    SILENCE_NOTED_AFTER,
    SILENCE_NOTED_AGAIN_AFTER,
    Hold,
)

if TYPE_CHECKING:
    from bulkmail.engine.scheduler import Booking

# -- One of the relays of a run: how it is doing, what its account allows, which providers its sessions are busy with.


# -- What hours and quotas still let one relay do: asked before every message, answered without waiting.


log = logging.getLogger("bulkmail.engine")

Start = Callable[[Callable[[], Coroutine[Any, Any, None]]], object]
"""Starts a task that the run waits for."""


class Account:
    """The account behind a relay, as the scheduler uses it: plain calls on the loop, and a task that asks for more.

    `changed` is called when an answer has come, `failed` when none will.  Without limits everything may go.
    """

    def __init__(
        self,
        limits: Limits | None,
        *,
        clock: Clock,
        changed: Callable[[], None],
        failed: Callable[[BulkmailError], None],
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._changed = changed
        self._failed = failed
        self._start: Start | None = None
        self._is_asking = False
        self._answered = anyio.Event()
        self.is_free = limits is None or limits.is_free  # nothing needs to be taken, until the account is paused

    # -- for the workers

    @property
    def is_asking(self) -> bool:
        """Whether an answer is awaited; `changed` is called when it is here."""
        return self._is_asking

    def hold(self) -> Hold | None:
        """Why nothing may be begun now; None when something may, or might once it is asked for."""
        return None if self._limits is None else self._limits.rest(self._clock.now())

    @property
    def is_held(self) -> bool:
        """Whether nothing may be begun now, or an answer is awaited that says whether it may."""
        return self._is_asking or self.hold() is not None

    def may_begin(self) -> bool:
        """Whether one message may begin now.  If that is not known, it is asked for."""
        if self._limits is None:
            return True
        if not self.take():
            return False
        self.give_back()
        return True

    async def granted(self) -> bool:
        """As `may_begin()`, but waits for the answer if one is awaited."""
        while not self.may_begin():
            if not self._is_asking:
                return False
            await self._answered.wait()
        return True

    def take(self) -> bool:
        """Takes one message out of what is left; `give_back()` follows if nothing of it is attempted."""
        limits = self._limits
        if limits is None:
            return True
        now = self._clock.now()
        is_taken = limits.rest(now) is None and limits.take(1, now)
        if limits.is_running_low(now):
            self._ask()
        return is_taken

    def give_back(self) -> None:
        """Nothing was attempted of a message that was taken."""
        if self._limits is not None:
            self._limits.give_back(1)

    # -- for the run

    def use(self, start: Start) -> None:
        """From now on tasks are started by `start`."""
        self._start = start

    def pause(self, seconds: float, why: str) -> bool:
        """Pauses the account from this instant on, also for later runs; False when there is no ledger for it."""
        limits = self._limits
        if limits is None or self._start is None:
            return False
        self.is_free = False
        limits.pause(seconds, why, self._clock.now())
        self._start(self._remember)
        return True

    async def settle(self) -> None:
        """Tells what was spent, at the end of a run, also of one that is being aborted."""
        if self._limits is not None:
            try:
                with anyio.CancelScope(shield=True):  # a write to the disk
                    await self._limits.settle(self._clock.now())
            except BulkmailError as error:  # what is not given back counts as spent, and that is no harm
                log.warning("the quota ledger was not settled", extra={"why": str(error)})

    async def _remember(self) -> None:
        if self._limits is not None:
            try:
                await self._limits.remember_pause()
            except BulkmailError as error:
                self._give_up(error)

    def _give_up(self, error: BulkmailError) -> None:
        self._start = None  # who has failed once is not asked again
        self._failed(error)

    def _ask(self) -> None:
        if self._is_asking or self._start is None:
            return
        self._is_asking = True
        self._start(self._fetch)

    async def _fetch(self) -> None:
        try:
            if self._limits is not None:
                await self._limits.refill(self._clock.now())
        except BulkmailError as error:
            self._give_up(error)
        finally:
            self._is_asking = False
            self._answered.set()
            self._answered = anyio.Event()
            self._changed()


# -- Which providers the sessions of one relay are busy with: some want few sessions, or few messages in each.


class SessionUse:
    """What one worker's session carries and has carried, by provider; `full` of them want no more messages in it."""

    __slots__ = ("carried", "full", "in_flight", "relay")

    def __init__(self, relay: RelayState) -> None:
        self.relay = relay
        self.in_flight: Counter[str] = Counter()
        self.carried: Counter[str] = Counter()
        self.full = 0

    def renew(self) -> None:
        """Another session takes its place."""
        self.carried.clear()
        self.full = 0


class ProviderUse:
    """Plain counting for all sessions of one relay.

    `uncounted` are the bookings made while no provider had a limit.  They are counted on demand.
    """

    def __init__(self) -> None:
        self._sessions: Counter[str] = Counter()  # that have a message of the provider under way
        self._held: dict[int, tuple[str, SessionUse, int | None]] = {}
        self.uncounted: dict[int, Booking] = {}

    def sessions(self, provider: str) -> int:
        """How many sessions have a message of `provider` under way."""
        while self.uncounted:
            delivery_id, booking = self.uncounted.popitem()
            self.begin(delivery_id, booking.provider, booking.session, messages=None)
        return self._sessions[provider]

    def has_room(self, provider: str, use: SessionUse, *, sessions: int, messages: int | None) -> bool:
        """Whether one more message of `provider` may go over the session of `use`.

        At most `sessions` may be busy with the provider, and each may carry at most `messages` of it.
        """
        busy = self.sessions(provider)
        if messages is not None and use.carried[provider] >= messages:
            return False
        return use.in_flight[provider] > 0 or busy < sessions

    def begin(self, delivery_id: int, provider: str, use: SessionUse, *, messages: int | None) -> None:
        """A message of `provider` is on its way over the session of `use`, which may carry at most `messages` of it."""
        self._held[delivery_id] = provider, use, messages
        if not use.in_flight[provider]:
            self._sessions[provider] += 1
        use.in_flight[provider] += 1
        use.carried[provider] += 1
        use.full += use.carried[provider] == messages

    def end(self, delivery_id: int, *, came_back: bool = False) -> None:
        """It is no longer; with `came_back` nothing of it went."""
        if self.uncounted.pop(delivery_id, None) is not None:
            return
        if (held := self._held.pop(delivery_id, None)) is None:
            return
        provider, use, messages = held
        use.in_flight[provider] -= 1
        if came_back and use.carried[provider]:
            use.full -= use.carried[provider] == messages
            use.carried[provider] -= 1
        if not use.in_flight[provider]:
            self._sessions[provider] -= 1
            if not self._sessions[provider]:
                del self._sessions[provider]


# -- One of the relays of a run: how it is doing, how fast it may go, and whether it has room.


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


# -- Throttling by relays and providers: acted on at once, and reported to observers, but not too often.


_MOST_TOLD = 1_000


class Throttling:
    """Plain calls on the loop.  `show` receives how a relay or provider is treated, `tell` is given a notice of it."""

    def __init__(
        self,
        shaper: Shaper,
        *,
        clock: Clock,
        rng: Callable[[], float],
        show: Callable[[Slowed], None],
        tell: Callable[[RelayState, str], None],
    ) -> None:
        self._shaper = shaper
        self._clock = clock
        self._rng = rng
        self._show = show
        self._tell = tell
        self._reported_at: dict[tuple[str, str], float] = {}
        self._tidied_at = self._counted_at = clock.monotonic()
        self._taken: dict[tuple[str, str], int] = {}  # messages since then, by relay and provider
        self._refusals: dict[str, Reply | Fault] = {}  # of sessions, not reported yet

    def throttle(self, decision: ThrottleDecision, event: Reply | Fault, relay: RelayState, provider: str) -> bool:
        """Does what a complaint asks for: slower, fewer sessions, a rest; False when it is no such complaint."""
        if not decision.is_complaint:
            return False
        verdict, now = decision.verdict, self._clock.monotonic()
        self._count(now)
        is_provider = verdict.scope is Scope.PROVIDER
        others = (relay.provider_use.sessions(provider) if is_provider else relay.health.open) - verdict.drops
        self._shaper.throttle(decision, (relay.name, provider), now, open=others, words=str(event), jitter=self._rng())
        self._look(relay, provider if is_provider else "", now, event=event)
        return True

    def refused(self, event: Reply | Fault, relay: RelayState, *, others: int) -> None:
        """The relay would not have one more session beside `others`, in any words: it gets no more for a while.

        Its rate stays as it is, because the sessions that it has work.
        """
        now = self._clock.monotonic()
        self._count(now)
        borne = others + relay.health.opening  # of those that are opening now some may be the last that it takes
        self._shaper.refused(relay.name, now, open=borne, why="another connection refused", words=str(event))
        self._look(relay, "", now)
        self._refusals[relay.name] = event
        self.say_fewer(relay)

    def say_fewer(self, relay: RelayState) -> None:
        """An opening came to something: once no other is under way, it is known how many sessions the relay takes."""
        if relay.health.opening or (event := self._refusals.pop(relay.name, None)) is None:
            return
        if relay.health.limit < relay.most_connections:
            self._look(relay, "", self._clock.monotonic(), event=event)

    def ran_out(self, event: Reply | Fault, relay: RelayState) -> None:
        """This computer gives no more connections, which is no fault of the relay: it goes on with those it has."""
        now, open_now = self._clock.monotonic(), relay.health.open
        self._count(now)
        self._shaper.refused(relay.name, now, open=open_now, why="no more connections here", words=str(event))
        self._look(relay, "", now)
        if self._is_time_to_tell((relay.name, ""), now):
            self._tell(relay, f"{event}; the run goes on with {open_now}")

    def accepted(self, relay: RelayState, provider: str) -> None:
        """The relay took a message.  While nothing is slowed down, those of a moment are counted together."""
        key = relay.name, provider
        self._taken[key] = self._taken.get(key, 0) + 1
        now = self._clock.monotonic()
        if not (self._shaper.is_free and 0 <= now - self._counted_at < ACCEPTED_COUNTED_WITHIN):
            self._count(now)

    def _count(self, now: float) -> None:
        """Counts what was taken up to now."""
        self._counted_at = now
        taken, self._taken = self._taken, {}
        for (relay, provider), count in taken.items():
            if self._shaper.accepted(relay, provider, now, count):
                self._show_treatment(relay, provider, now)
                self._show_treatment(relay, "", now)
        if now - self._tidied_at >= PROVIDERS_FORGOTTEN_EVERY:
            self._tidied_at = now
            self._shaper.tidy(now)

    def _look(self, relay: RelayState, provider: str, now: float, *, event: Reply | Fault | None = None) -> None:
        """Shows how it is treated now, and gives a notice of what `event` has led to."""
        slowdown = self._show_treatment(relay.name, provider, now)
        if slowdown is not None and event is not None and self._is_time_to_tell(slowdown.key, now):
            self._tell(relay, say_slowed(slowdown, event, now))

    def _show_treatment(self, relay: str, provider: str, now: float) -> Slowdown | None:
        slowdown = self._shaper.slowdown(relay, provider, now)
        if slowdown is not None:
            self._show(Slowed(slowdown.shifted(self._clock.now() - now)))
        return slowdown

    def _is_time_to_tell(self, key: tuple[str, str], now: float) -> bool:
        if now - self._reported_at.get(key, -math.inf) < SAME_NOTICE_AFTER:
            return False
        if len(self._reported_at) >= _MOST_TOLD:
            del self._reported_at[next(iter(self._reported_at))]
        self._reported_at[key] = now
        return True
