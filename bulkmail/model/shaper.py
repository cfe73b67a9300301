"""What may go when, through which relay and to which provider: what servers ask for, what is lowered or held."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field, replace

from bulkmail.model.lazy import dataclass
from bulkmail.model.outcome import Breakage, Effect, Fault, Outcome, Reason, Reply, Scope, Stage, Verdict
from bulkmail.model.rate import AdaptiveRate, ComplaintShare, ConcurrencyLimit, Meter, Rate, RateLimiter
from bulkmail.model.retry import PROVIDER_BACKOFF, RELAY_BACKOFF, Backoff, asked_until, asked_wait
from bulkmail.model.route import MailboxProviders
from bulkmail.model.timing import (
    LOGIN_RETRIED_AFTER,
    LONGEST_ACCOUNT_PAUSE,
    LONGEST_SUSPENSION,
    NO_HOLD,
    RISING_RATE_CHECKED_AFTER,
    RISING_RATE_UPDATED_EVERY,
    Hold,
)
from bulkmail.model.verdict import ReplyRule, judge
from bulkmail.text import printable

# -- What a server's replies ask of us: the verdict on each, with the times that its words name.


@dataclass(frozen=True, slots=True)
class ThrottleDecision:
    """What is to be done about one reply: its verdict, and for how long.

    `asked` is how many seconds the server asks us to back off, 0 when it did not say; `until` the wall-clock second
    that it names, None when it names none.  The workers of a run ask it, and never look at `event` themselves.
    """

    verdict: Verdict
    asked: float = 0.0
    until: float | None = None
    event: Reply | Fault | None = field(default=None, compare=False, repr=False)

    @property
    def suspend(self) -> float:
        """Seconds for which provider or relay is paused: the rule's own or the server's, whichever is longer."""
        return max(self.verdict.suspend, self.asked) if self.is_complaint else 0.0

    @property
    def is_complaint(self) -> bool:
        """Whether it asks a provider or relay to be treated otherwise."""
        if self.verdict.outcome is not Outcome.DEFERRED:
            return False
        return self.verdict.scope is Scope.PROVIDER or (
            self.verdict.scope is Scope.RELAY and bool(self.verdict.effects)
        )

    @property
    def is_suspending(self) -> bool:
        """Whether the verdict's scope is to be paused for a while."""
        return self.is_complaint and (not self.verdict.effects or self.suspend > 0)

    @property
    def is_slower(self) -> bool:
        """Whether the rate of the verdict's scope is to be lowered."""
        return Effect.SLOWER in self.verdict.effects

    @property
    def is_fewer(self) -> bool:
        """Whether the connections of the verdict's scope are to be lowered."""
        return Effect.FEWER in self.verdict.effects

    @property
    def login_wait(self) -> float:
        """Seconds to wait before another login: a minute where the relay counts them, else 0."""
        is_counted = self.verdict.reason is Reason.TOO_MANY_LOGINS and not self.verdict.stops
        return LOGIN_RETRIED_AFTER if is_counted else 0.0

    @property
    def declines_session(self) -> bool:
        """Whether a server would not have this session; beside others that work it only wants no more of them."""
        return isinstance(self.event, Reply) and self.event.stage in _CONNECTING

    @property
    def dismisses(self) -> bool:
        """Whether the server ends a session that was to carry another message."""
        return isinstance(self.event, Reply) and self.event.code == 421 and self.event.stage in (Stage.MAIL, Stage.RCPT)

    @property
    def splits(self) -> bool:
        """Whether this recipient and those behind it may be sent to at once, in another transaction.

        RFC 5321 §4.5.3.1.10.
        """
        event = self.event
        return isinstance(event, Reply) and event.stage is Stage.RCPT and event.enhanced in ("4.5.3", "5.5.3")

    @property
    def is_unanswered(self) -> bool:
        """Whether nothing answers at that address, which is more likely misspelt than busy when it never did."""
        return isinstance(self.event, Fault) and self.event.kind in _NOTHING_ANSWERS

    @property
    def is_exhausted(self) -> bool:
        """Whether it is this computer that has no more to give."""
        return isinstance(self.event, Fault) and self.event.kind is Breakage.EXHAUSTED

    def is_untried(self, *, has_carried: bool) -> bool:
        """Whether nothing of the message left that could count as a try: it goes again as if nothing had been.

        The server may have closed an old session, or one that has done its work (`has_carried`): on a fresh one it may
        accept the message.
        """
        event = self.event
        if not isinstance(event, Fault) or event.stage is Stage.END:
            return False
        if event.kind is Breakage.STOPPED:
            return True
        return event.stage is Stage.MAIL and event.kind is Breakage.LOST and has_carried

    @property
    def pause(self) -> float:
        """Seconds that the account is to rest because a quota is used up; 0 when none is."""
        return self.verdict.pause and (self.asked or self.verdict.pause)

    def pause_at(self, now: float) -> float:
        """As `pause`, until the day that the server named if that is still to come; `now` is wall-clock seconds."""
        if not self.verdict.pause or self.until is None or self.until <= now:
            return self.pause
        return min(self.until - now, LONGEST_ACCOUNT_PAUSE)


@dataclass(frozen=True, slots=True)
class Feedback:
    """The judge with rules of its own before the built-in ones; the first that fits decides."""

    rules: tuple[ReplyRule, ...] = ()

    def decide(self, event: Reply | Fault) -> ThrottleDecision:
        """The verdict on how an attempt ended, and what it asks of us."""
        verdict = judge(event, self.rules)
        if isinstance(event, Fault) or verdict.scope in (Scope.RECIPIENT, Scope.MESSAGE, Scope.SESSION):
            return ThrottleDecision(verdict, event=event)
        if verdict.pause:
            asked = asked_wait(event.text, longest=LONGEST_ACCOUNT_PAUSE)
            return ThrottleDecision(verdict, asked, asked_until(event.text), event)
        return ThrottleDecision(verdict, asked_wait(event.text), event=event)


_NOTHING_ANSWERS = frozenset({Breakage.REFUSED, Breakage.NO_SUCH_HOST, Breakage.UNREACHABLE})
_CONNECTING = frozenset({Stage.CONNECT, Stage.GREETING, Stage.EHLO, Stage.STARTTLS})


# -- What a relay or a provider has complained of, what it is given since, and until when.


MOST_KEPT = 200  # relays and providers that are kept in mind for those who look on
LONGEST_WORDS = 400  # characters


@dataclass(frozen=True, slots=True)
class Slowdown:
    """A relay, or one provider through it, that has asked for less in this run.

    `provider` is empty for the relay itself.  It has throttled us `times`, last `at`; `why` is our name for it,
    `words` are the server's.  `speed` is how its rate rises again, None if it was never lowered, and `lowest` the
    lowest rate so far in messages a second.  `connections` is the most it gets, None for as many as configured.  We
    back off until `until`, 0 for not at all.  All times are seconds of one clock.
    """

    relay: str
    provider: str
    times: int
    at: float
    why: str
    words: str = ""
    speed: AdaptiveRate | None = None
    lowest: float | None = None
    connections: int | None = None
    until: float = 0.0

    @property
    def key(self) -> tuple[str, str]:
        """Relay and provider."""
        return self.relay, self.provider

    def is_left_alone(self, now: float) -> bool:
        """Whether nothing goes there at `now`."""
        return self.until > now

    def per_second(self, now: float) -> float | None:
        """Messages a second that it gets at `now`; None when its complaints do not hold them back any more."""
        return self.speed.now(now) if self.speed is not None and self.speed.is_lowered(now) else None

    def is_over(self, now: float) -> bool:
        """Whether it is treated as if it had never complained."""
        return not self.is_left_alone(now) and self.per_second(now) is None and self.connections is None

    def shifted(self, seconds: float) -> Slowdown:
        """The same by a clock that is `seconds` ahead."""
        return replace(
            self,
            at=self.at + seconds,
            until=self.until + seconds if self.until else 0.0,
            speed=None if self.speed is None else replace(self.speed, since=self.speed.since + seconds),
        )


class Slowdowns:
    """The latest of each relay and provider; above 200 the one that throttled longest ago is dropped."""

    def __init__(self, earlier: Iterable[Slowdown] = ()) -> None:
        self._each = {slowdown.key: slowdown for slowdown in earlier}

    def __iter__(self) -> Iterator[Slowdown]:
        """Relays first, then providers; in each group those that throttled most often first."""
        return iter(sorted(self._each.values(), key=lambda each: (each.provider != "", -each.times, each.key)))

    def __len__(self) -> int:
        return len(self._each)

    def note(self, slowdown: Slowdown) -> Slowdown | None:
        """Takes note; returns what was known of the same relay or provider before, if anything."""
        known = self._each.get(slowdown.key)
        self._each[slowdown.key] = slowdown
        if len(self._each) > MOST_KEPT:
            del self._each[min(self._each.values(), key=lambda each: each.at).key]
        return known


# -- What may go when, through which relay and to which provider: all that is lowered or held, in one place.


CAMPAIGN = "campaign"
_PROVIDER = "provider "
MOST_IDLE = 10_000  # providers that are kept in mind although nothing is wrong with them


class _State:
    """How a relay, or one provider through it, is doing.  `times` it has throttled, `in_row` of them led to a pause.

    It has more attributes than a class should: rate, sessions and pause of a server, and what each is calculated from.
    """

    __slots__ = (
        "at",
        "backoff",
        "burst",
        "concurrency",
        "hold",
        "in_row",
        "long_meter",
        "lowest",
        "meter",
        "name",
        "share",
        "shared",
        "speed",
        "times",
        "turned_at",
        "why",
        "words",
    )

    def __init__(self, name: str, shared: str, *, rate: Rate | None, connections: int, backoff: Backoff) -> None:
        """`name` is that of its own rate, `shared` of the one that it shares with others."""
        self.name = name
        self.shared = shared
        self.backoff = backoff
        self.speed = AdaptiveRate(rate.per_second if rate else None)
        self.burst = rate.burst if rate else 1
        self.concurrency = ConcurrencyLimit(connections)
        self.hold = NO_HOLD
        self.meter = Meter()
        self.share = ComplaintShare()
        self.long_meter = Meter(60.0)
        self.turned_at = -math.inf
        self.times = self.in_row = 0
        self.at = 0.0
        self.why = self.words = ""
        self.lowest: float | None = None

    def complained(self, now: float, *, why: str, words: str) -> None:
        """Takes note of one more complaint."""
        self.times += 1
        self.at, self.why, self.words = now, why, printable(words, LONGEST_WORDS)

    def is_suspended(self, now: float) -> bool:
        return self.hold.lasts(now, longest=LONGEST_SUSPENSION)

    def slow_down(self, now: float) -> None:
        self.share = self.share.complain(now)
        if self.share.is_in_vain:
            return
        self.speed = self.speed.lowered(now, seen=self.meter.per_second(now))
        if self.speed.low is not None:
            self.lowest = self.speed.low if self.lowest is None else min(self.lowest, self.speed.low)

    def suspend(self, now: float, *, asked: float, least: float, jitter: float) -> None:
        """Leaves it alone for a while; what is heard while it pauses already was under way before."""
        if not self.is_suspended(now):
            self.in_row += 1
        seconds = self.backoff.wait(max(1, self.in_row), jitter=jitter, asked=asked, least=least)
        self.hold = self.hold.extended(now, seconds, self.why, longest=LONGEST_SUSPENSION)

    def recall(self, known: Slowdown) -> None:
        """Its state when `known` was recorded, with the rate rising since then."""
        self.times, self.at, self.why, self.words = known.times, known.at, known.why, known.words
        self.lowest = known.lowest
        if known.speed is not None:
            self.speed = replace(known.speed, limit=self.speed.limit)
        if known.connections is not None:
            self.concurrency = replace(self.concurrency, allowed=max(1, min(known.connections, self.concurrency.limit)))
        if known.until:
            self.hold = Hold(known.until, known.why)
            self.in_row = 1

    def is_fine(self, now: float) -> bool:
        """Whether it could be forgotten without a difference."""
        return (
            not self.times
            and self.concurrency.size >= self.concurrency.limit
            and not self.is_suspended(now)
            and not self.meter.per_second(now)
        )


def _rest(state: _State, now: float) -> float:
    return state.hold.until - now if state.is_suspended(now) else 0.0


class Shaper:
    """Rates, connections and suspensions of a campaign, its relays and, through each relay, its providers.

    Pure bookkeeping: every time is seconds of one monotonic clock.  `wait()` tells of a provider that is slow or
    suspended, and books nothing, so that a message that may not go costs the others nothing.

    `has_fewer_connections`: some relay may tolerate fewer sessions than were configured; once so, it stays so.

    `is_free`: no message has to wait for anything of this, and none needs to be booked; only the number of sessions may
    be limited.  Once it is not, it stays so.

    It has more methods than a class should: who asks is the scheduler, who tells are complaints and acceptances, and
    what they share is the state of one relay or provider.
    """

    def __init__(
        self,
        providers: MailboxProviders,
        *,
        rate: Rate | None = None,
        relay_backoff: Backoff = RELAY_BACKOFF,
        provider_backoff: Backoff = PROVIDER_BACKOFF,
        known: Iterable[Slowdown] = (),
        limiter: RateLimiter | None = None,
    ) -> None:
        """`known` is what relays and providers complained of before: they are treated as they were then.

        `limiter` is one that others share.
        """
        self._limiter = limiter if limiter is not None else RateLimiter()
        if rate is not None:
            self._limiter.turn(CAMPAIGN, rate, 0.0)
        self._providers = providers
        self._relay_backoff = relay_backoff
        self._provider_backoff = provider_backoff
        self._known = {slowdown.key: slowdown for slowdown in known}
        self._relays: dict[str, _State] = {}
        self._through: dict[tuple[str, str], _State] = {}
        self.has_fewer_connections = bool(self._known)
        self.is_free = rate is None and not self._known and not providers.has_limits

    def add_relay(self, relay: str, *, connections: int, rate: Rate | None = None) -> None:
        """A relay by its name, with the limits that were configured for it; one that is there already stays so."""
        if relay in self._relays:
            return
        name = f"relay {relay}"
        state = self._relays[relay] = _State(
            name, CAMPAIGN, rate=rate, connections=connections, backoff=self._relay_backoff
        )
        self._limiter.turn(name, rate, 0.0)
        self.is_free = self.is_free and rate is None
        if (known := self._known.pop((relay, ""), None)) is not None:
            state.recall(known)

    def wait(self, relay: str, provider: str, now: float) -> float:
        """Seconds until one message of `provider` may go through `relay`; 0 when it may go now."""
        return max(self.relay_wait(relay, now), self.provider_wait(relay, provider, now))

    def relay_wait(self, relay: str, now: float) -> float:
        """Seconds until `relay` and the campaign let any message go, whatever its provider says."""
        return self._wait_of(self._relays[relay], now)

    def relay_rest(self, relay: str, now: float) -> float:
        """Seconds for which `relay` is paused, regardless of rates."""
        return _rest(self._relays[relay], now)

    def spacing(self, relay: str) -> float:
        """Seconds from one message through `relay` to the next, as its rate and that of the campaign have it."""
        rates = (self._limiter.rate(CAMPAIGN), self._limiter.rate(self._relays[relay].name))
        return max((1.0 / rate.per_second for rate in rates if rate is not None), default=0.0)

    def own_wait(self, relay: str, now: float) -> float:
        """Seconds until `relay`'s own rate, apart from the campaign's, lets one more go."""
        return self._limiter.wait((self._relays[relay].name,), now)

    def provider_wait(self, relay: str, provider: str, now: float) -> float:
        """Seconds until `provider` allows a message through `relay`, regardless of the relay."""
        return self._wait_of(self._provider(relay, provider), now)

    def _wait_of(self, state: _State, now: float) -> float:
        """Seconds until its own rate and the shared one allow a message, and its pause is over.

        While its own rate is on its way up, it is asked again after a second.
        """
        if state.speed.low is None:  # its rate was never lowered
            wait = self._limiter.wait((state.shared, state.name), now)
        else:
            self._refresh(state, now)
            wait = self._limiter.wait((state.name,), now)
            if state.speed.is_rising(now):
                wait = min(wait, RISING_RATE_CHECKED_AFTER)
            wait = max(wait, self._limiter.wait((state.shared,), now))
        return wait if state.hold is NO_HOLD else max(wait, _rest(state, now))

    def is_left_alone(self, relay: str, provider: str, now: float) -> bool:
        """Whether `provider` is held back by more than a rate: it pauses, or takes nothing at all."""
        state = self._provider(relay, provider)
        return state.is_suspended(now) or state.speed.is_blocked

    def refused(self, relay: str, now: float, *, open: int, why: str, words: str) -> None:
        """The relay would not have one more session beside those `open`, whatever it said."""
        state = self._relays[relay]
        self.has_fewer_connections = True
        state.complained(now, why=why, words=words)
        state.concurrency = state.concurrency.refuse(now, open=open)

    def take(self, relay: str, provider: str, now: float) -> bool:
        """Books one message; False, and nothing is booked, when it must wait."""
        own, through = self._relays[relay], self._provider(relay, provider)
        for state in (own, through):
            if state.hold is not NO_HOLD and state.is_suspended(now):
                return False
            if state.speed.low is not None:
                self._refresh(state, now)
        return self._limiter.take((CAMPAIGN, own.name, through.shared, through.name), now)

    @property
    def booked(self) -> Mapping[str, float]:
        """What the last `take()` booked, to be given back if the message did not go."""
        return self._limiter.booked

    def give_back(self, booked: Mapping[str, float]) -> None:
        """The message that this was booked for did not go: another may go in its place."""
        self._limiter.give_back(booked)

    def accepted(self, relay: str, provider: str, now: float, count: int = 1) -> bool:
        """The relay took `count` messages to `provider`; whether either gets more for it than it would have."""
        gets_more = False
        for state in (self._relays[relay], self._provider(relay, provider)):
            if state.speed.is_blocked:
                state.speed = state.speed.opened(now, sustained=state.long_meter.per_second(now))
                self._turn(state, now)
                gets_more = True
            state.meter.take(now, count)
            if state.times:
                state.share = state.share.take(count)
            state.long_meter.take(now, count)
            if state.in_row and not state.is_suspended(now):
                state.in_row = 0
            if 0 < state.concurrency.allowed < state.concurrency.limit:
                before = state.concurrency.size
                state.concurrency = state.concurrency.take(now, count)
                gets_more = gets_more or state.concurrency.size > before
        return gets_more

    def throttle(
        self,
        decision: ThrottleDecision,
        scope: tuple[str, str],
        now: float,
        *,
        open: int,
        words: str = "",
        jitter: float = 0.5,
    ) -> None:
        """Does what a complaint about a relay, or about one provider through it, asks for.

        `scope` names both.  `open` are the sessions open there beside the one that was refused.  `words` are the
        server's own; `jitter`, in [0, 1), spreads the length of its pause.
        """
        if not decision.is_complaint:
            return
        self.is_free, self.has_fewer_connections = False, True
        state = self._provider(*scope) if decision.verdict.scope is Scope.PROVIDER else self._relays[scope[0]]
        state.complained(now, why=decision.verdict.says, words=words)
        if decision.is_slower:
            state.slow_down(now)
            self._turn(state, now)
        if decision.is_fewer and decision.is_slower:
            state.concurrency = state.concurrency.halve(now)
        elif decision.is_fewer:
            state.concurrency = state.concurrency.refuse(now, open=open)
        if decision.is_suspending:
            state.suspend(now, asked=decision.asked, least=decision.verdict.suspend, jitter=jitter)

    def connections(self, relay: str) -> int:
        """The most sessions that `relay` tolerates just now, 1 or more."""
        concurrency = self._relays[relay].concurrency
        return concurrency.allowed or concurrency.limit

    def session_limits(self, relay: str, provider: str) -> tuple[int, int | None]:
        """The most sessions that may carry messages of `provider` through `relay` at once, 1 or more.

        With it, how many of them one session may carry; None: as many as of others.
        """
        sessions = self._provider(relay, provider).concurrency.size
        return min(sessions, self.connections(relay)), self.messages_per_session(provider)

    def messages_per_session(self, provider: str) -> int | None:
        """How many messages of `provider` one session may carry; None: as many as of others."""
        return self._providers.limits(provider).messages_per_session

    def slowdown(self, relay: str, provider: str, now: float) -> Slowdown | None:
        """What `provider` (empty for the relay itself) has complained of, and what it gets since; None for nothing."""
        state = self._through.get((relay, provider)) if provider else self._relays[relay]
        if state is None or not state.times:
            return None
        return Slowdown(
            relay,
            provider,
            times=state.times,
            at=state.at,
            why=state.why,
            words=state.words,
            speed=state.speed if state.speed.low is not None else None,
            lowest=state.lowest,
            connections=state.concurrency.size if state.concurrency.size < state.concurrency.limit else None,
            until=state.hold.until if state.is_suspended(now) else 0.0,
        )

    def tidy(self, now: float) -> None:
        """Forgets providers that nothing is wrong with, when there are many: call it now and then."""
        if len(self._through) > MOST_IDLE:
            self._through = {key: state for key, state in self._through.items() if not state.is_fine(now)}
            self._limiter.forget(now, beginning=_PROVIDER)

    def _provider(self, relay: str, provider: str) -> _State:
        state = self._through.get((relay, provider))
        if state is None:
            limits, most = self._providers.limits(provider), self._relays[relay].concurrency.limit
            # Its configured rate is that of the provider as a whole; this one begins with the first complaint.
            connections = most if limits.connections is None else min(limits.connections, most)
            state = self._through[relay, provider] = _State(
                f"{relay} {provider}",
                _PROVIDER + provider,
                rate=None,
                connections=connections,
                backoff=self._provider_backoff,
            )
            if (known := self._known.pop((relay, provider), None)) is not None:
                state.recall(known)
            if limits.rate is not None and self._limiter.rate(_PROVIDER + provider) is None:
                self._limiter.turn(_PROVIDER + provider, limits.rate, 0.0)
        return state

    def _refresh(self, state: _State, now: float) -> None:
        if state.speed.low is not None and not 0 <= now - state.turned_at < RISING_RATE_UPDATED_EVERY:
            self._turn(state, now)

    def _turn(self, state: _State, now: float) -> None:
        self._limiter.turn(state.name, state.speed.rate(now, burst=state.burst), now)
        state.turned_at = now
