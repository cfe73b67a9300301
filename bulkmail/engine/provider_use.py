"""Which providers the sessions of one relay are busy with: some want few sessions, or few messages in each."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bulkmail.engine.relay_state import RelayState
    from bulkmail.engine.scheduler import Booking


class SessionUse:
    """What one worker's session carries and has carried, by provider; `full` of them want no more messages in it."""

    __slots__ = ("carried", "full", "in_flight", "relay")

    def __init__(self, relay: RelayState) -> None:
        self.relay = relay
        self.in_flight: Counter[str] = Counter()
        self.carried: Counter[str] = Counter()
        self.full = 0

    def renew(self) -> None:
        """Another session takes its place."""
        self.carried.clear()
        self.full = 0


class ProviderUse:
    """Plain counting for all sessions of one relay.

    `uncounted` are the bookings made while no provider had a limit.  They are counted on demand.
    """

    def __init__(self) -> None:
        self._sessions: Counter[str] = Counter()  # that have a message of the provider under way
        self._held: dict[int, tuple[str, SessionUse, int | None]] = {}
        self.uncounted: dict[int, Booking] = {}

    def sessions(self, provider: str) -> int:
        """How many sessions have a message of `provider` under way."""
        while self.uncounted:
            delivery_id, booking = self.uncounted.popitem()
            self.begin(delivery_id, booking.provider, booking.session, messages=None)
        return self._sessions[provider]

    def has_room(self, provider: str, use: SessionUse, *, sessions: int, messages: int | None) -> bool:
        """Whether one more message of `provider` may go over the session of `use`.

        At most `sessions` may be busy with the provider, and each may carry at most `messages` of it.
        """
        busy = self.sessions(provider)
        if messages is not None and use.carried[provider] >= messages:
            return False
        return use.in_flight[provider] > 0 or busy < sessions

    def begin(self, delivery_id: int, provider: str, use: SessionUse, *, messages: int | None) -> None:
        """A message of `provider` is on its way over the session of `use`, which may carry at most `messages` of it."""
        self._held[delivery_id] = provider, use, messages
        if not use.in_flight[provider]:
            self._sessions[provider] += 1
        use.in_flight[provider] += 1
        use.carried[provider] += 1
        use.full += use.carried[provider] == messages

    def end(self, delivery_id: int, *, came_back: bool = False) -> None:
        """It is no longer; with `came_back` nothing of it went."""
        if self.uncounted.pop(delivery_id, None) is not None:
            return
        if (held := self._held.pop(delivery_id, None)) is None:
            return
        provider, use, messages = held
        use.in_flight[provider] -= 1
        if came_back and use.carried[provider]:
            use.full -= use.carried[provider] == messages
            use.carried[provider] -= 1
        if not use.in_flight[provider]:
            self._sessions[provider] -= 1
            if not self._sessions[provider]:
                del self._sessions[provider]
