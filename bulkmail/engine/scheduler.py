"""Which message goes next, over which session, and why none may: rates, relays, providers, quotas and hours in one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from msgspec import Struct

from bulkmail.engine.holds import PROVIDER, RATE, Holds
from bulkmail.engine.plan import Plan
from bulkmail.engine.provider_use import SessionUse
from bulkmail.engine.queues import QueueKey, Queues
from bulkmail.engine.relay_shares import RelayShares
from bulkmail.engine.relay_state import RelayState
from bulkmail.model.hold import Hold
from bulkmail.model.job import Job
from bulkmail.model.shaper import Shaper
from bulkmail.model.timing import PROVIDER_SESSIONS_CHECKED_AFTER


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
        self._provider_of = lru_cache(maxsize=65_536)(plan.lanes.of)
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
