"""One writer for all who ask at once: what comes in within a few milliseconds is committed together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b

from anyio import CapacityLimiter, to_thread

from bulkmail.feedback.matching import Arrived
from bulkmail.message.unsubscribe import UnsubscribeRequest
from bulkmail.model.errors import SuppressionError
from bulkmail.model.feedback_event import FeedbackEvent, FeedbackKind, Proof
from bulkmail.model.lazy import dataclass
from bulkmail.model.suppression import SuppressionPolicy, SuppressionReason
from bulkmail.suppression.ports import SuppressionStore

TOGETHER = 0.005  # seconds
MOST_TOGETHER = 500
NOTE_EVERY = 600.0  # seconds
MOST_WAITING = 2_000  # more are refused for now

Match = Callable[[Sequence[Arrived]], list[FeedbackEvent]]
_ONLY_UNSUBSCRIBED = frozenset({SuppressionReason.UNSUBSCRIBE})


class TooBusy(Exception):
    """So much waits to be written that no more is taken for now."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """What waits to be written: an unsubscribe request, or events.  `done` has no result but that it is durable."""

    what: UnsubscribeRequest | Sequence[FeedbackEvent]
    done: asyncio.Future[None]


class Writer:
    """Writes to `store`.  `match` says what reports are about: that may take long, and no click waits for it."""

    def __init__(self, store: SuppressionStore, match: Match, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._match = match
        self._clock = clock
        self._waiting: list[_Wish] = []
        self._has_some = asyncio.Event()
        self._noted_at = -NOTE_EVERY  # when it was last noted that reports come in
        self._one = CapacityLimiter(1)  # look-ups read whole outboxes

    async def unsubscribe(self, request: UnsubscribeRequest) -> None:
        """Durable when it returns; asked for again it changes nothing.  Raises `SuppressionError`, `TooBusy`."""
        await self._put(request)

    async def report(self, mails: Sequence[Arrived]) -> None:
        """The same for reports."""
        if mails:
            await self._put(await to_thread.run_sync(self._match, mails, limiter=self._one))
            now = self._clock()
            if now - self._noted_at >= NOTE_EVERY:
                self._noted_at = now
                await to_thread.run_sync(partial(self._store.note_intake, "webhooks", is_pushed=True))

    async def _put(self, what: UnsubscribeRequest | Sequence[FeedbackEvent]) -> None:
        if len(self._waiting) >= MOST_WAITING:
            raise TooBusy
        wish = _Wish(what, asyncio.get_running_loop().create_future())
        self._waiting.append(wish)
        self._has_some.set()
        await wish.done

    async def run(self) -> None:
        """Works until it is cancelled."""
        while True:
            await self._has_some.wait()
            self._has_some.clear()
            await asyncio.sleep(TOGETHER)
            while batch := self._waiting[:MOST_TOGETHER]:
                self._waiting = self._waiting[MOST_TOGETHER:]
                await self._write_all(batch)

    async def _write_all(self, batch: Sequence[_Wish]) -> None:
        error: Exception | None = None
        try:
            await to_thread.run_sync(self._write, batch)
        except SuppressionError as failure:
            error = failure
        for wish in batch:
            if wish.done.done():  # the client has gone away
                continue
            if error is None:
                wish.done.set_result(None)
            else:
                wish.done.set_exception(error)

    def _write(self, wishes: Sequence[_Wish]) -> None:
        events: list[FeedbackEvent] = []
        asked: set[UnsubscribeRequest] = set()
        for wish in wishes:
            if isinstance(wish.what, UnsubscribeRequest):
                asked.add(wish.what)
            else:
                events += wish.what
        now = self._clock()
        events += [_event(request, now) for request in asked if not self.has_unsubscribed(request, now)]
        self._store.record(events)

    def has_unsubscribed(self, request: UnsubscribeRequest, now: float) -> bool:
        """Whether the list has it already, so that a click does nothing.  Blocks."""
        policy = SuppressionPolicy(_ONLY_UNSUBSCRIBED, request.list_id)
        return self._store.reason(self._store.digest(request.address.key), policy, now) != ""

    async def take_back(self, request: UnsubscribeRequest, *, within: float) -> bool:
        """Takes an opt-out of the last `within` seconds back; False for none so young.  Raises `SuppressionError`."""
        return await to_thread.run_sync(self._take_back, request, within)

    def _take_back(self, request: UnsubscribeRequest, within: float) -> bool:
        since = self._clock() - within
        young = [
            entry
            for entry in self._store.history(request.address.key).entries
            if entry.reason is SuppressionReason.UNSUBSCRIBE and entry.scope == request.list_id and entry.since >= since
        ]
        if not young:
            return False
        self._store.remove(
            [request.address.key],
            why="taken back on the page",
            who="the recipient",
            reason=SuppressionReason.UNSUBSCRIBE,
            scope=request.list_id,
        )
        return True


def _event(request: UnsubscribeRequest, now: float) -> FeedbackEvent:
    named = f"{request.address.key}\0{request.list_id}\0{now}".encode()
    return FeedbackEvent(
        source_id=f"click {blake2b(named, digest_size=16).hexdigest()}",
        kind=FeedbackKind.UNSUBSCRIBE,
        at=now,
        proof=Proof.TOKEN,
        address=request.address,
        list_id=request.list_id,
        reason="one-click",
        source="unsubscribe page",
    )
