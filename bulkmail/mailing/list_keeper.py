"""A run and the suppression list: who is added meanwhile is left out, and what servers say of a mailbox goes in."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import anyio
from anyio import to_thread

from bulkmail.engine.contracts import Connect, Connection, DeliveryResult, Event, Notice, ResultBatch
from bulkmail.mailing.suppression_list import RegisteredRun, is_there, known_run, open_used
from bulkmail.model.delivery import AttemptResult, Delivery
from bulkmail.model.errors import OutboxError, SuppressionError
from bulkmail.model.feedback_event import FeedbackEvent, event_of_reply
from bulkmail.model.lazy import dataclass
from bulkmail.model.outcome import Outcome
from bulkmail.model.recipient import Address
from bulkmail.model.suppression import MISTAKE_LEAST, ListInUse
from bulkmail.outbox.outbox import Outbox
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.settings.presets import known_providers
from bulkmail.suppression.index import SuppressionIndex
from bulkmail.suppression.stored_list import Suppressions
from bulkmail.text import count

log = logging.getLogger("bulkmail.mailing")

_ACCEPTED, _REJECTED = Outcome.ACCEPTED, Outcome.REJECTED
EVERY = 0.5  # seconds between two looks at the list
COUNT_EVERY = 60.0  # seconds between two notes of how many messages went to each provider

K = TypeVar("K", bound="ListKeeper")
Wait = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Heard:
    """What is written to the list at once: events, messages answered by provider, digests of addresses reached."""

    events: list[FeedbackEvent]
    counts: dict[str, int]
    reached: list[bytes]


class ListedRun(RegisteredRun, Protocol):
    """The parts of a run that its keeper asks for; `path` is that of its outbox, None for one in memory or a store."""

    @property
    def path(self) -> Path | None: ...


class ListKeeper:
    """Stands between the engine and its observer, for a run that sends to its recipients.

    `run()` looks at the list every `EVERY` seconds.  When it names recipients of the run that are still open, their
    rows are in `found`, and `interrupt` is called, so that the caller can leave them out while nothing is under way.

    What servers say of a mailbox is written to the list, once a session with the relay was opened whose EHLO does not
    say that it delivers nothing.  What cannot be written now is written later, at the latest at the end.
    It has more attributes and methods than a class should: one per event of a run, over one list.
    """

    def __init__(
        self,
        outbox: ListedRun,
        used: ListInUse,
        *,
        interrupt: Callable[[], None],
        observe: Callable[[Event], None],
    ) -> None:
        self.found: set[int] = set()
        self.is_interrupted = False
        self._outbox = outbox
        self._used = used
        self._interrupt = interrupt
        self._observe = observe
        self._store: Suppressions | None = None
        self._index: SuppressionIndex | None = None
        self._version = -1
        self._campaign = outbox.campaign.name if outbox.campaign else outbox.info.name
        self._delivering: set[str] = set()  # relays that do
        self._is_registered = False
        self._provider_of = known_providers().of
        self._events: list[tuple[FeedbackEvent, str]] = []  # not written yet, with the relay that said it
        self._domains: dict[str, int] = {}  # messages by domain that are not in `_answered` yet
        self._answered: Counter[str] = Counter()  # messages by provider whose number is not written yet
        self._counted_at = time.monotonic()
        self._counted: set[str] = set()  # providers of whom some number is
        self._soft: frozenset[bytes] = frozenset()
        self._reached: list[bytes] = []
        self._is_reported = False

    # -- the engine's side

    def noticing(self, label: str, connect: Connect) -> Connect:
        """`connect`, with a look at what the relay called `label` says of itself."""

        async def opened() -> Connection:
            connection = await connect()
            if connection.delivers:
                self._delivering.add(label)
            return connection

        return opened

    def observe(self, event: Event) -> None:
        """The engine tells: of all messages, so that this must cost next to nothing."""
        if event.__class__ is ResultBatch:
            domains = self._domains
            for result in event.results:
                outcome = result.attempt.verdict.outcome
                if outcome is _ACCEPTED or outcome is _REJECTED:
                    path = result.delivery.forward_path
                    domain = path[path.rfind("@") + 1 :]
                    domains[domain] = domains.get(domain, 0) + 1
                if outcome is not _ACCEPTED or self._soft:
                    self._note(result)
        self._observe(event)

    def _note(self, event: DeliveryResult) -> None:
        delivery, attempt = event.delivery, event.attempt
        if attempt.verdict.outcome is _ACCEPTED:
            if self._soft and self._store is not None and attempt.relay in self._delivering:
                digest = self._store.digest(_address(delivery.forward_path).key)
                if digest in self._soft:
                    self._reached.append(digest)
            return
        found = self._event(delivery, attempt)
        if found is not None:
            self._events.append((found, attempt.relay))

    def _event(self, delivery: Delivery, attempt: AttemptResult) -> FeedbackEvent | None:
        return event_of_reply(
            delivery,
            attempt,
            run_id=self._outbox.run_id,
            campaign=self._campaign,
            list_id=self._used.policy.list_id or "",
        )

    def _heard_before(self) -> list[tuple[FeedbackEvent, str]]:
        """What the outbox has of refusals, with their relays: to write it again changes nothing."""
        with self._reader() as reader:
            tries = list(reader.refusals())
        events = ((self._event(delivery, attempt), attempt.relay) for delivery, attempt in tries)
        return [(event, relay) for event, relay in events if event is not None]

    def matches(self, address: Address) -> str:
        """Why there is no mail to `address` by now; empty if there may be."""
        return self._index.reason(address.key) if self._index is not None else ""

    def take_found(self) -> set[int]:
        """The rows found so far, which the caller leaves out now."""
        found, self.found, self.is_interrupted = self.found, set(), False
        return found

    # -- the list's side

    async def begin(self) -> None:
        """Opens the list, if there is one.  Raises `SuppressionError` for one that cannot be read."""
        await to_thread.run_sync(self._open_if_there)
        if self._outbox.started_at is not None:  # by a process that may not have come to write all that it heard
            self._events += await to_thread.run_sync(self._heard_before)

    async def run(self, wait: Wait = anyio.sleep) -> None:
        """Looks and writes until it is cancelled."""
        while True:
            await wait(EVERY)
            await self._once()

    async def _once(self) -> None:
        try:
            rows = await to_thread.run_sync(self._look)
            await self._flush()
        except (SuppressionError, OutboxError) as error:
            self._tell(f"the suppression list cannot be asked just now, so that later opt-outs are not seen: {error}")
            return
        if rows:
            self.found |= rows
            self.is_interrupted = True
            self._interrupt()

    async def end(self) -> None:
        """Writes what is not written yet, and lets go of the list."""
        with anyio.CancelScope(shield=True):
            try:
                await self._flush(is_last=True)
                for text in await to_thread.run_sync(self._mistakes):
                    self._observe(Notice(text, ""))
            except SuppressionError as error:
                self._tell(
                    f"{count(len(self._events), 'refusal')} could not be written to the suppression list: {error}"
                )
            finally:
                await to_thread.run_sync(self._close)

    def _tell(self, text: str) -> None:
        log.warning("suppression list not available", extra={"why": text})
        if not self._is_reported:
            self._is_reported = True
            self._observe(Notice(text, ""))

    def _open_if_there(self) -> None:
        if self._store is None and is_there(self._used):
            self._open()

    def _open(self) -> Suppressions:
        if self._store is None:
            self._store = open_used(self._used)
            self._index = SuppressionIndex(self._store, self._used.policy)
            if self._used.rules.soft is not None:
                self._soft = self._store.soft_bounced(self._used.rules.soft.within)
        return self._store

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()

    def _look(self) -> set[int]:
        """The rows with open deliveries to whom the list has by now, and had not at the last look."""
        was_there = self._store is not None
        self._open_if_there()
        if self._store is None or self._index is None:
            return set()
        version = self._store.version()
        if version == self._version:
            return set()
        changes = self._store.changes(self._index.seq) if was_there else None
        if changes is not None and changes.latest == self._index.seq:
            self._version = version
            return set()
        self._index.refresh()
        rows = self._rows(changes.keys if changes is not None and not changes.has_more else None)
        self._version = version
        return rows

    def _rows(self, keys: Iterable[str] | None) -> set[int]:
        """The open rows of these addresses and domains that the run applies; None looks at all that are open."""
        index = self._index
        if index is None:
            return set()
        if keys is not None:
            keys = [key for key in keys if index.applies(key)]
            if not keys:
                return set()
        with self._reader() as reader:
            # The outbox knows addresses as they are written, SQLite lower case of ASCII alone.
            if keys is None or not all(map(str.isascii, keys)):
                return set(reader.rows_with(lambda address: index.reason(address.key)))
            return set(reader.rows_to(keys))

    def _reader(self) -> OutboxReader:
        outbox = self._outbox
        assert isinstance(outbox, Outbox)  # noqa: S101 - a run in a store is asked otherwise
        return OutboxReader.open(outbox.path) if outbox.path is not None else OutboxReader.over(outbox)

    def _take(self, *, is_last: bool = False) -> _Heard | None:
        """What was heard through relays that deliver and is to be written now; None for nothing."""
        if not self._delivering:
            return None
        events = [event for event, relay in self._events if relay in self._delivering]
        counts = dict[str, int]()
        now = time.monotonic()
        if events or is_last or now - self._counted_at >= COUNT_EVERY:
            self._counted_at = now
            for domain, number in self._domains.items():
                self._answered[self._provider_of(domain)] += number
            self._domains = {}
            # What comes back by mail is a share of these as well.  Of few messages no provider can be mistaken.
            counts = {p: n for p, n in self._answered.items() if n > MISTAKE_LEAST or p in self._counted}
        if not (events or counts or self._reached):
            return None
        heard = _Heard(events, counts, self._reached)
        self._events = [(event, relay) for event, relay in self._events if relay not in self._delivering]
        self._answered -= Counter(counts)
        self._counted |= counts.keys()
        self._reached = []
        return heard

    def _give_back(self, heard: _Heard) -> None:
        """It could not be written: the next time."""
        relay = next(iter(self._delivering))
        self._events += [(event, relay) for event in heard.events]
        self._answered += Counter(heard.counts)
        self._reached = [*heard.reached, *self._reached]

    async def _flush(self, *, is_last: bool = False) -> None:
        heard = self._take(is_last=is_last)
        if heard is None:
            return
        is_written = False

        def write() -> None:
            nonlocal is_written
            self._write(heard)
            is_written = True

        try:
            await to_thread.run_sync(write)
        except BaseException:  # a cancellation may come before the thread began, or when it is done
            if not is_written:
                self._give_back(heard)
            raise

    def _write(self, heard: _Heard) -> None:
        store = self._open()
        if not self._is_registered:
            store.register(known_run(self._outbox, self._outbox.path))
            self._is_registered = True
        run_id, now = self._outbox.run_id, time.time()
        if heard.counts:
            store.note_sent(run_id, heard.counts, at=now)
        store.record(heard.events)
        if heard.reached:
            store.note_reached(run_id, heard.reached, at=now)

    def _mistakes(self) -> list[str]:
        """What to say of providers whose refusals in this run are not believed."""
        if self._store is None:
            return []
        return [
            f"{found.provider} refused {count(found.held, 'address', 'addresses')} as unknown, more than can be true:"
            " none of them is suppressed unless another campaign hears the same (bulkmail suppress list --held)"
            for found in self._store.mistakes()
            if found.run_id == self._outbox.run_id
        ]


def _address(path: str) -> Address:
    local, _, domain = path.rpartition("@")
    return Address(local, domain)


@asynccontextmanager
async def keeping_to_list(
    outbox: Outbox, *, interrupt: Callable[[], None], observe: Callable[[Event], None]
) -> AsyncIterator[ListKeeper | None]:
    """The keeper of a run while it sends; None for a rehearsal, and for a run without a suppression list."""
    used = outbox.info.suppression_list
    if used is None or outbox.is_rehearsal:
        yield None
        return
    async with at_work(ListKeeper(outbox, used, interrupt=interrupt, observe=observe)) as keeper:
        yield keeper


@asynccontextmanager
async def at_work(keeper: K) -> AsyncIterator[K]:
    """`keeper` looks and writes as long as the context lasts."""
    failed: Exception | None = None
    try:
        await keeper.begin()
        async with anyio.create_task_group() as group:
            group.start_soon(keeper.run)
            try:
                yield keeper
            except Exception as error:  # as it was, not in the group's exception
                failed = error
            group.cancel_scope.cancel()
    finally:
        await keeper.end()
    if failed is not None:
        raise failed


def noticing_all(keeper: ListKeeper, labels: Sequence[str], connects: Sequence[Connect]) -> list[Connect]:
    """`connects` of relays with these labels, as `keeper` watches them."""
    return [keeper.noticing(label, connect) for label, connect in zip(labels, connects, strict=True)]
