"""What an engine relies on, of every store there is."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random

import pytest
from msgspec.structs import replace

from bulkmail.engine.contracts import Store
from bulkmail.model.delivery import AttemptResult, Delivery, Invalidation, Job, PutBack, Release, Settlement
from bulkmail.model.errors import OutboxError
from bulkmail.model.tally import Status
from bulkmail.model.verdict import judge
from tests.outbox.making import BUSY, OK, UNKNOWN, make_mark
from tests.store.conftest import Open, answered
from tests.store.memory import now

EVENTS = {Status.ACCEPTED: OK, Status.REJECTED: UNKNOWN, Status.DEFERRED: BUSY, Status.PENDING: BUSY}


def settlement(delivery: Delivery, status: Status, *, due_at: float = 0.0) -> Settlement:
    """An outcome as an engine puts it down."""
    event = EVENTS[status]
    attempt = AttemptResult(now(), 0.0, "the relay", event, judge(event))
    tries = delivery.tries + 1
    return Settlement(replace(delivery, status=status, due_at=due_at, tries=tries, attempts=tries), attempt)


async def claim(store: Store, limit: int = 100) -> list[Job]:
    return (await answered(store.claim(0, limit=limit, now=now()))).jobs


async def mark(store: Store, *jobs: Job) -> set[int]:
    granted = await answered(store.write([make_mark(job.delivery) for job in jobs]))
    return {job.delivery.id for job in jobs if job.delivery.id in granted}


async def settle(store: Store, job: Job, status: Status, *, due_at: float = 0.0) -> bool:
    return job.delivery.id in await answered(store.write([settlement(job.delivery, status, due_at=due_at)]))


def ids(jobs: list[Job]) -> list[int]:
    return [job.delivery.id for job in jobs]


async def test_each_is_handed_out_once_in_the_order_of_the_input(make_store: Open) -> None:
    store = await make_store(7)
    assert [ids(await claim(store, 3)) for _ in range(3)] == [[1, 2, 3], [4, 5, 6], [7]]
    nothing = await answered(store.claim(0, limit=3, now=now()))
    assert (nothing.jobs, nothing.more_at) == ([], math.inf)
    assert await answered(store.count_open(0)) == 7


async def test_mark_is_granted_once(make_store: Open) -> None:
    store = await make_store(3)
    first, *_ = await claim(store)
    assert await mark(store, first) == {first.delivery.id}
    with contextlib.suppress(OutboxError):  # a store that nobody else writes to takes it for a bug of ours
        assert await mark(store, first) == set()


async def test_what_is_settled_is_not_handed_out_again(make_store: Open) -> None:
    store = await make_store(3)
    jobs = await claim(store)
    assert await mark(store, *jobs) == {1, 2, 3}
    assert await settle(store, jobs[0], Status.ACCEPTED)
    assert await settle(store, jobs[1], Status.REJECTED)
    assert await claim(store) == []
    tally = await answered(store.tally())
    assert (tally[Status.ACCEPTED], tally[Status.REJECTED], await answered(store.count_open(0))) == (1, 1, 1)


async def test_outcome_of_a_claim_that_was_not_marked_is_taken(make_store: Open) -> None:
    store = await make_store(2)
    jobs = await claim(store)
    assert await settle(store, jobs[0], Status.REJECTED)
    assert (await answered(store.tally()))[Status.REJECTED] == 1


@pytest.mark.slow
async def test_deferred_comes_again_when_it_is_due_and_before_what_was_never_tried(make_store: Open) -> None:
    store = await make_store(3)
    (first,) = await claim(store, 1)
    due_at = now() + 0.3
    assert await settle(store, first, Status.DEFERRED, due_at=due_at)
    (second,) = await claim(store, 1)
    assert second.delivery.id == 2
    await asyncio.sleep(0.4)
    assert ids(await claim(store, 2)) == [1, 3]


async def test_store_says_when_more_is_due(make_store: Open) -> None:
    store = await make_store(1)
    (job,) = await claim(store)
    due_at = now() + 60
    assert await settle(store, job, Status.DEFERRED, due_at=due_at)
    found = await answered(store.claim(0, limit=5, now=now()))
    assert found.jobs == [] and abs(found.more_at - due_at) < 1


async def test_released_may_be_marked_again(make_store: Open) -> None:
    store = await make_store(1)
    (job,) = await claim(store)
    assert await mark(store, job) == {1}
    await answered(store.write([Release(1)]))
    assert await mark(store, job) == {1}
    assert await settle(store, job, Status.ACCEPTED)


async def test_given_back_may_be_claimed_again(make_store: Open) -> None:
    store = await make_store(4)
    await claim(store, 3)
    store.give_back([2, 3])
    assert ids(await claim(store)) == [2, 3, 4]
    await store.aclose()
    assert ids(await claim(store)) == [1, 2, 3, 4]


async def test_put_back_is_pending_again(make_store: Open) -> None:
    store = await make_store(2)
    jobs = await claim(store)
    for job in jobs:
        assert await settle(store, job, Status.REJECTED)
    await answered(store.write([PutBack((1, 2))]))
    assert (await answered(store.tally()))[Status.PENDING] == 2
    await store.aclose()
    assert ids(await claim(store)) == [1, 2]


async def test_invalid_is_out_of_the_way(make_store: Open) -> None:
    store = await make_store(2)
    jobs = await claim(store)
    assert 1 in await answered(store.write([Invalidation(1, jobs[0].delivery.row, "'nmae' is undefined")]))
    assert (await answered(store.tally()))[Status.INVALID] == 1
    await store.aclose()
    assert ids(await claim(store)) == [2]


async def test_what_there_is_besides_is_never_denied(make_store: Open) -> None:
    store = await make_store(3)
    assert store.has_more(0, besides=())
    await claim(store, 2)
    assert store.has_more(0, besides={1, 2})


async def test_calls_follow_each_other_without_an_answer_and_are_answered_in_order(make_store: Open) -> None:
    store = await make_store(20)
    jobs = await claim(store)
    order: list[str] = []

    async def note(name: str, answer: object) -> None:
        await answered(answer)  # type: ignore[arg-type]
        order.append(name)

    waits = []
    for job in jobs:
        for name, entry in (("mark", make_mark(job.delivery)), ("done", settlement(job.delivery, Status.ACCEPTED))):
            waits.append(asyncio.create_task(note(f"{name} {job.delivery.id}", store.write([entry]))))
    await asyncio.gather(*waits)
    assert order == [f"{name} {job.delivery.id}" for job in jobs for name in ("mark", "done")]
    assert (await answered(store.tally()))[Status.ACCEPTED] == 20


@pytest.mark.slow
async def test_nobody_is_lost_or_out_twice_whatever_happens(make_store: Open) -> None:
    rng = random.Random(5)
    store = await make_store(40)
    out: dict[int, Job] = {}
    marked: set[int] = set()
    closed: set[int] = set()
    while len(closed) < 40:
        if not out or rng.random() < 0.4:
            for job in await claim(store, rng.randint(1, 5)):
                assert job.delivery.id not in out.keys() | closed
                out[job.delivery.id] = job
            continue
        number = rng.choice(list(out))
        job = out[number]
        match rng.randrange(5):
            case 0 if number not in marked:
                assert await mark(store, job) == {number}
                marked.add(number)
            case 1 if number in marked:
                await answered(store.write([Release(number)]))
                marked.discard(number)
            case 2 if number not in marked:
                store.give_back([number])
                del out[number]
            case 3:
                assert await settle(store, job, Status.DEFERRED, due_at=now() - 1)
                marked.discard(number)
                del out[number]
            case 4:
                assert await settle(store, job, Status.ACCEPTED)
                marked.discard(number)
                closed.add(number)
                del out[number]
    assert await claim(store) == []
    assert (await answered(store.tally()))[Status.ACCEPTED] == 40
