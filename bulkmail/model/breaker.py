"""When a campaign stops before its list is through: on request, and by itself; and what is said then."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import datetime
from enum import Enum
from typing import NamedTuple

from bulkmail.model.errors import OutboxError, RelayError, SendingPaused
from bulkmail.model.lazy import dataclass
from bulkmail.model.outcome import ADVICE, Breakage, Fault, Outcome, Reason, Reply, Scope, Stage, Verdict, advice
from bulkmail.model.quantities import say_duration
from bulkmail.model.schedule import say_until
from bulkmail.model.shaper import Feedback, Slowdown
from bulkmail.model.timing import Hold
from bulkmail.model.verdict import ACCEPTED
from bulkmail.text import count, printable

# -- A request to stop a run: who asked, when, and whether messages under way are aborted.


LONGEST_NAME = 200  # characters of who asked
NO_ONE_NAMED = "an unnamed user"
_LAST = 253_402_000_000  # in the year 9999, wherever the clock stands


@dataclass(frozen=True, slots=True)
class StopRequest:
    """`by` is a user and a computer, `at` wall-clock seconds; with `now` messages under way are aborted."""

    by: str = NO_ONE_NAMED
    at: float = 0.0
    now: bool = False

    def recorded(self) -> str:
        """As a note, and as the setting `stopped` of an outbox."""
        import msgspec

        kept = {"by": printable(self.by, LONGEST_NAME), "at": self.at, "now": self.now}
        return msgspec.json.encode(kept).decode()

    @classmethod
    def read(cls, kept: str | bytes) -> StopRequest:
        """The reverse.  Raises `OutboxError`."""
        import msgspec

        try:
            found = msgspec.json.decode(kept, type=cls)
            if not 0 <= found.at <= _LAST:
                raise ValueError("its time is none")
        except (ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise OutboxError(f"this is no request to stop: {error}") from None
        return cls(printable(found.by, LONGEST_NAME) or NO_ONE_NAMED, found.at, found.now)

    @property
    def sentence(self) -> str:
        """For people who look at the run later."""
        return f"Stopped by {self.by} at {datetime.fromtimestamp(self.at):%Y-%m-%d %H:%M:%S}."


# -- When to stop a campaign before it burns the list: what to watch for, where the limits are, and what to say then.


class Danger(Enum):
    """What a breaker saw."""

    POLICY = "policy"
    UNKNOWN_USERS = "unknown users"
    UNREACHABLE = "unreachable"
    CANARY = "canary"


@dataclass(frozen=True, slots=True)
class Trip:
    """Why sending stops, in one sentence, and what to do.

    `put_back` are the ids of deliveries that were rejected for what is not their fault: they are to be pending again.
    """

    danger: Danger
    sentence: str
    hint: str
    put_back: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """When the breakers open.  Shares are 0 to 1; a share of 1 or a number of 0 never opens.

    `policy_run` equal policy rejections among the last `policy_among` outcomes; more than `unknown_share` unknown users
    after `unknown_after` outcomes; after `canary` messages, more than `canary_share` of them rejected.
    """

    policy_run: int = 20
    policy_among: int = 50
    unknown_share: float = 0.1
    unknown_after: int = 200
    canary: int = 0
    canary_share: float = 0.1


_MOST_COPIES = 10_000  # addresses of copies that are remembered
POLICY_REASONS = frozenset({Reason.POLICY, Reason.REFUSED, Reason.CONTENT_REFUSED, Reason.RECIPIENT_RULE})
MOST_STRIKES = 3
"""Recipients in a row that are refused because of us, before sending stops."""


class Strikes:
    """Refusals of us with nothing accepted in between: a few of them, or all that there are, end the sending.

    `struck` are the deliveries that got one.
    """

    def __init__(self) -> None:
        self.struck: set[int] = set()
        self._names_us = False  # at least one of these refusals
        self._earlier: set[int] = set()  # refused by a policy that names no recipient, before others were accepted

    def accepted(self) -> None:
        """Something was."""
        self._earlier |= self.struck
        self.struck.clear()
        self._names_us = False

    def is_own(self, delivery_id: int, *, has_others: Callable[[Collection[int]], bool]) -> bool:
        """Whether a refusal that names no recipient is about this recipient: nothing indicates that it is about us.

        It is when the recipient got it before and others were accepted since, and when the list ends before a few
        recipients got it.  `has_others` as for `strike()`.
        """
        if delivery_id in self._earlier:
            return True
        struck = {*self.struck, delivery_id}
        return not self._names_us and len(struck) < MOST_STRIKES and not has_others(struck)

    def strike(self, delivery_id: int, *, names_us: bool, has_others: Callable[[Collection[int]], bool]) -> bool:
        """One more was refused because of us; says whether that ends it.

        `names_us`: by its words and not by the like of it.  `has_others` says whether any delivery that is not among
        these is left to try.
        """
        self.struck.add(delivery_id)
        self._names_us |= names_us
        return len(self.struck) >= MOST_STRIKES or not has_others(self.struck)


@dataclass(frozen=True, slots=True)
class _Seen:
    """One outcome: which delivery, and of which policy rejection it was, empty for none."""

    id: int
    key: str = ""
    words: str = ""


_NOTHING_ODD = _Seen(0)


class Breaker:
    """Watches the outcomes of one run.  A campaign without faults costs it a counter a message."""

    def __init__(self, limits: BreakerLimits | None = None, *, total: int = 0) -> None:
        """`total` is how many deliveries the whole list has, 0 for more than would make a difference."""
        self._limits = limits or BreakerLimits()
        self._total = total
        self._lately: deque[_Seen] = deque(maxlen=max(1, self._limits.policy_among))
        self._keys: Counter[str] = Counter()
        self._judged = 0
        self._accepted = 0
        self._unknown = 0
        self._copies: dict[str, None] = {}  # addresses that were counted as a copy, the one seen last at the end
        self._repeated: deque[_Seen] = deque(maxlen=self._lately.maxlen)  # refusals of those that do not count again
        self._in_row: list[int] = []  # equal policy rejections since something else was said
        self._tripped = ""  # the key of those that tripped it

    def spared(self, event: Reply | Fault, verdict: Verdict) -> Verdict:
        """The verdict on replies after a trip: the same refusal again is not the recipient's fault."""
        if not self._tripped or policy_key(event, verdict) != self._tripped:
            return verdict
        return replace(verdict, outcome=Outcome.DEFERRED, counts=False)

    def note(
        self,
        delivery_id: int,
        event: Reply | Fault,
        verdict: Verdict,
        *,
        copy_to: str = "",
        is_last: Callable[[], bool] = lambda: False,
    ) -> Trip | None:
        """One attempt ended; what that trips, if anything.  What was deferred says nothing of either.

        `copy_to` is the address of a copy (To, Cc, Bcc): it counts once, however many rows it belongs to.  `is_last`
        says whether nothing else is left to try.
        """
        if verdict.outcome not in (Outcome.ACCEPTED, Outcome.REJECTED):
            return None
        key = policy_key(event, verdict)
        seen = _Seen(delivery_id, key, str(event)[:200] if key else "")
        if copy_to and not self._is_new(copy_to.casefold()):
            if seen.key:
                self._repeated.append(seen)
            return None
        self._judged += 1
        self._remember(seen)
        if verdict.outcome is Outcome.ACCEPTED:
            self._accepted += 1
            return None
        if verdict.reason is Reason.UNKNOWN_USER:
            self._unknown += 1
        return self._policy_trip(verdict, is_last) or self._unknown_trip()

    def accepted(self, delivery_id: int, reply: Reply, *, copy_to: str = "") -> Trip | None:
        """As `note()` of an acceptance, at a tenth of its cost where nothing else was seen lately."""
        if copy_to or self._in_row or self._keys:
            return self.note(delivery_id, reply, ACCEPTED, copy_to=copy_to)
        self._judged += 1
        self._accepted += 1
        self._lately.append(_NOTHING_ODD)
        return None

    def _is_new(self, copy: str) -> bool:
        """Whether this copy's address is seen for the first time."""
        is_new = copy not in self._copies
        self._copies.pop(copy, None)
        self._copies[copy] = None
        if len(self._copies) > _MOST_COPIES:
            del self._copies[next(iter(self._copies))]
        return is_new

    def _remember(self, seen: _Seen) -> None:
        before = self._lately[-1].key if self._lately else ""
        if len(self._lately) == self._lately.maxlen and (gone := self._lately[0]).key:
            self._keys[gone.key] -= 1
        self._lately.append(seen)
        if seen.key:
            self._keys[seen.key] += 1
        if not seen.key or seen.key != before:
            self._in_row.clear()
        if seen.key and len(self._in_row) < self._limits.policy_run:
            self._in_row.append(seen.id)

    def _policy_trip(self, verdict: Verdict, is_last: Callable[[], bool]) -> Trip | None:
        latest = self._lately[-1]
        if not self._limits.policy_run or not latest.key or self._tripped:
            return None
        if self._keys[latest.key] >= self._limits.policy_run:
            same = tuple(seen.id for seen in self._lately if seen.key == latest.key)
            among = f"{len(same)} of the last {count(len(self._lately), 'message')} were"
        elif verdict.reason is not Reason.RECIPIENT_RULE and self._are_too_many(is_last):
            same = tuple(self._in_row)
            among = f"{len(same)} messages in a row were"
        else:
            return None
        self._tripped = latest.key
        hint = ADVICE[Reason.POLICY].fix
        return Trip(
            Danger.POLICY,
            f'{among} refused with the same words, "{latest.words}": '
            "that is about you or the message, not about the people",
            f"{hint}, then resume",
            put_back=same + tuple(seen.id for seen in self._repeated if seen.key == latest.key),
        )

    def _are_too_many(self, is_last: Callable[[], bool]) -> bool:
        """As large a share of a short list, or of the end of a long one, as trips in the midst of it."""
        limits, in_row = self._limits, len(self._in_row)
        share = min(1.0, limits.policy_run / max(1, limits.policy_among))
        if 0 < self._total < limits.policy_run and not self._accepted:
            return in_row >= max(3, math.ceil(share * self._total))
        return in_row >= max(3, math.ceil(share * limits.policy_run)) and is_last()

    def _unknown_trip(self) -> Trip | None:
        limits = self._limits
        if limits.unknown_share >= 1 or not limits.unknown_after or self._judged < limits.unknown_after:
            return None
        if self._unknown <= limits.unknown_share * self._judged:
            return None
        return Trip(
            Danger.UNKNOWN_USERS,
            f"{self._unknown:,} of {count(self._judged, 'address', 'addresses')} do not exist "
            f"({self._unknown / self._judged:.1%}, the limit is {limits.unknown_share:.1%}): "
            "providers block senders of such lists",
            "clean the list, or allow more of them if you know it is sound, then resume",
        )


def policy_key(event: Reply | Fault, verdict: Verdict) -> str:
    """What equal policy rejections share, empty for anything else."""
    is_policy = verdict.outcome is Outcome.REJECTED and verdict.reason in POLICY_REASONS
    if not is_policy or not isinstance(event, Reply):
        return ""
    if event.enhanced and not event.enhanced.startswith("5.7."):
        return ""
    return f"{verdict.reason} {event.enhanced or event.code}"


class CanaryBreaker(Breaker):
    """Watches the canary, too: when its last message has an outcome, rejections not about the recipient are undone.

    `messages` are the outcomes of earlier runs and passes by `ahead_key()`.
    """

    def __init__(self, limits: BreakerLimits, *, total: int, messages: Mapping[str, Ahead]) -> None:
        super().__init__(limits, total=total)
        self._messages = dict(messages)
        self._refused = {ahead.delivery: ahead.key for ahead in messages.values() if ahead.key}
        self._canary = limits

    def accepted(self, delivery_id: int, reply: Reply, *, copy_to: str = "") -> Trip | None:
        return self.note(delivery_id, reply, ACCEPTED, copy_to=copy_to)

    def note(
        self,
        delivery_id: int,
        event: Reply | Fault,
        verdict: Verdict,
        *,
        copy_to: str = "",
        is_last: Callable[[], bool] = lambda: False,
    ) -> Trip | None:
        """As any breaker; also judges the canary, which alone does not end the run."""
        trip = super().note(delivery_id, event, verdict, copy_to=copy_to, is_last=is_last)
        key = policy_key(event, verdict)
        self._messages[ahead_key(delivery_id, copy_to)] = Ahead(verdict.outcome, verdict.scope, delivery_id, key)
        if key:
            self._refused[delivery_id] = key
        return trip or self._canary_trip()

    def _canary_trip(self) -> Trip | None:
        if len(self._messages) < self._canary.canary or self._tripped:
            return None
        outcomes = Counter(ahead.outcome for ahead in self._messages.values())
        if not outcomes[Outcome.ACCEPTED] and outcomes[Outcome.DEFERRED]:
            return None  # these are tried again first
        scopes = Counter(ahead.scope for ahead in self._messages.values() if ahead.outcome is Outcome.REJECTED)
        trip = judge_canary(outcomes, scopes, self._canary)
        keys = Counter(ahead.key for ahead in self._messages.values() if ahead.key)
        if trip is None or not keys:
            return trip
        self._tripped = keys.most_common(1)[0][0]
        return replace(trip, put_back=tuple(n for n, key in self._refused.items() if key == self._tripped))


class Ahead(NamedTuple):
    """What the last try of a message that went ahead came to; `key` as of `policy_key()`."""

    outcome: Outcome
    scope: Scope
    delivery: int
    key: str = ""


def ahead_key(delivery_id: int, copy_to: str) -> str:
    """What a message that went ahead counts by: a copy by its address, once, however many rows it belongs to."""
    return copy_to.casefold() or str(delivery_id)


def unreachable(relay: str, *, since: float | None, now: float, patience: float, what: str = "") -> Trip | None:
    """Whether a relay has failed for longer than `patience`; `since` is when that began, None when it works.

    `since` and `now` are seconds of one clock; `what` is what was last seen of it.
    """
    if since is None or now - since < patience:
        return None
    seen = f": {what}" if what else ""
    return Trip(
        Danger.UNREACHABLE,
        f"{relay} could not be used for {say_duration(now - since)}{seen}",
        "nothing is lost; look whether the server and your network are up, then resume",
    )


def judge_canary(outcomes: Mapping[Outcome, int], scopes: Mapping[Scope, int], limits: BreakerLimits) -> Trip | None:
    """Whether the first messages give a reason not to send the rest; None when they do not.

    `outcomes` are those of the canary's messages, each counted once; `scopes` those of the rejections.  Reasons are:
    none accepted, more than `canary_share` of them rejected, one in doubt.  Deferred ones are no reason if at least one
    was accepted: greylisting is common.
    """
    total = sum(outcomes.values())
    rejected, accepted = outcomes.get(Outcome.REJECTED, 0), outcomes.get(Outcome.ACCEPTED, 0)
    in_doubt = outcomes.get(Outcome.IN_DOUBT, 0)
    if not total:
        return None
    if not accepted:
        why = "none was accepted"
    elif rejected > limits.canary_share * total:
        by_message = scopes.get(Scope.MESSAGE, 0)
        about = f", {by_message:,} of them for what is in the message" if by_message else ""
        why = f"{rejected:,} were rejected{about} (the limit is {limits.canary_share:.0%})"
    elif in_doubt:
        why = f"{in_doubt:,} may or may not have arrived"
    else:
        return None
    return Trip(
        Danger.CANARY,
        f"of the first {count(total, 'message')} {why}; the rest was not sent",
        "fix the problem that the server's replies in the report name, then resume",
    )


# -- Why a campaign had to stop, in words for the user, and what to try next.


_AGAIN = "; then run the same command again: it continues where this one stopped"

_FIXES = {
    Breakage.REFUSED: "check host and port (587 and 465 are usual) and that the server is running",
    Breakage.NO_SUCH_HOST: "check the spelling of the host",
    Breakage.UNREACHABLE: "check host and port, and whether a firewall is in between",
    Breakage.EXHAUSTED: "set connections lower, or allow more with ulimit -n",
    Breakage.UNTRUSTED: "name the server's own authority with ?ca_file=FILE in the relay URL",
    Breakage.WRONG_NAME: "write the name that the certificate is for into the relay URL",
    Breakage.NO_TLS: "use smtps:// if the server has TLS from the start (port 465); only for a server on this machine "
    "or a trusted network add ?tls=off",
    Breakage.WRONG_TLS: "change the relay URL",
    Breakage.NO_REQUIRETLS: "leave requiretls out to do without that promise, or use a relay that gives it",
    Breakage.NO_LOGIN: "ask the provider for the port (587 and 465 are usual) and the login method",
    Breakage.NO_TOKEN: "see what [relay] says about the token, and whether the provider still allows this program",
    Breakage.IMPOSTOR: "check which server answers there before you try again",
}


def explain(event: Reply | Fault, *, relay: str, feedback: Feedback, patience: float | None = None) -> RelayError:
    """The error that ends a run because of `event`; with `patience` (seconds), because it went on for that long.

    `feedback` is the run's own judge, here and below.
    """
    message, fix = _reported(event, relay, feedback, patience)
    return RelayError(f"Sending stopped; no recipients were lost: {message}", hint=fix + _AGAIN)


def explain_left_out(event: Reply | Fault, *, relay: str, feedback: Feedback, patience: float | None = None) -> str:
    """Why one of several relays gets nothing more in this run, in a sentence that also says what to do."""
    message, fix = _reported(event, relay, feedback, patience)
    return f"{relay} is not used any more in this run, the other relays continue: {message}; {fix}"


def explain_failing(event: Reply | Fault, *, relay: str, feedback: Feedback) -> str:
    """Why one of several relays is not used at the moment, in a sentence."""
    message, _ = _reported(event, relay, feedback, None)
    return f"{relay} fails, and is retried from time to time; the other relays continue: {message}"


def _reported(event: Reply | Fault, relay: str, feedback: Feedback, patience: float | None) -> tuple[str, str]:
    """What happened, and what to do about it."""
    if isinstance(event, Fault):
        message, fix = str(event), _FIXES.get(event.kind, "check that the server is running and reachable")
        if event.stage is Stage.CONNECT and "+unix://" in relay:
            fix = "check the path of the socket, that its server is running and that this user may use it"
    else:
        message, fix = _refusal(event, relay, feedback)
    if patience is not None:
        message = f"{message}; this has lasted for {say_duration(patience)}"
    return message, fix


def say_slowed(slowdown: Slowdown, event: Reply | Fault, now: float) -> str:
    """The effect of a throttling reply, in a sentence; `now` is seconds of the slowdown's clock."""
    done = []
    if slowdown.is_left_alone(now):
        done.append(f"paused for {say_duration(slowdown.until - now)}")
    if (rate := slowdown.per_second(now)) is not None:
        done.append(f"slowed down to {rate:.3g} messages a second")
    if slowdown.connections is not None:
        done.append(f"limited to {count(slowdown.connections, 'connection')}")
    return f"{slowdown.provider or slowdown.relay} is {' and '.join(done) or 'slowed down'}: {event}"


def _refusal(reply: Reply, relay: str, feedback: Feedback) -> tuple[str, str]:
    words, fix = advice(feedback.decide(reply).verdict.reason) or ("", "")
    if not words and reply.is_permanent:
        words, fix = "refused", "ask the server's administrator"
    elif not words:
        words, fix = "is not ready to take mail", "wait a while"
    return f"{relay} {words}: {reply}", fix


def explain_rest(rest: Hold, now: float) -> SendingPaused:
    """The error that ends a run which does not wait for the end of `rest`."""
    return SendingPaused(
        f"Sending is paused until {say_until(rest.until, now)}: {rest.why}; no recipients were lost",
        hint="run the same command again then, by hand or from cron: it continues where this one stopped; "
        "with --wait forever, bulkmail waits by itself",
        hold=rest,
    )
