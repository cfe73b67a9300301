"""The first messages of a campaign are sent ahead, and the rest only if those succeed."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Set

from bulkmail.engine.contracts import Ending, Event, ResultBatch
from bulkmail.model.breaker import Ahead, BreakerLimits, CanaryBreaker, ahead_key, judge_canary, policy_key
from bulkmail.model.errors import SendingPaused
from bulkmail.model.hold import Hold
from bulkmail.model.outcome import Outcome, Scope
from bulkmail.outbox.outbox import Outbox
from bulkmail.outbox.shape import noticing_damage

SETTING = "canary"
PASSED = "passed"

Wants = Set[int]
"""The ids of the only deliveries to send."""

Send = Callable[[int | None, Wants | None], Awaitable[Ending]]
"""Sends at most that number of messages (None: all) of those that are wanted."""


class Canary:
    """Which messages went ahead, and what the last try of each came to.  Kept in the outbox from one run to the next.

    A copy (To, Cc, Bcc) counts by its address: once, however many rows it belongs to.
    `limit` is the most messages begun in this run, None for all.  `stop` ends what is being sent.
    """

    def __init__(self, outbox: Outbox, limits: BreakerLimits, *, limit: int | None, stop: Callable[[], None]) -> None:
        self._outbox = outbox
        self._limits = limits
        self._left = limit
        self._stop = stop
        self._tries = 0
        self._is_second_try = False
        kept = outbox.settings.get(SETTING, "")
        self._has_passed = kept == PASSED
        self._messages: dict[str, Ahead] = {}  # by id, or a copy's address
        if kept and not self._has_passed:
            with noticing_damage(outbox.store.name):
                self._messages = {
                    key: Ahead(Outcome(outcome), Scope(scope), *rest)
                    for key, (outcome, scope, *rest) in json.loads(kept).items()
                }

    def note(self, event: Event) -> None:
        """An event from the engine."""
        for result in event.results if isinstance(event, ResultBatch) else ():
            self._tries += 1
            verdict, delivery = result.attempt.verdict, result.delivery
            copy_to = delivery.forward_path if delivery.is_copy else ""
            key = policy_key(result.attempt.event, verdict)
            self._messages[ahead_key(delivery.id, copy_to)] = Ahead(verdict.outcome, verdict.scope, delivery.id, key)
            if self._is_second_try and verdict.outcome is Outcome.ACCEPTED:
                self._stop()

    def breaker(self, *, total: int) -> CanaryBreaker:
        """For the engine: the outcome that fails the canary gives back who was refused for no fault of theirs."""
        return CanaryBreaker(self._limits, total=total, messages=self._messages)

    @property
    def left(self) -> int | None:
        """How many messages may still be begun in this run."""
        return None if self._left is None else max(0, self._left - self._tries)

    async def go(self, send: Send) -> Ending | None:
        """Sends the first messages and judges them; None when the rest may go, else how the run ends."""
        if self._has_passed or not self._limits.canary:
            return None
        ending = await self._send_ahead(send)
        if ending is not None:
            return ending
        if not self._outcomes[Outcome.ACCEPTED] and self._outcomes[Outcome.DEFERRED]:
            ending = await self._try_again(send)
            if ending is not None:
                return ending
        return self._judged()

    async def _send_ahead(self, send: Send) -> Ending | None:
        """None when enough messages were sent, or all there are."""
        while (wanted := self._limits.canary - len(self._messages)) > 0:
            before, open_before = self._tries, self._outbox.tally().open
            ending = await send(wanted if self.left is None else min(wanted, self.left), None)
            self._remember()
            open_now = self._outbox.tally().open
            if ending.error or ending.was_stopped or not open_now or self.left == 0:
                return ending
            if self._tries == before and open_now == open_before:
                return ending  # the others are not due yet
        return None

    async def _try_again(self, send: Send) -> Ending | None:
        """Greylisting looks like a refusal of all: retries until the first is accepted, or nothing more is due soon."""
        self._is_second_try = True
        ending = await send(self.left, {a.delivery for a in self._messages.values() if a.outcome is Outcome.DEFERRED})
        self._is_second_try = False
        self._remember()
        if ending.error or (ending.was_stopped and not self._outcomes[Outcome.ACCEPTED]):
            return ending
        return None

    def _judged(self) -> Ending | None:
        scopes = Counter(ahead.scope for ahead in self._messages.values() if ahead.outcome is Outcome.REJECTED)
        trip = judge_canary(self._outcomes, scopes, self._limits)
        if trip is None:
            self._outbox.set_setting(SETTING, PASSED)
            return None
        self._outbox.set_setting(
            SETTING, ""
        )  # a resumed run has probably fixed something: it sends other messages first
        hint = f"{trip.hint} (with --canary 0 to send the rest anyway)"
        return Ending(
            SendingPaused(
                f"Sending stopped; no recipients were lost: {trip.sentence}",
                hint=hint,
                hold=Hold(math.inf, trip.sentence),
            )
        )

    @property
    def _outcomes(self) -> Counter[Outcome]:
        return Counter(ahead.outcome for ahead in self._messages.values())

    def _remember(self) -> None:
        kept = {key: (a.outcome.value, a.scope.value, a.delivery, a.key) for key, a in self._messages.items()}
        self._outbox.set_setting(SETTING, json.dumps(kept))


def both(one: Wants | None, other: Wants | None) -> Wants | None:
    """What both of them want; None wants all."""
    if one is None or other is None:
        return other if one is None else one
    return one & other
