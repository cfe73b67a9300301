"""Why nothing may go just now, until when, and whether a run waits for that."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

from bulkmail.engine.contracts import QueueKey
from bulkmail.engine.plan import Plan
from bulkmail.engine.queues import Queues
from bulkmail.engine.relay_shares import RelayShares
from bulkmail.engine.relay_state import RelayState
from bulkmail.model.delivery import Job, Status
from bulkmail.model.shaper import Shaper
from bulkmail.model.timing import (
    IDLE_SESSION_KEPT,
    OTHER_RELAY_CHECKED_AFTER,
    QUOTA_ANSWER_CHECKED_AFTER,
    WALL_CLOCK_CHECKED_AFTER,
    Hold,
)

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
