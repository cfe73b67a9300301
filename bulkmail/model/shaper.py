"""Who may go when, through which relay and into which lane, as servers bear it: all that is lowered and held in one."""

from __future__ import annotations

from dataclasses import dataclass

from bulkmail.model.adapt import Crowd, Meter, Speed, Suspension
from bulkmail.model.feedback import Heeding
from bulkmail.model.gate import Gate
from bulkmail.model.lane import Lanes
from bulkmail.model.rate import Rate
from bulkmail.model.verdict import Scope

CAMPAIGN = "campaign"
_LANE = "lane "
_REFRESH = 0.5  # seconds between two looks at a rate that is on its way up
_RISING = 1.0  # seconds: a wait that was reckoned with the rate of now is too long while the rate rises
MOST_IDLE = 10_000  # lanes that are kept in mind although nothing is wrong with them


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a relay or lane suffers from just now; `until` is monotonic seconds, 0 when it is only slower.

    `lane` is empty for a relay.  `per_second` is None when the rate is not lowered.
    """

    relay: str
    lane: str
    why: str
    until: float = 0.0
    per_second: float | None = None
    connections: int | None = None


class _State:
    """How a relay, or one lane through it, is doing."""

    __slots__ = ("burst", "crowd", "long_meter", "meter", "name", "speed", "suspension", "turned_at", "why")

    def __init__(self, name: str, *, rate: Rate | None, connections: int) -> None:
        self.name = name
        self.speed = Speed(rate.per_second if rate else None)
        self.burst = rate.burst if rate else 1
        self.crowd = Crowd(connections)
        self.suspension = Suspension()
        self.meter = Meter()
        self.long_meter = Meter(60.0)
        self.turned_at = 0.0
        self.why = ""

    def is_fine(self, now: float) -> bool:
        """Whether it could be forgotten without a difference."""
        return (
            not self.speed.is_lowered(now)
            and self.crowd.size >= self.crowd.limit
            and not self.suspension.holds(now)
            and not self.meter.per_second(now)
        )


class Shaper:
    """Rates, connections and suspensions of a campaign, its relays and, through each relay, its lanes.

    Pure bookkeeping: every time is seconds of one monotonic clock.  A lane that is slow or suspended is asked about by
    `wait()`, which books nothing, so that whoever may not go costs the others nothing.
    """

    def __init__(self, lanes: Lanes, *, rate: Rate | None = None) -> None:
        self._gate = Gate({CAMPAIGN: rate} if rate else {})
        self._lanes = lanes
        self._relays: dict[str, _State] = {}
        self._through: dict[tuple[str, str], _State] = {}

    def add_relay(self, relay: str, *, connections: int, rate: Rate | None = None) -> None:
        """A relay by its name, with the limits that were configured for it."""
        state = self._relays[relay] = _State(f"relay {relay}", rate=rate, connections=connections)
        self._gate.turn(state.name, rate, 0.0)

    def wait(self, relay: str, lane: str, now: float) -> float:
        """Seconds until one message of `lane` may go through `relay`; 0 when it may go now."""
        return max(self.relay_wait(relay, now), self.lane_wait(relay, lane, now))

    def relay_wait(self, relay: str, now: float) -> float:
        """Seconds until `relay` and the campaign let any message go, whatever its lane says."""
        state = self._relays[relay]
        self._refresh(state, now)
        held = state.suspension.until - now if state.suspension.holds(now) else 0.0
        return max(held, self._gate.wait((CAMPAIGN,), now), self._rate_wait(state, now))

    def own_wait(self, relay: str, now: float) -> float:
        """Seconds until `relay`'s own rate, apart from the campaign's, lets one more go."""
        return self._gate.wait((self._relays[relay].name,), now)

    def lane_wait(self, relay: str, lane: str, now: float) -> float:
        """Seconds until `lane` lets a message go through `relay`, whatever the relay says."""
        state = self._lane(relay, lane)
        self._refresh(state, now)
        held = state.suspension.until - now if state.suspension.holds(now) else 0.0
        return max(held, self._gate.wait((_LANE + lane,), now), self._rate_wait(state, now))

    def _rate_wait(self, state: _State, now: float) -> float:
        """Seconds until its own rate lets one go; while that is on its way up, ask again after a second."""
        wait = self._gate.wait((state.name,), now)
        return min(wait, _RISING) if state.speed.is_rising(now) else wait

    def suspend_lane(self, relay: str, lane: str, now: float, *, seconds: float, why: str) -> None:
        """Leaves `lane` alone for so long, at least."""
        state = self._lane(relay, lane)
        state.why = why
        state.suspension = state.suspension.extended(now, seconds, why)

    def refused(self, relay: str, now: float, *, open: int) -> None:
        """The relay would not have one more session beside those `open`, whatever it said."""
        state = self._relays[relay]
        state.crowd = state.crowd.refuse(now, open=open)

    def take(self, relay: str, lane: str, now: float) -> bool:
        """Books one message; False, and nothing is booked, when it must wait."""
        states = self._states(relay, lane)
        if states[0].suspension.holds(now) or states[1].suspension.holds(now):
            return False
        return self._gate.take(self._names(states, lane, now), now)

    def accepted(self, relay: str, lane: str, now: float) -> None:
        """The relay took a message of `lane`."""
        for state in self._states(relay, lane):
            if state.speed.is_blocked:
                state.speed = state.speed.opened(now, sustained=state.long_meter.per_second(now))
                self._turn(state, now)
            state.meter.take(now)
            state.long_meter.take(now)
            if state.crowd.size < state.crowd.limit:
                state.crowd = state.crowd.take(now)

    def heed(self, heeding: Heeding, relay: str, lane: str, now: float, *, open: int) -> None:
        """Does what a reply asks for; `open` are the sessions open in its scope beside the one that was refused."""
        state = self._meant(heeding, relay, lane)
        if state is None:
            return
        state.why = heeding.verdict.reason
        if heeding.is_slower:
            state.speed = state.speed.lowered(now, seen=state.meter.per_second(now))
            self._turn(state, now)
        if heeding.is_fewer and heeding.is_slower:
            state.crowd = state.crowd.halve(now)
        elif heeding.is_fewer:
            state.crowd = state.crowd.refuse(now, open=open)
        if heeding.suspend:
            state.suspension = state.suspension.extended(now, heeding.suspend, heeding.verdict.reason)

    def connections(self, relay: str) -> int:
        """The most sessions that `relay` bears just now, 1 or more."""
        return self._relays[relay].crowd.size

    def lane_connections(self, relay: str, lane: str) -> int:
        """The most sessions that may carry letters of `lane` through `relay` at once, 1 or more."""
        return min(self._lane(relay, lane).crowd.size, self.connections(relay))

    def messages_per_session(self, lane: str) -> int | None:
        """How many letters of `lane` one session may carry; None: as many as of others."""
        return self._lanes.limits(lane).messages_per_session

    def troubles(self, now: float) -> list[Trouble]:
        """What is lowered or held just now: relays first."""
        found = [(relay, "", state) for relay, state in self._relays.items()]
        found += [(relay, lane, state) for (relay, lane), state in self._through.items()]
        return [
            Trouble(
                relay,
                lane,
                state.why,
                state.suspension.until if state.suspension.holds(now) else 0.0,
                state.speed.now(now) if state.speed.is_lowered(now) else None,
                state.crowd.size if state.crowd.size < state.crowd.limit else None,
            )
            for relay, lane, state in found
            if (state.why and (state.speed.is_lowered(now) or state.crowd.size < state.crowd.limit))
            or state.suspension.holds(now)
        ]

    def tidy(self, now: float) -> None:
        """Forgets lanes that nothing is wrong with, when there are many: call it now and then."""
        if len(self._through) > MOST_IDLE:
            self._through = {key: state for key, state in self._through.items() if not state.is_fine(now)}
            self._gate.forget(now, beginning=_LANE)

    def _meant(self, heeding: Heeding, relay: str, lane: str) -> _State | None:
        match heeding.verdict.scope if heeding.complaint else None:
            case Scope.RELAY:
                return self._relays[relay]
            case Scope.LANE:
                return self._lane(relay, lane)
            case _:
                return None

    def _states(self, relay: str, lane: str) -> tuple[_State, _State]:
        return self._relays[relay], self._lane(relay, lane)

    def _lane(self, relay: str, lane: str) -> _State:
        state = self._through.get((relay, lane))
        if state is None:
            limits, most = self._lanes.limits(lane), self._relays[relay].crowd.limit
            # Its configured rate is that of the lane as a whole; this one begins with the first complaint.
            connections = most if limits.connections is None else min(limits.connections, most)
            state = self._through[relay, lane] = _State(f"{relay} {lane}", rate=None, connections=connections)
            if limits.rate is not None and self._gate.rate(_LANE + lane) is None:
                self._gate.turn(_LANE + lane, limits.rate, 0.0)
        return state

    def _names(self, states: tuple[_State, _State], lane: str, now: float) -> tuple[str, ...]:
        for state in states:
            self._refresh(state, now)
        return CAMPAIGN, states[0].name, _LANE + lane, states[1].name

    def _refresh(self, state: _State, now: float) -> None:
        if state.speed.low is not None and not 0 <= now - state.turned_at < _REFRESH:
            self._turn(state, now)

    def _turn(self, state: _State, now: float) -> None:
        self._gate.turn(state.name, state.speed.rate(now, burst=state.burst), now)
        state.turned_at = now
