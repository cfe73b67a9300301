"""Which message goes next, over which session, and why none may: rates, relays, providers, quotas, hours in one."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from msgspec import Struct

from bulkmail.engine.contracts import Plan, QueueKey
from bulkmail.engine.queues import Queues, RelayShares
from bulkmail.engine.relay_state import RelayState, SessionUse
from bulkmail.model.delivery import Job
from bulkmail.model.shaper import Shaper
from bulkmail.model.tally import Status
from bulkmail.model.timing import (
    IDLE_SESSION_KEPT,
    OTHER_RELAY_CHECKED_AFTER,
    PROVIDER_SESSIONS_CHECKED_AFTER,
    QUOTA_ANSWER_CHECKED_AFTER,
    WALL_CLOCK_CHECKED_AFTER,
    Hold,
)

# -- Why nothing may go just now, until when, and whether a run waits for that.


DEFERRED, RESTING = "deferred deliveries", "providers that are paused"
PLANNED = "the next messages are planned for then (send_at)"
DEFERRED_OR_PLANNED = "deferred deliveries and planned messages (send_at)"
RATE = "the rate"
PROVIDER = "the rate or the sessions of a provider, or another relay that goes first"
QUOTA = "the quota ledger, which was asked"
UNDER_WAY = "messages under way, which may have to be sent again"
LIMIT = "as many messages as this run may send were begun"
NOTHING = "nothing is left to send in this run"


class Holds:
    """Looks at queues, relays and accounts and books nothing.  Every `until` is wall-clock seconds.

    `why_not()` answers for one instant, `hold()` for as long as a worker may have nothing to do.
    """

    def __init__(
        self,
        plan: Plan,
        relays: Sequence[RelayState],
        queues: Queues,
        shares: RelayShares,
        *,
        provider_of: Callable[[QueueKey, Job], str],
        shaper: Shaper,
    ) -> None:
        """`provider_of` names the provider of a job of that queue."""
        self._plan = plan
        self._clock = plan.clock
        self._relays = relays
        self._queues = queues
        self._shares = shares
        self._is_alone = shares.is_alone
        self._provider_of = provider_of
        self._shaper = shaper
        self._rests: dict[str, Hold] = {}  # relays that are not waited for in this run, and why
        self._reported: Hold | None = None

    def _earliest(self, relay: RelayState) -> tuple[float, bool]:
        """Seconds until something may go that only its provider holds back, or another relay; infinity for nothing.

        Also returns whether that is because the provider is paused, and not because its turn comes then.
        """
        now, shaper = self._clock.monotonic(), self._shaper
        aside = self._queues.bring_back(now)
        held, rests = math.inf, False
        if aside is not None and (first := self._queues.next_aside) is not None:
            held = max(0.0, aside - now)
            rests = shaper.is_left_alone(relay.name, self._provider_of(*first), now)
        if self._is_alone:
            return held, rests
        for key in self._queues.keys_with_some(self._clock.now(), among=self._shares.serving(relay)):
            provider = self._plan.providers.get(key)
            # Without a wait another relay comes first, or as many sessions as may be are busy with it.
            wait = (shaper.provider_wait(relay.name, provider, now) if provider else 0.0) or OTHER_RELAY_CHECKED_AFTER
            if wait < held:
                held, rests = wait, bool(provider and shaper.is_left_alone(relay.name, provider, now))
        return held, rests

    def of_account(self, relay: RelayState) -> Hold:
        """Why hours and quotas let nothing go, or that the ledger's answer is awaited."""
        return relay.account.hold() or Hold(self._clock.now() + QUOTA_ANSWER_CHECKED_AFTER, QUOTA)

    def why_not(self, relay: RelayState) -> Hold:
        """Why nothing goes through `relay` this instant; neither tells the observers nor asks the outbox."""
        now, queues = self._clock.now(), self._queues
        if queues.is_used_up:
            return Hold(math.inf, LIMIT)
        if relay.account.is_held:
            return self.of_account(relay)
        held, rests = self._earliest(relay)
        if held < math.inf:
            return Hold(now + held, RESTING if rests else PROVIDER)
        if queues.known_due < math.inf:
            return Hold(queues.known_due, DEFERRED)
        return Hold(now + IDLE_SESSION_KEPT, UNDER_WAY) if queues.is_waiting else Hold(math.inf, NOTHING)

    def hold(self, relay: RelayState) -> Hold:
        """Until when, and why, a worker of `relay` has nothing to do; infinity when it is not needed any more.

        Observers get what the whole run waits for.
        """
        now, queues = self._clock.now(), self._queues
        if queues.is_used_up:
            return Hold(math.inf, LIMIT)
        if relay.account.is_held:
            return self._hold_of_account(relay)
        held, rests = self._earliest(relay)
        if queues.is_waiting:  # one of those may come back; the settling of each wakes us
            return Hold(now + min(IDLE_SESSION_KEPT, held), UNDER_WAY)
        if held <= OTHER_RELAY_CHECKED_AFTER:
            return Hold(now + held, PROVIDER)
        if relay.workers > 1:
            return Hold(math.inf, NOTHING)  # one is enough to watch
        due = queues.next_due(now, among=None if self._is_alone else self._shares.serving(relay))
        due_in = math.inf if due is None else max(0.0, due - now)
        its_turn_comes = held <= due_in and not rests  # at its provider's rate, which is waited for as others are
        at = now + min(held, due_in)
        if math.isinf(at) or not (its_turn_comes or self.waits_until(at)):
            return Hold(math.inf, NOTHING)
        if its_turn_comes:
            return Hold(at, PROVIDER)
        hold = Hold(at, self._due_is() if due_in <= held else RESTING)
        if not self.has_plan:
            self._plan.observe(hold)
            return hold
        self.tell(hold)  # looked at again and again: the clock on the wall may be set, the machine asleep
        return Hold(min(at, now + WALL_CLOCK_CHECKED_AFTER), hold.why)

    def _due_is(self) -> str:
        if not self.has_plan:
            return DEFERRED
        tally = self._plan.store.tally()
        if isinstance(tally, asyncio.Future):  # it answers later; this text does not wait for it
            return DEFERRED_OR_PLANNED
        return DEFERRED_OR_PLANNED if tally.with_copies(Status.DEFERRED) else PLANNED

    def _hold_of_account(self, relay: RelayState) -> Hold:
        """As `hold()`, while hours and quotas let nothing begin: wait, leave it to other relays, or end the run."""
        now, rest, in_hand = self._clock.now(), relay.account.hold(), self._queues.is_waiting
        soon = Hold(now + QUOTA_ANSWER_CHECKED_AFTER, rest.why if rest is not None else QUOTA)
        if rest is None:
            return soon
        if relay.workers > 1:
            return Hold(math.inf, rest.why)  # one is enough to watch
        serves = self._shares.serving(relay)
        due_at = (
            now
            if any(True for _ in self._queues.keys_with_some(now, among=serves))
            else self._queues.next_due(now, among=serves)
        )
        if due_at is None:
            return soon if in_hand else Hold(math.inf, NOTHING)
        ready_at = max(rest.until, due_at)
        others_go_on = any(
            other is not relay and other.workers and not other.is_out and other.account.hold() is None
            for other in self._relays
        )
        if self.waits_until(ready_at):
            if not in_hand and not others_go_on:
                self.tell(Hold(ready_at, rest.why))
            return Hold(min(ready_at, now + WALL_CLOCK_CHECKED_AFTER), rest.why)
        if not self.waits_until(due_at):
            return Hold(math.inf, NOTHING)  # as without a rest
        if in_hand or others_go_on:
            return soon
        self._rests[relay.name] = rest
        return Hold(math.inf, rest.why)

    @property
    def has_plan(self) -> bool:
        """Whether a planned time is still to come."""
        return self._plan.planned_until > self._clock.now()

    def waits_until(self, at: float) -> bool:
        """Whether this run waits for what comes at `at`, wall-clock seconds: its `wait` begins after the last planned
        time, since that is no retry.
        """
        return at - max(self._clock.now(), self._plan.planned_until) <= self._plan.pace.wait

    def tell(self, hold: Hold) -> None:
        """Nothing goes on just now; the same reason is shown once."""
        if self._reported is None or self._reported.why != hold.why or abs(self._reported.until - hold.until) >= 1:
            self._reported = hold
            self._plan.observe(hold)

    async def rest(self) -> Hold | None:
        """What a run did not wait for although it still has messages for that relay: the first to end."""
        held = [
            self._rests[relay.name]
            for relay in self._relays
            if relay.name in self._rests
            and any([await self._queues.left_in(key) for key in self._shares.keys_of(relay)])
        ]
        return min(held, key=lambda hold: hold.until, default=None)


# -- Which message goes next, over which session, and why none may: rates, relays, providers, quotas and hours in one.


class Booking(Struct):
    """All that is booked for one delivery under way, so that it is given back, or spent, as one."""

    job: Job
    session: SessionUse
    provider: str
    slot: Mapping[str, float] | None = None
    """Of the rates; None while the message only waits for its session, and where no rate holds."""
    has_quota: bool = False
    is_next: bool = False
    """It is this message's turn, and no other's, to take the rate's next slot."""


class Scheduler:
    """Plain calls on the loop, never waiting; every change is made in one of them, so that nothing needs a lock.

    `take()` books queue, relay, provider, rates, quota and hours together or not at all, at the instant that the
    envelope is written; `give_back()` undoes all of it, `settled()` ends it.  Where a session has to be opened first,
    `reserve()` sets a message apart for it, with neither rate nor quota.  A `Hold` says why nothing may go, its
    `until` is wall-clock seconds.
    """

    def __init__(
        self,
        plan: Plan,
        relays: Sequence[RelayState],
        shaper: Shaper,
        *,
        changed: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        """`changed` is called when others than the caller should look again, `failed` when the store failed."""
        serving = plan.serving if plan.serving is not None else {0: tuple(range(len(relays)))}
        self.queues = Queues(plan.store, keys=serving, limit=plan.pace.limit, changed=changed, failed=failed)
        self.shares = RelayShares(relays, serving)
        self.is_alone = self.shares.is_alone
        self._is_simple = self.is_alone and not plan.store.has_copies
        self._plan = plan
        self._clock = plan.clock
        self._relays = relays
        self._shaper = shaper
        self._changed = changed
        self._provider_of = lru_cache(maxsize=65_536)(plan.mailbox_providers.of)
        self._only_provider = plan.providers.get(next(iter(serving), 0), "") if self.is_alone else ""
        self.holds = Holds(plan, relays, self.queues, self.shares, provider_of=self._key_provider, shaper=shaper)

    # -- what goes

    def take(self, session: SessionUse, reserved: Booking | None = None) -> Booking | Hold:
        """The next message for `session`, or the one that was `reserved` for it, which stays so when it may not go."""
        relay = session.relay
        if reserved is None and self._is_simple and self._shaper.is_free and relay.account.is_free:
            # Nothing holds: no rate, limit, quota or hours, and no complaint so far.
            job = self.queues.next(self._clock.now())
            if job is None:
                return self.holds.why_not(relay)
            delivery = job.delivery
            booking = Booking(
                job, session, self._only_provider or self._provider_of(delivery.forward_path.rpartition("@")[2])
            )
            relay.provider_use.uncounted[delivery.id] = booking
            relay.in_hand += 1
            relay.moved_at = self._clock.monotonic()
            return booking
        now, account = self._clock.monotonic(), relay.account
        wait = relay.rate_wait(now)
        if wait > 0 or (relay.turn.locked() and not (reserved is not None and reserved.is_next)):
            return Hold(self._clock.now() + max(wait, PROVIDER_SESSIONS_CHECKED_AFTER), RATE)
        if not account.take():
            return self.holds.of_account(relay)
        candidate = reserved or self._pick(session, now)
        if candidate is None:
            account.give_back()
            return self.holds.why_not(relay)
        if (hold := self._book_slot(candidate, now)) is None:
            candidate.has_quota = True
            return candidate
        account.give_back()
        if reserved is None:
            self.give_back(candidate)
        return hold

    def take_copy(self, first: Booking) -> Booking | None:
        """A copy of the message of `first`, which was just taken: another forward path of its row, booked like it.

        Those who set limits count forward paths.
        """
        relay, now = first.session.relay, self._clock.monotonic()
        if self._is_simple or relay.turn.locked() or not relay.account.take():
            return None
        copy = self.queues.next_copy(first.job)
        if copy is not None:
            booking = self._reserved(copy, first.session, self.provider_of(copy))
            if self._book_slot(booking, now) is None:
                booking.has_quota = True
                return booking
            self._unreserve(booking)
            self.queues.return_copy(first.job, copy)
        relay.account.give_back()
        return None

    def reserve(self, session: SessionUse) -> Booking | None:
        """A message that may go over `session` now, but for the relay's rate; None when none may."""
        return self._pick(session, self._clock.monotonic()) if session.relay.account.may_begin() else None

    def _pick(self, session: SessionUse, now: float) -> Booking | None:
        queues, providers = self.queues, self._plan.providers
        queues.bring_back(now)
        may_go = None if self.is_alone else lambda key: self._may_go(key, session, now)
        while (job := queues.next(self._clock.now(), may_go=may_go)) is not None:
            provider = providers.get(queues.key_of(job)) if providers else None
            if provider is not None and may_go is not None:  # which has looked at it
                return self._reserved(job, session, provider)
            provider = provider or self._domain_provider(job.delivery.forward_path)
            wait = self._provider_wait(provider, session, now)
            if wait <= 0:
                return self._reserved(job, session, provider)
            if not queues.set_aside(job, now + wait):
                return None
        return None

    def give_back(self, booking: Booking) -> None:
        """Nothing was attempted: the message is the next to go, through whichever relay may have it."""
        self._unreserve(booking)
        self.queues.take_back(booking.job)

    def lost(self, booking: Booking) -> None:
        """Nothing of it was sent, and its delivery is not this run's any more."""
        self._unreserve(booking)
        self.queues.lost(booking.job)

    def settled(self, booking: Booking, *, due_at: float | None = None) -> None:
        """What became of it is durable; with `due_at` it comes again."""
        relay, number = booking.session.relay, booking.job.delivery.id
        relay.in_hand -= 1
        relay.moved_at = self._clock.monotonic()
        if relay.provider_use.uncounted.pop(number, None) is None:
            relay.provider_use.end(number)
        queues = self.queues
        if due_at is None and not queues.stale:
            queues.out.pop(number, None)
        else:
            queues.settled(number, due_at=due_at)
        if due_at is not None or not queues.out:
            self._changed()

    def provider_of(self, job: Job) -> str:
        """The name of the provider of a job that is out, or its domain."""
        return self._key_provider(self.queues.key_of(job), job)

    def _key_provider(self, key: QueueKey, job: Job) -> str:
        return self._plan.providers.get(key) or self._domain_provider(job.delivery.forward_path)

    def _domain_provider(self, path: str) -> str:
        return self._provider_of(path.rpartition("@")[2])

    def _reserved(self, job: Job, session: SessionUse, provider: str) -> Booking:
        relay, now = session.relay, self._clock.monotonic()
        if not self.is_alone and self.shares.took(relay, self.queues.key_of(job), now):
            self._changed()
        messages = self._shaper.messages_per_session(provider)
        relay.provider_use.begin(job.delivery.id, provider, session, messages=messages)
        relay.in_hand += 1
        relay.moved_at = now
        return Booking(job, session, provider)

    def _book_slot(self, booking: Booking, now: float) -> Hold | None:
        """Books all rates for a message that is reserved, or none when one of them holds it back."""
        relay = booking.session.relay
        if self._shaper.take(relay.name, booking.provider, now):
            booking.slot = self._shaper.booked
            return None
        return Hold(self._clock.now() + self._shaper.wait(relay.name, booking.provider, now), PROVIDER)

    def unbook(self, booking: Booking) -> None:
        """Gives rates and quota back: nothing of the message goes, which is out all the same."""
        if booking.slot is not None:
            self._shaper.give_back(booking.slot)
            booking.slot = None
        if booking.has_quota:
            booking.session.relay.account.give_back()
            booking.has_quota = False

    def _unreserve(self, booking: Booking) -> None:
        """Gives back everything but the place in the queue."""
        relay = booking.session.relay
        self.unbook(booking)
        if not self.is_alone:
            self.shares.gave_back(relay, self.queues.key_of(booking.job))
        relay.in_hand -= 1
        relay.provider_use.end(booking.job.delivery.id, came_back=True)

    def _may_go(self, key: QueueKey, session: SessionUse, now: float) -> bool:
        """Whether the next job of that queue may go over `session`."""
        if not self.shares.may_take(session.relay, key, now):
            return False
        provider = self._plan.providers.get(key)
        return not provider or self._provider_wait(provider, session, now) <= 0

    def _provider_wait(self, provider: str, session: SessionUse, now: float) -> float:
        """Seconds for which no message to `provider` goes over `session`; 0 for one that may go."""
        relay = session.relay
        wait = self._shaper.provider_wait(relay.name, provider, now)
        if wait > 0:
            return wait
        sessions, messages = self._shaper.session_limits(relay.name, provider)
        has_room = relay.provider_use.has_room(provider, session, sessions=sessions, messages=messages)
        return 0.0 if has_room else PROVIDER_SESSIONS_CHECKED_AFTER

    def is_to_yield(self, booking: Booking) -> bool:
        """Whether its relay, which cannot go on with it now, leaves the message to another."""
        relay = booking.session.relay
        return len(self._relays) > 1 and self.shares.has_others(relay, self.queues.key_of(booking.job))
