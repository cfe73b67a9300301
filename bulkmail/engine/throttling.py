"""Throttling by relays and providers: acted on at once, and reported to observers, but not too often."""

from __future__ import annotations

import math
from collections.abc import Callable

from bulkmail.engine.contracts import Clock, Slowed
from bulkmail.engine.explain import say_slowed
from bulkmail.engine.relay_state import RelayState
from bulkmail.model.outcome import Fault, Reply, Scope
from bulkmail.model.shaper import Shaper, Slowdown, ThrottleDecision
from bulkmail.model.timing import ACCEPTED_COUNTED_WITHIN, PROVIDERS_FORGOTTEN_EVERY, SAME_NOTICE_AFTER

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
        """The relay would not have one more session beside `others`, whatever it said: it gets no more for a while.

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

    def ran_out(self, event: Fault, relay: RelayState) -> None:
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
