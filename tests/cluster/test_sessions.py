"""A session that expires between any two steps: nothing is granted to two, nothing is forgotten."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from bulkmail.cluster.database import STANDS_STILL, connect
from bulkmail.cluster.loading import load
from bulkmail.cluster.reader import read_pages, read_tally
from bulkmail.cluster.session import Session, expire
from bulkmail.cluster.store import ClusterStore
from bulkmail.model.delivery import Job, Release
from bulkmail.model.tally import Status
from bulkmail.testing import ScriptedRelay
from tests.chance import chance
from tests.cluster.making import make_campaign, make_pages
from tests.outbox.making import make_recipient
from tests.store.test_store_contract import claim, ids, mark, settle
from tests.store.test_store_engine import send, taken

pytestmark = pytest.mark.real


class Cluster:
    """Workers of one campaign, each with a session of its own, and the administrator's connection."""

    def __init__(self, url: str, admin: Any, stack: AsyncExitStack) -> None:
        self.url = url
        self.admin = admin
        self._stack = stack

    async def load(self, number: int) -> int:
        pages = make_pages(make_recipient(n) for n in range(1, number + 1))
        return await load(self.admin, self.url, make_campaign(), pages)

    async def join(self) -> tuple[Session, ClusterStore]:
        session = await self._stack.enter_async_context(Session(self.url, lease=60))
        store = await ClusterStore.open(session, "spring")
        self._stack.push_async_callback(store.aclose)
        return session, store

    async def expire(self, session: Session) -> None:
        """The lease ends, and somebody notices; the session does not yet."""
        await self.admin.execute(
            "UPDATE session SET lease_until = clock_timestamp() - interval '1 second' WHERE id = $1", session.id
        )
        await expire(self.admin)

    async def statuses(self, campaign: int) -> dict[Status, int]:
        return dict((await read_tally(self.admin, campaign)).by_status)


@pytest.fixture
async def cluster(database: str) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        admin = await connect(database)
        stack.push_async_callback(admin.close)
        yield Cluster(database, admin, stack)


async def test_marked_of_an_expired_session_are_in_doubt_and_its_late_outcome_is_the_truth(cluster: Cluster) -> None:
    campaign = await cluster.load(3)
    session, store = await cluster.join()
    first, second, _ = await claim(store)
    assert await mark(store, first) == {1}
    await cluster.expire(session)
    assert (await cluster.statuses(campaign))[Status.IN_DOUBT] == 1
    assert await mark(store, second) == set(), "a late mark was granted"
    _, other = await cluster.join()
    assert ids(await claim(other)) == [2, 3], "what is in doubt waits for a person"
    assert await settle(store, first, Status.ACCEPTED)
    assert (await cluster.statuses(campaign))[Status.ACCEPTED] == 1


async def test_lost_session_says_so_and_claims_again(cluster: Cluster) -> None:
    await cluster.load(2)
    session, store = await cluster.join()
    jobs = await claim(store)
    await cluster.expire(session)
    before = session.id
    await session.renew()
    assert (store.epoch, session.id > before) == (1, True)
    assert await mark(store, *jobs) == set(), "claims of the lost session"
    again = await claim(store)
    assert ids(again) == [1, 2]
    assert await mark(store, *again) == {1, 2}


async def test_release_after_the_lease_was_lost_is_taken(cluster: Cluster) -> None:
    campaign = await cluster.load(1)
    session, store = await cluster.join()
    (job,) = await claim(store)
    assert await mark(store, job) == {1}
    await cluster.expire(session)
    await store.write([Release(1)])
    assert await cluster.statuses(campaign) == {Status.PENDING: 1}
    _, other = await cluster.join()
    assert ids(await claim(other)) == [1]


async def test_session_close_to_its_end_is_granted_nothing(cluster: Cluster) -> None:
    await cluster.load(1)
    session, store = await cluster.join()
    (job,) = await claim(store)
    session._ends = session._clock() + 1.0
    assert await mark(store, job) == set()


@pytest.mark.parametrize("seed", range(3))
async def test_no_worker_is_granted_what_another_may_have_sent(cluster: Cluster, seed: int) -> None:
    """Three workers, any of whose sessions expires before any step and learns it some steps later."""
    rng = chance(f"sessions {seed}")
    rows = 25
    campaign = await cluster.load(rows)
    workers = [await cluster.join() for _ in range(3)]
    held: list[dict[int, Job]] = [{} for _ in workers]
    sent: Counter[int] = Counter()
    marked: list[set[int]] = [set() for _ in workers]
    for _ in range(250):
        number = rng.randrange(3)
        session, store = workers[number]
        match rng.randrange(9):
            case 0:
                await cluster.expire(session)
            case 1:
                epoch = session.epoch
                await session.renew()
                if session.epoch != epoch:  # as an engine does: what has not begun is dropped
                    held[number] = {n: job for n, job in held[number].items() if n in marked[number]}
            case 2 | 3:
                found = store.claim(0, limit=3, now=0.0)
                held[number].update({job.delivery.id: job for job in (await found).jobs})
            case 4 | 5 | 6 if unmarked := sorted(held[number].keys() - marked[number]):
                job = held[number][rng.choice(unmarked)]
                if granted := await mark(store, job):
                    sent.update(granted)  # the end goes out this instant
                    marked[number] |= granted
                else:
                    del held[number][job.delivery.id]
            case 7 | 8 if marked[number]:
                chosen = rng.choice(sorted(marked[number]))
                assert await settle(store, held[number][chosen], Status.ACCEPTED), "the truth was refused"
                marked[number].discard(chosen)
                del held[number][chosen]
    assert not [number for number, times in sent.items() if times > 1]
    records = {
        each.id: each async for page in read_pages(cluster.admin, cluster.url, campaign) for each in page.deliveries
    }
    assert len(records) == rows
    under_way = set().union(*marked)
    for number, record in records.items():
        if number not in sent:
            assert record.status == "pending"
        elif number not in under_way:
            assert record.status == "accepted"


async def test_engine_whose_session_expires_again_and_again_sends_nothing_twice(cluster: Cluster) -> None:
    campaign = await cluster.load(400)
    session, store = await cluster.join()

    async def mishaps() -> None:
        for _ in range(4):
            await asyncio.sleep(0.2)
            await cluster.expire(session)
            await session.renew()

    troubles = asyncio.create_task(mishaps())
    async with ScriptedRelay() as relay:
        try:
            await send(store, relay)
        finally:
            troubles.cancel()
    assert set(taken(relay).values()) == {1}
    statuses = await cluster.statuses(campaign)
    assert statuses == {Status.ACCEPTED: 400}
    assert session.epoch > 0


async def test_closed_store_claims_no_shard_that_no_engine_would_send(cluster: Cluster) -> None:
    await cluster.load(1)
    _, first = await cluster.join()
    first.feed()
    await first.aclose()
    assert await first.hold(0) is None
    _, second = await cluster.join()
    second.feed()
    assert await second.hold(0) == 1


async def test_shard_that_is_claimed_again_after_the_lease_was_lost_is_waited_for(cluster: Cluster) -> None:
    await cluster.load(1)
    session, store = await cluster.join()
    store.feed()
    assert await store.hold(0) == 1
    first = asyncio.create_task(store.until_given_back(0, 1))
    await asyncio.sleep(0)
    await cluster.expire(session)
    await session.renew()
    assert await store.hold(0) == 1
    second = asyncio.create_task(store.until_given_back(0, 1))
    await asyncio.wait_for(first, 5)
    await store.aclose()
    await asyncio.wait_for(second, 5)


async def test_worker_that_stands_still_in_a_transaction_holds_up_the_others_for_seconds_only(cluster: Cluster) -> None:
    await cluster.load(1)
    session, store = await cluster.join()
    assert len(ids(await claim(store))) == 1
    standing = await connect(cluster.url, stands_still=STANDS_STILL / 10)
    await standing.execute("BEGIN")
    await standing.execute("SELECT 1 FROM session WHERE id = $1 FOR SHARE", session.id)
    await asyncio.wait_for(cluster.expire(session), 10)
    _, other = await cluster.join()
    assert len(ids(await claim(other))) == 1
    await standing.close()
