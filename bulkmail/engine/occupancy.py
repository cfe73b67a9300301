"""Which lanes the sessions of one relay are busy with: some providers want few sessions, or few messages in each."""

from __future__ import annotations

from collections import Counter


class Use:
    """What one sender's session carries and has carried, by lane; `full` of them want no more messages in it."""

    __slots__ = ("carried", "full", "in_flight")

    def __init__(self) -> None:
        self.in_flight: Counter[str] = Counter()
        self.carried: Counter[str] = Counter()
        self.full = 0

    def renew(self) -> None:
        """Another session takes its place."""
        self.carried.clear()
        self.full = 0


class Occupancy:
    """Plain counting for all sessions of one relay."""

    def __init__(self) -> None:
        self._sessions: Counter[str] = Counter()  # that have a message of the lane under way
        self._held: dict[int, tuple[str, Use, int | None]] = {}
        self.uncounted: dict[int, tuple[str, Use]] = {}  # under way while no lane had a limit, by delivery

    def sessions(self, lane: str) -> int:
        """How many sessions have a message of `lane` under way."""
        uncounted = {id(use) for name, use in self.uncounted.values() if name == lane and not use.in_flight[lane]}
        return self._sessions[lane] + len(uncounted)

    def has_room(self, lane: str, use: Use, *, sessions: int, messages: int | None) -> bool:
        """Whether one more message of `lane` may go over the session of `use`.

        At most this many `sessions` may be busy with the lane, and each carry this many of its `messages`.
        """
        if messages is not None and use.carried[lane] >= messages:
            return False
        return use.in_flight[lane] > 0 or self.sessions(lane) < sessions

    def begin(self, delivery_id: int, lane: str, use: Use, *, messages: int | None) -> None:
        """A message of `lane`, of which a session may carry this many `messages`, is on its way over that of `use`."""
        self._held[delivery_id] = lane, use, messages
        if not use.in_flight[lane]:
            self._sessions[lane] += 1
        use.in_flight[lane] += 1
        use.carried[lane] += 1
        use.full += use.carried[lane] == messages

    def end(self, delivery_id: int, *, came_back: bool = False) -> None:
        """It is no longer; with `came_back` nothing of it went."""
        if self.uncounted.pop(delivery_id, None) is not None:
            return
        if (held := self._held.pop(delivery_id, None)) is None:
            return
        lane, use, messages = held
        use.in_flight[lane] -= 1
        if came_back and use.carried[lane]:
            use.full -= use.carried[lane] == messages
            use.carried[lane] -= 1
        if not use.in_flight[lane]:
            self._sessions[lane] -= 1
            if not self._sessions[lane]:
                del self._sessions[lane]
