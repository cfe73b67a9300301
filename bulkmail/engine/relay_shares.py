"""Who of several relays may take the next job of a queue: the better ones first, equals in shares if they have any."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bulkmail.engine.contracts import QueueKey
from bulkmail.engine.relay_state import RelayState

LEAD = 16.0  # jobs that a relay may be ahead of its share: enough that no session waits for another relay's


class _Member:
    """A relay of a queue.  `taken` are jobs divided by weight, as if it had been there from the beginning."""

    __slots__ = ("relay", "taken", "was_away")

    def __init__(self, relay: RelayState) -> None:
        self.relay = relay
        self.taken = 0.0
        self.was_away = False


class RelayShares:
    """Plain bookkeeping; `now` is monotonic seconds.

    `serving` says which relays, by their number, each queue may go through.
    """

    def __init__(self, relays: Sequence[RelayState], serving: Mapping[QueueKey, Sequence[int]]) -> None:
        self._members = {
            key: {relays[number]: _Member(relays[number]) for number in numbers} for key, numbers in serving.items()
        }
        self._weighted = {
            key: {relay.priority for relay in members if relay.is_weighted} for key, members in self._members.items()
        }
        self._is_holding = False
        self.is_alone = len(relays) == 1 and len(serving) == 1  # one relay and one queue: nothing to share

    def keys_of(self, relay: RelayState) -> list[QueueKey]:
        """The queues whose jobs may go through `relay`."""
        return [key for key, members in self._members.items() if relay in members]

    def serving(self, relay: RelayState) -> Callable[[QueueKey], bool]:
        """Which queues `relay` has to do with."""
        return lambda key: relay in self._members[key]

    def may_take(self, relay: RelayState, key: QueueKey, now: float) -> bool:
        """Whether `relay` may take a job of `key` now, as far as the other relays are concerned."""
        members = self._members[key]
        mine = members.get(relay)
        if mine is None:
            return False
        if len(members) == 1:
            return True
        if any(other.priority < relay.priority and other.is_able(now) for other in members):
            return False
        if relay.priority not in self._weighted[key]:
            return True
        equals = self._equals(mine, members, now)
        if any(mine.taken - other.taken > LEAD / relay.weight for other in equals):
            self._is_holding = True
            return False
        return True

    def took(self, relay: RelayState, key: QueueKey, now: float) -> bool:
        """Books a job; returns whether relays held back in favour of this one should look again."""
        members = self._members[key]
        mine = members[relay]
        if relay.priority not in self._weighted[key]:
            return False
        equals = self._equals(mine, members, now)
        if mine.was_away and equals:  # what it has missed is not owed to it
            mine.taken = max(mine.taken, min(other.taken for other in equals))
        mine.was_away = False
        mine.taken += 1.0 / relay.weight
        if not self._is_holding or any(o.taken - mine.taken > LEAD / o.relay.weight / 2 for o in equals):
            return False
        self._is_holding = False
        return True

    def _equals(self, mine: _Member, members: Mapping[RelayState, _Member], now: float) -> list[_Member]:
        """The others of the same priority that do their share."""
        found = []
        for other in members.values():
            if other is mine or other.relay.priority != mine.relay.priority:
                continue
            if other.relay.health.open and other.relay.is_able(now):
                found.append(other)
            else:
                other.was_away = True
        return found

    def gave_back(self, relay: RelayState, key: QueueKey) -> None:
        """The reverse of `took()`: nothing came of it."""
        self._members[key][relay].taken -= 1.0 / relay.weight

    def has_others(self, relay: RelayState, key: QueueKey) -> bool:
        """Whether another relay that is not out could take the jobs of `key`."""
        return any(other is not relay and not other.is_out for other in self._members[key])

    def is_needed(self, relay: RelayState, now: float) -> bool:
        """Whether some queue has no other relay that there is hope for."""
        return any(
            relay in members and not any(other is not relay and other.is_hopeful(now) for other in members)
            for members in self._members.values()
        )

    def stranded(self) -> list[tuple[QueueKey, RelayState]]:
        """The queues that no relay is left for, each with one that it would have gone through."""
        return [
            (key, next(iter(members)))
            for key, members in self._members.items()
            if all(relay.is_out for relay in members)
        ]
