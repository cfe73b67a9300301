"""The journal: no one is notified before it is durable, everyone is notified once, in order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from bulkmail.engine.run import Journal
from bulkmail.model.delivery import Mark, Release, Settlement
from bulkmail.model.errors import OutboxError
from bulkmail.model.pace import Durability
from bulkmail.model.tally import Status
from bulkmail.outbox.outbox import Outbox
from bulkmail.outbox.sending import OutboxStore
from tests.outbox.making import due, make_entries, make_mark, make_settlement, statuses

Entries = Sequence[Mark | Settlement | Release]


@pytest.fixture(params=[Durability.PROCESS, Durability.POWER], ids=["process", "power"])
def outbox(request: pytest.FixtureRequest, create: Callable[..., Outbox]) -> Outbox:
    return create(make_entries(50), durability=request.param)


class Watch:
    """Sees every write to an outbox, and can hold or break it."""

    def __init__(self, outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()
        self.committed: set[int] = set()
        self.may_go = threading.Event()
        self.may_go.set()
        self.begun = threading.Event()
        self.failure: BaseException | None = None
        self._write = outbox.write
        monkeypatch.setattr(outbox, "write", self)

    def __call__(self, entries: Entries) -> None:
        self.begun.set()
        assert self.may_go.wait(10)
        self.threads.add(threading.get_ident())
        numbers = [e.delivery.id if isinstance(e, Settlement) else e.delivery_id for e in entries]
        self.batches.append(numbers)
        if self.failure is not None:
            raise self.failure
        self._write(entries)
        self.committed.update(numbers)


@asynccontextmanager
async def over(outbox: Outbox) -> AsyncIterator[Journal]:
    """A journal over the outbox as an engine's store."""
    store = OutboxStore(outbox)
    try:
        async with Journal(store) as journal:
            yield journal
    finally:
        await store.aclose()


@pytest.fixture
def watch(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(outbox, monkeypatch)


async def test_journal_reports_after_the_commit_and_in_order(outbox: Outbox, watch: Watch) -> None:
    reported: list[int] = []

    def then(number: int) -> Callable[[BaseException | None], None]:
        def told_of(error: BaseException | None) -> None:
            assert error is None
            assert number in watch.committed
            assert threading.current_thread() is threading.main_thread()
            reported.append(number)

        return told_of

    async with over(outbox) as journal:
        for number in range(1, 31):
            journal.put(make_mark(number), then(number))
            assert reported == [] or number > 10
            if number % 10 == 0:
                await asyncio.sleep(0)
    assert reported == list(range(1, 31))
    assert [number for batch in watch.batches for number in batch] == list(range(1, 31))
    assert (threading.get_ident() in watch.threads) is (outbox.durability is Durability.PROCESS)


async def test_one_turn_of_the_loop_is_one_transaction(outbox: Outbox, watch: Watch) -> None:
    async def connection(journal: Journal, number: int) -> None:
        journal.put(make_mark(number), lambda error: None)

    async with over(outbox) as journal:
        await asyncio.gather(*(connection(journal, number) for number in range(1, 21)))
        await asyncio.sleep(0.01)
    assert watch.batches == [list(range(1, 21))]


async def test_writer_takes_along_what_came_while_it_waited_for_the_disk(
    create: Callable[..., Outbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = create(make_entries(50), durability=Durability.POWER)
    watch = Watch(outbox, monkeypatch)
    watch.may_go.clear()
    journal = Journal(OutboxStore(outbox))
    reported: list[int] = []
    for number in range(1, 6):
        journal.put(make_mark(number), lambda error, number=number: reported.append(number))  # type: ignore[misc]
        await asyncio.sleep(0.02)
        assert await asyncio.to_thread(watch.begun.wait, 10)
    assert reported == []
    watch.may_go.set()
    await journal.aclose()
    assert watch.batches == [[1], [2, 3, 4, 5]]
    assert reported == [1, 2, 3, 4, 5]


async def test_callback_may_put_the_next_entry(outbox: Outbox) -> None:
    done = asyncio.Event()
    delivery = due(outbox)[0]
    async with over(outbox) as journal:
        journal.put(
            make_mark(delivery),
            lambda error: journal.put(make_settlement(delivery), lambda error: done.set()),
        )
        async with asyncio.timeout(10):
            await done.wait()
    assert statuses(outbox)[Status.ACCEPTED] == 1


async def test_failed_commit_reaches_all_of_it_and_all_after(outbox: Outbox, watch: Watch) -> None:
    watch.failure = OutboxError("the disk is full")
    reported: list[BaseException | None] = []
    async with over(outbox) as journal:
        for number in (1, 2):
            journal.put(make_mark(number), reported.append)
        await asyncio.sleep(0.1)
        assert len(reported) == 2
        watch.failure = None
        journal.put(make_mark(3), reported.append)
        assert len(reported) == 2, "never from within put"
    assert [str(error) for error in reported] == ["the disk is full"] * 3
    assert watch.batches == [[1, 2]], "after a failure nothing is tried again"
    assert len(due(outbox)) == 50


async def test_impossible_entry_fails_its_batch_and_stops_the_journal(outbox: Outbox) -> None:
    reported: list[BaseException | None] = []
    async with over(outbox) as journal:
        journal.put(make_mark(1), reported.append)
        journal.put(make_mark(1), reported.append)
    assert [type(error) for error in reported] == [OutboxError, OutboxError]
    assert len(due(outbox)) == 50


async def test_callback_that_raises_does_not_keep_the_others_from_being_reported(outbox: Outbox) -> None:
    contexts: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: contexts.append(context))
    reported: list[BaseException | None] = []

    def fail(error: BaseException | None) -> None:
        raise ValueError("a bug")

    async with over(outbox) as journal:
        journal.put(make_mark(1), fail)
        journal.put(make_mark(2), reported.append)
    assert reported == [None]
    assert [str(context["exception"]) for context in contexts] == ["a bug"]


async def test_closed_journal_takes_nothing(outbox: Outbox) -> None:
    journal = Journal(OutboxStore(outbox))
    await journal.aclose()
    await journal.aclose()
    with pytest.raises(OutboxError, match="the journal is closed"):
        journal.put(make_mark(1), lambda error: None)


async def test_closing_commits_everything_although_it_is_cancelled(
    create: Callable[..., Outbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = create(make_entries(5), durability=Durability.POWER)
    watch = Watch(outbox, monkeypatch)
    watch.may_go.clear()
    reported: list[BaseException | None] = []
    journal = Journal(OutboxStore(outbox))
    journal.put(make_mark(1), reported.append)
    closing = asyncio.create_task(journal.aclose())
    for _ in range(3):
        await asyncio.sleep(0.01)
        closing.cancel()
    await asyncio.sleep(0.01)
    assert not closing.done()
    watch.may_go.set()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert (reported, watch.committed) == ([None], {1})


async def test_closing_commits_everything_although_its_scope_is_cancelled(
    create: Callable[..., Outbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = create(make_entries(5), durability=Durability.POWER)
    watch = Watch(outbox, monkeypatch)
    watch.may_go.clear()
    reported: list[BaseException | None] = []
    waits: list[object] = []
    shield = asyncio.shield
    monkeypatch.setattr(asyncio, "shield", lambda task: waits.append(task) or shield(task))
    asyncio.get_running_loop().call_later(0.05, watch.may_go.set)
    with anyio.CancelScope() as scope:
        async with over(outbox) as journal:
            journal.put(make_mark(1), reported.append)
            scope.cancel()
        assert reported == [None]
        await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert len(waits) < 5, "a cancelled scope must not make it spin"


async def test_power_mode_leaves_the_loop_alone_while_the_disk_works(
    create: Callable[..., Outbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = create(make_entries(5), durability=Durability.POWER)
    watch = Watch(outbox, monkeypatch)
    watch.may_go.clear()
    journal = Journal(OutboxStore(outbox))
    journal.put(make_mark(1), lambda error: None)
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert watch.batches == []
    watch.may_go.set()
    await journal.aclose()
    assert watch.batches == [[1]]


def test_writer_outlives_a_loop_that_was_closed_under_it(
    create: Callable[..., Outbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = create(make_entries(5), durability=Durability.POWER)
    watch = Watch(outbox, monkeypatch)
    watch.may_go.clear()

    async def forget() -> OutboxStore:
        store = OutboxStore(outbox)
        journal = Journal(store)
        journal.put(make_mark(1), lambda error: None)
        await asyncio.sleep(0.01)
        return store

    store = asyncio.run(forget())
    watch.may_go.set()
    assert store._writer is not None
    store._writer.thread.join(10)
    assert not store._writer.thread.is_alive()
    assert watch.committed == {1}
