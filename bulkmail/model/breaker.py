"""When to stop a campaign before it burns the list: what to watch for, where the limits are, and what to say then."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from bulkmail.model.reply import Fault, Reply
from bulkmail.model.units import count, say_duration
from bulkmail.model.verdict import Outcome, Scope, Verdict


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
class Limits:
    """When the breakers open.  Shares are 0 to 1; a share of 1 or a number of 0 never opens.

    `policy_run` equal policy rejections among the last `policy_among` outcomes; more than `unknown_share` unknown users
    after `unknown_after` outcomes; after `canary` letters, more than `canary_share` of them rejected.
    """

    policy_run: int = 20
    policy_among: int = 50
    unknown_share: float = 0.1
    unknown_after: int = 200
    canary: int = 0
    canary_share: float = 0.1


_MOST_COPIES = 10_000  # addresses of copies that are remembered
POLICY_REASONS = frozenset({"policy", "refused", "content refused"})
UNKNOWN_REASON = "unknown user"


@dataclass(frozen=True, slots=True)
class _Seen:
    """One outcome: which delivery, and of which policy rejection it was, empty for none."""

    id: int
    key: str = ""
    words: str = ""


class Breaker:
    """Watches the outcomes of one run.  A campaign without faults costs it a counter a letter."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._lately: deque[_Seen] = deque(maxlen=max(1, self._limits.policy_among))
        self._keys: Counter[str] = Counter()
        self._judged = 0
        self._unknown = 0
        self._copies: dict[str, None] = {}  # addresses that were counted as a copy, the one seen last at the end
        self._repeated: deque[_Seen] = deque(maxlen=self._lately.maxlen)  # refusals of those that do not count again

    def note(self, delivery_id: int, event: Reply | Fault, verdict: Verdict, *, copy_to: str = "") -> Trip | None:
        """One attempt ended; what that trips, if anything.  What was deferred says nothing of either.

        `copy_to` is the address of a copy (To, Cc, Bcc): it counts once, however many rows it belongs to.
        """
        if verdict.outcome not in (Outcome.ACCEPTED, Outcome.REJECTED):
            return None
        seen = _Seen(delivery_id, *_policy(event, verdict))
        if copy_to and not self._is_new(copy_to.casefold()):
            if seen.key:
                self._repeated.append(seen)
            return None
        self._judged += 1
        self._remember(seen)
        if verdict.outcome is Outcome.ACCEPTED:
            return None
        if verdict.reason == UNKNOWN_REASON:
            self._unknown += 1
        return self._policy_trip() or self._unknown_trip()

    def _is_new(self, copy: str) -> bool:
        """Whether this copy's address is seen for the first time."""
        is_new = copy not in self._copies
        self._copies.pop(copy, None)
        self._copies[copy] = None
        if len(self._copies) > _MOST_COPIES:
            del self._copies[next(iter(self._copies))]
        return is_new

    def _remember(self, seen: _Seen) -> None:
        if len(self._lately) == self._lately.maxlen and (gone := self._lately[0]).key:
            self._keys[gone.key] -= 1
        self._lately.append(seen)
        if seen.key:
            self._keys[seen.key] += 1

    def _policy_trip(self) -> Trip | None:
        latest = self._lately[-1]
        run = self._limits.policy_run
        if not run or not latest.key or self._keys[latest.key] < run:
            return None
        same = tuple(seen.id for seen in self._lately if seen.key == latest.key)
        repeated = tuple(seen.id for seen in self._repeated if seen.key == latest.key)
        return Trip(
            Danger.POLICY,
            f"{len(same)} of the last {count(len(self._lately), 'letter')} were refused with the same words, "
            f'"{latest.words}": that is about you or the letter, not about the people',
            "mend what the server complains of (sender domain, SPF, DKIM, DMARC, links, rights), then resume",
            put_back=same + repeated,
        )

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


def _policy(event: Reply | Fault, verdict: Verdict) -> tuple[str, str]:
    """The key that equal policy rejections share, and the words to show."""
    is_policy = verdict.outcome is Outcome.REJECTED and verdict.reason in POLICY_REASONS
    if not is_policy or not isinstance(event, Reply):
        return "", ""
    if event.enhanced and not event.enhanced.startswith("5.7."):
        return "", ""
    return (event.enhanced or str(event.code)), str(event)[:200]


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


def judge_canary(outcomes: Mapping[Outcome, int], scopes: Mapping[Scope, int], limits: Limits) -> Trip | None:
    """Whether the first letters give a reason not to send the rest; None when they do not.

    `outcomes` are what the canary's letters have come to, each counted once; `scopes` whose doing the rejections were.
    None of them accepted is a reason, more than `canary_share` of them rejected too, and one in doubt.  Deferred ones
    are no reason as long as somebody was accepted: greylisting is common.
    """
    total = sum(outcomes.values())
    rejected, accepted = outcomes.get(Outcome.REJECTED, 0), outcomes.get(Outcome.ACCEPTED, 0)
    in_doubt = outcomes.get(Outcome.IN_DOUBT, 0)
    if not total:
        return None
    if not accepted:
        why = "none was accepted"
    elif rejected > limits.canary_share * total:
        by_letter = scopes.get(Scope.MESSAGE, 0)
        about = f", {by_letter:,} of them for what is in the letter" if by_letter else ""
        why = f"{rejected:,} were rejected{about} (the limit is {limits.canary_share:.0%})"
    elif in_doubt:
        why = f"of {in_doubt:,} nobody knows whether they arrived"
    else:
        return None
    return Trip(
        Danger.CANARY,
        f"of the first {count(total, 'letter')} {why}; the rest was not sent",
        "look at the server's words in the report, mend what they say, then resume",
    )
