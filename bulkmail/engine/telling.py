"""Observers are told: outcomes by the batch, everything else at once."""

from __future__ import annotations

import asyncio

from bulkmail.engine.contracts import DeliveryResult, Event, Observe, ResultBatch
from bulkmail.model.tally import Status
from bulkmail.model.timing import LARGEST_BATCH, OUTCOMES_TOLD_WITHIN

_ACCEPTED = Status.ACCEPTED


class Telling:
    """Tells `observe` of what happens, in the order in which it happens.

    An acceptance waits until it is one of many, or for a moment; anything else there is to tell comes after it.
    """

    def __init__(self, observe: Observe, *, by_one: bool) -> None:
        """On the running loop.  `by_one`: each outcome is told at once, because something waits for it."""
        self._observe = observe
        self._by_one = by_one
        self._loop = asyncio.get_running_loop()
        self._results: list[DeliveryResult] = []
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, event: Event) -> None:
        """Tells of an event that is no outcome."""
        if self._results:
            self.flush()
        self._observe(event)

    def settled(self, result: DeliveryResult, *, is_last: bool) -> None:
        """An outcome is durable; `is_last`: nothing else is under way."""
        results = self._results
        results.append(result)
        if is_last or self._by_one or len(results) >= LARGEST_BATCH or result.delivery.status is not _ACCEPTED:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(OUTCOMES_TOLD_WITHIN, self.flush)

    def flush(self) -> None:
        """Tells of the outcomes so far."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._results:
            results, self._results = self._results, []
            self._observe(ResultBatch(results))
