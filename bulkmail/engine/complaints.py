"""What relays and providers complain of: heeded at once, told to whoever watches, and not too often."""

from __future__ import annotations

import math
from collections.abc import Callable

from bulkmail.engine.channel import Channel
from bulkmail.engine.clock import Clock
from bulkmail.engine.explain import say_slowed
from bulkmail.engine.ports import Slowed
from bulkmail.model.feedback import Heeding
from bulkmail.model.reply import Fault, Reply
from bulkmail.model.shaper import Shaper
from bulkmail.model.slowdown import Slowdown
from bulkmail.model.verdict import Scope

TOLD = 60.0  # seconds in which a notice about the same is given once
MOMENT = 0.05  # seconds of which all that was taken is counted at once
TIDIED = 10.0  # seconds between two looks for lanes that can be forgotten
_MOST_TOLD = 1_000


class Complaints:
    """Plain calls on the loop.  `show` is told how a relay or lane is treated, `tell` is given a notice of it."""

    def __init__(
        self,
        shaper: Shaper,
        *,
        clock: Clock,
        jitter: Callable[[], float],
        show: Callable[[Slowed], None],
        tell: Callable[[Channel, str], None],
    ) -> None:
        self._shaper = shaper
        self._clock = clock
        self._jitter = jitter
        self._show = show
        self._tell = tell
        self._told_at: dict[tuple[str, str], float] = {}
        self._tidied_at = self._counted_at = clock.monotonic()
        self._taken: dict[tuple[str, str], int] = {}  # messages since then, by relay and lane
        self._refusals: dict[str, Reply | Fault] = {}  # of sessions, of which nothing was told yet

    def heed(self, heeding: Heeding, event: Reply | Fault, channel: Channel, lane: str) -> bool:
        """Does what a complaint asks for: slower, fewer sessions, a rest; False when it is no such complaint."""
        if not heeding.is_complaint:
            return False
        verdict, now = heeding.verdict, self._clock.monotonic()
        self._count(now)
        is_lane = verdict.scope is Scope.PROVIDER
        others = (channel.occupancy.sessions(lane) if is_lane else channel.health.open) - verdict.drops
        self._shaper.heed(heeding, channel.name, lane, now, open=others, words=str(event), jitter=self._jitter())
        self._look(channel, lane if is_lane else "", now, event=event)
        return True

    def refused(self, event: Reply | Fault, channel: Channel, *, others: int) -> None:
        """The relay would not have one more session beside `others`, whatever it said: it gets no more for a while.

        Its rate stays as it is, because the sessions that it has work.
        """
        now = self._clock.monotonic()
        self._count(now)
        borne = others + channel.health.opening  # of those that are opening now some may be the last that it takes
        self._shaper.refused(channel.name, now, open=borne, why="another connection refused", words=str(event))
        self._look(channel, "", now)
        self._refusals[channel.name] = event
        self.say_fewer(channel)

    def say_fewer(self, channel: Channel) -> None:
        """An opening came to something: once no other is under way, it is known how many sessions the relay takes."""
        if channel.health.opening or (event := self._refusals.pop(channel.name, None)) is None:
            return
        if channel.health.limit < channel.most_connections:
            self._look(channel, "", self._clock.monotonic(), event=event)

    def ran_out(self, event: Fault, channel: Channel) -> None:
        """This computer gives no more connections, which is no fault of the relay: it goes on with those it has."""
        now, open_now = self._clock.monotonic(), channel.health.open
        self._count(now)
        self._shaper.refused(channel.name, now, open=open_now, why="no more connections here", words=str(event))
        self._look(channel, "", now)
        if self._is_time_to_tell((channel.name, ""), now):
            self._tell(channel, f"{event}; the run goes on with {open_now}")

    def accepted(self, channel: Channel, lane: str) -> None:
        """The relay took a message.  While nothing is slowed down, those of a moment are counted together."""
        key = channel.name, lane
        self._taken[key] = self._taken.get(key, 0) + 1
        now = self._clock.monotonic()
        if not (self._shaper.is_free and 0 <= now - self._counted_at < MOMENT):
            self._count(now)

    def _count(self, now: float) -> None:
        """Counts what was taken up to now."""
        self._counted_at = now
        taken, self._taken = self._taken, {}
        for (relay, lane), count in taken.items():
            if self._shaper.accepted(relay, lane, now, count):
                self._show_treatment(relay, lane, now)
                self._show_treatment(relay, "", now)
        if now - self._tidied_at >= TIDIED:
            self._tidied_at = now
            self._shaper.tidy(now)

    def _look(self, channel: Channel, lane: str, now: float, *, event: Reply | Fault | None = None) -> None:
        """Shows how it is treated now, and gives a notice of what `event` has led to."""
        slowdown = self._show_treatment(channel.name, lane, now)
        if slowdown is not None and event is not None and self._is_time_to_tell(slowdown.key, now):
            self._tell(channel, say_slowed(slowdown, event, now))

    def _show_treatment(self, relay: str, lane: str, now: float) -> Slowdown | None:
        slowdown = self._shaper.slowdown(relay, lane, now)
        if slowdown is not None:
            self._show(Slowed(slowdown.shifted(self._clock.now() - now)))
        return slowdown

    def _is_time_to_tell(self, key: tuple[str, str], now: float) -> bool:
        if now - self._told_at.get(key, -math.inf) < TOLD:
            return False
        if len(self._told_at) >= _MOST_TOLD:
            del self._told_at[next(iter(self._told_at))]
        self._told_at[key] = now
        return True
