"""One call books everything for a message or nothing; what is not given back has gone, and no hold is silent."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkmail.engine.contracts import Outlet, Plan, make_shaper
from bulkmail.engine.relay_state import Account, RelayState, SessionUse
from bulkmail.engine.scheduler import Booking, Scheduler
from bulkmail.model.outcome import Effect, Scope, throttle
from bulkmail.model.pace import Pace
from bulkmail.model.rate import Rate
from bulkmail.model.recipient import Address, Place, Recipient
from bulkmail.model.relay import Relay
from bulkmail.model.route import MailboxProvider, MailboxProviders, ProviderLimits, Route
from bulkmail.model.shaper import ThrottleDecision
from bulkmail.model.tally import Status
from bulkmail.model.timing import Hold
from bulkmail.outbox.outbox import Entry, Outbox
from bulkmail.outbox.sending import OutboxStore
from bulkmail.testing import ManualClock
from tests.engine.test_queues import settle

PEOPLE = 40
PROVIDERS = ("google", "yahoo", "other.example")


class Quota:
    """A permit that gives a few recipients at a time, never more than this many in a minute, and keeps hours."""

    is_free = False

    def __init__(self, a_minute: int) -> None:
        self.a_minute = a_minute
        self.left = 0
        self.spent = 0
        self.filled_at = -math.inf

    def rest(self, now: float) -> Hold | None:
        if now % 100 >= 80:
            return Hold(now - now % 100 + 100, "it is late")
        return (
            Hold(self.filled_at + 60, "the quota is used up") if not self.left and now < self.filled_at + 60 else None
        )

    def take(self, count: int, now: float) -> bool:
        if self.left < count:
            return False
        self.left -= count
        self.spent += count
        return True

    def give_back(self, count: int) -> None:
        self.left += count
        self.spent -= count

    def is_running_low(self, now: float) -> bool:
        return self.left == 0 and now >= self.filled_at + 60

    async def refill(self, now: float) -> None:
        self.left, self.filled_at = self.a_minute, now


@dataclass(frozen=True)
class Given:
    rate: Rate | None
    providers: tuple[ProviderLimits, ProviderLimits]
    quota: int | None
    weights: tuple[int | None, ...]
    """Of the relays."""
    queues: int
    wait: float = math.inf


class Trial:
    """A scheduler over people of three providers, and all that was booked and not settled."""

    def __init__(self, limits: Given) -> None:
        self.clock = ManualClock(1_000.0)
        self.outbox = Outbox.create(None, campaign=None)
        self.outbox.record(self._people())
        self.outbox.finish_loading()
        if limits.queues > 1:
            self.outbox.sort_into_queues(self._queue, reads_rows=False)
        known = MailboxProviders(
            {
                name: MailboxProvider(name, frozenset([f"{name}.example"]), limits=given)
                for name, given in zip(PROVIDERS, limits.providers, strict=False)
            }
        )
        pace = Pace(rate=limits.rate, wait=limits.wait)
        self.rate = limits.rate
        self.shaper = make_shaper(known, pace)
        self.quotas = [None if limits.quota is None else Quota(limits.quota) for _ in limits.weights]
        outlets = [
            Outlet(Route(Relay.parse(f"smtp://r{number}.example"), name=f"r{number}", weight=weight), never, permit)  # type: ignore[arg-type]
            for number, (weight, permit) in enumerate(zip(limits.weights, self.quotas, strict=True))
        ]
        self.relays = [
            RelayState(
                outlet,
                pace=pace,
                shaper=self.shaper,
                clock=self.clock,
                account=Account(outlet.limits, clock=self.clock, changed=nothing, failed=print),
            )
            for outlet in outlets
        ]
        for relay in self.relays:
            relay.account.use(lambda task: asyncio.get_running_loop().create_task(task()))
            relay.workers = 1
        everywhere = tuple(range(len(outlets)))
        self.store = OutboxStore(self.outbox)
        plan = Plan(
            self.store,
            never,
            outlets,
            pace=pace,
            mailbox_providers=known,
            serving=dict.fromkeys(range(limits.queues), everywhere),
            providers={0: "google"} if limits.queues > 1 else {},
            clock=self.clock,
        )
        self.scheduler = Scheduler(plan, self.relays, self.shaper, changed=nothing, failed=print)
        self.sessions = [SessionUse(relay) for relay in self.relays for _ in range(2)]
        self.reserved: list[Booking] = []
        self.taken: dict[int, tuple[float, Booking]] = {}
        self.settled: list[float] = []

    @staticmethod
    def _people():
        for number in range(1, PEOPLE + 1):
            address = f"p{number}@{PROVIDERS[number % 3].removesuffix('.example')}.example"
            yield Entry(Recipient(Address.parse(address), "", {"email": address}, Place("people.csv", number)))

    @staticmethod
    def _queue(path, recipient, reverse) -> int:
        return 0 if "google" in path else 1

    @property
    def left(self) -> int:
        return sum(self.store.count_open(key) for key in (0, 1))

    def take(self, session: SessionUse, reserved: Booking | None = None) -> Booking | Hold:
        before = self.waits()
        found = self.scheduler.take(session, reserved)
        if isinstance(found, Hold):
            assert self.waits() == before, "nothing is booked for what may not go"
            assert found.why and found.until > self.clock.now()
            return found
        number = found.job.delivery.id
        assert number not in self.taken
        self.taken[number] = self.clock.now(), found
        return found

    def waits(self) -> list[float]:
        """How far the rates of relays and providers are booked."""
        now = self.clock.monotonic()
        return [self.shaper.wait(relay.name, provider, now) for relay in self.relays for provider in PROVIDERS]

    def settle(self, number: int, *, due_in: float | None) -> None:
        at, booking = self.taken.pop(number)
        self.settled.append(at)
        due_at = None if due_in is None else self.clock.now() + due_in
        if due_at is None:
            settle(self.store, booking.job, Status.ACCEPTED, 0.0)
        else:
            settle(self.store, booking.job, Status.DEFERRED, due_at)
        self.scheduler.settled(booking, due_at=due_at)

    def check(self) -> None:
        out = [*self.reserved, *(booking for _, booking in self.taken.values())]
        assert self.scheduler.queues.in_hand == len(out)
        assert len({booking.job.delivery.id for booking in out}) == len(out)
        for relay in self.relays:
            own = [booking for booking in out if booking.session.relay is relay]
            assert relay.in_hand == len(own)
            for provider in PROVIDERS:
                busy = {id(booking.session) for booking in own if booking.provider == provider}
                assert relay.provider_use.sessions(provider) == len(busy)
        if self.quotas[0] is not None:
            assert sum(quota.spent for quota in self.quotas if quota) == len(self.taken) + len(self.settled)
        if self.rate is not None:
            times = sorted([*self.settled, *(at for at, _ in self.taken.values())])
            for begin, first in enumerate(times):
                for end in range(begin, len(times)):
                    most = self.rate.burst + self.rate.per_second * (times[end] - first)
                    assert end - begin + 1 <= most + 1e-6


async def never(*arguments: object) -> None:
    raise AssertionError("nothing is connected or composed")


def nothing() -> None:
    pass


async def turn() -> None:
    """Lets the quota's answer come."""
    for _ in range(4):
        await asyncio.sleep(0)


PROVIDER_LIMITS = st.builds(
    ProviderLimits,
    rate=st.none() | st.sampled_from([Rate(1.0), Rate(0.2, 2)]),
    connections=st.none() | st.just(1),
    messages_per_session=st.none() | st.just(3),
)
LIMITS = st.builds(
    Given,
    rate=st.none() | st.sampled_from([Rate(2.0), Rate(0.5, 3)]),
    providers=st.tuples(PROVIDER_LIMITS, PROVIDER_LIMITS),
    quota=st.none() | st.sampled_from([5, 20]),
    weights=st.sampled_from([(None,), (1, 3), (None, None)]),
    queues=st.sampled_from([1, 2]),
)
MOVES = ["take", "take", "take", "reserve", "take-reserved", "back", "settle", "defer", "throttle", "on"]
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(MOVES),
        st.integers(0, 100),
    ),
    min_size=30,
    max_size=60,
)
SLOWER = ThrottleDecision(replace(throttle(Scope.PROVIDER, Effect.SLOWER, label="busy"), suspend=30.0))


async def play(limits: Given, events: list[tuple[str, int]]) -> None:
    trial = Trial(limits)
    with trial.outbox:
        for relay in trial.relays:
            relay.account.may_begin()
        await turn()
        for what, number in events:
            session = trial.sessions[number % len(trial.sessions)]
            if what == "take":
                trial.take(session)
            elif what == "reserve" and (booking := trial.scheduler.reserve(session)) is not None:
                trial.reserved.append(booking)
            elif what == "take-reserved" and trial.reserved:
                booking = trial.reserved[number % len(trial.reserved)]
                if trial.take(booking.session, booking) is booking:
                    trial.reserved.remove(booking)
            elif what == "back" and (trial.taken or trial.reserved):
                out = [*trial.reserved, *(booking for _, booking in trial.taken.values())]
                booking = out[number % len(out)]
                trial.scheduler.give_back(booking)
                if trial.taken.pop(booking.job.delivery.id, None) is None:
                    trial.reserved.remove(booking)
            elif what in ("settle", "defer") and trial.taken:
                trial.settle(list(trial.taken)[number % len(trial.taken)], due_in=None if what == "settle" else number)
            elif what == "throttle":
                relay = session.relay
                provider = PROVIDERS[number % 3]
                trial.shaper.throttle(
                    SLOWER, (relay.name, provider), trial.clock.monotonic(), open=1, words="slow down", jitter=0.0
                )
            elif what == "on":
                trial.clock.advance(number / 10)
                await turn()
            trial.check()
        await finish(trial)


async def finish(trial: Trial) -> None:
    """Anyone who waits for each hold as long as it says, and closes sessions that are full, sends everything."""
    for booking in trial.reserved:
        trial.scheduler.give_back(booking)
    trial.reserved.clear()
    for _ in range(5_000):
        for number in list(trial.taken):
            trial.settle(number, due_in=None)
        if not trial.left:
            break
        holds = []
        for session in trial.sessions:
            if session.full:
                session.renew()
            found = trial.take(session)
            if isinstance(found, Hold):
                holds.append(found)
        if not trial.taken:
            await turn()
            until = min(hold.until for hold in holds)
            assert until < math.inf, [hold.why for hold in holds]
            trial.clock.advance(max(1e-3, until - trial.clock.now()))
    trial.check()
    assert not trial.left
    assert all(isinstance(trial.take(session), Hold) for session in trial.sessions)


@pytest.mark.slow
@settings(max_examples=60)
@given(LIMITS, EVENTS)
def test_all_that_was_booked_went_or_was_given_back_and_no_hold_is_silent(
    limits: Given, events: list[tuple[str, int]]
) -> None:
    asyncio.run(play(limits, events))
