"""Every store that there is, filled and ready to be asked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TypeVar

import pytest

from bulkmail.cluster.database import connect
from bulkmail.cluster.loading import load
from bulkmail.cluster.session import Session
from bulkmail.cluster.store import ClusterStore
from bulkmail.cluster.store_schema import create
from bulkmail.engine.contracts import Answer, Store
from bulkmail.model.pace import Durability
from bulkmail.outbox.outbox import Entry, Outbox
from bulkmail.outbox.sending import OutboxStore
from tests.cluster.making import make_campaign, make_pages
from tests.outbox.making import make_recipient
from tests.servers.postgresql import Database, run_postgresql
from tests.store.memory import MemoryStore

T = TypeVar("T")
Open = Callable[[int], Awaitable[Store]]


async def answered(answer: Answer[T]) -> T:
    """The answer, now or later."""
    return await answer if isinstance(answer, asyncio.Future) else answer


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Database]:
    """A PostgreSQL server of the tests' own."""
    with run_postgresql() as server:
        yield server


@pytest.fixture
def database(postgresql: Database) -> str:
    """The URL of an empty database that is a store already."""
    url = postgresql.make("mail")

    async def make() -> None:
        connection = await connect(url)
        await create(connection, url)
        await connection.close()

    with ThreadPoolExecutor(1) as thread:  # a loop may be running here
        thread.submit(lambda: asyncio.run(make())).result()
    return url


@pytest.fixture(params=["process", "power", "memory", pytest.param("postgresql", marks=pytest.mark.real)])
async def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens a store that has so many deliveries, each with an id from 1."""
    url = request.getfixturevalue("database") if request.param == "postgresql" else ""
    async with AsyncExitStack() as stack:

        async def make(number: int) -> Store:
            recipients = [make_recipient(n) for n in range(1, number + 1)]
            if request.param == "memory":
                return MemoryStore(recipients, rng=random.Random(number))
            if request.param == "postgresql":
                connection = await connect(url)
                await load(connection, url, make_campaign(), make_pages(recipients))
                await connection.close()
                session = await stack.enter_async_context(Session(url))
                over = await ClusterStore.open(session, "spring")
                stack.push_async_callback(over.aclose)
                return over
            durability = Durability(request.param)
            outbox = Outbox.create(tmp_path / "run.outbox", campaign=None, durability=durability)
            stack.callback(outbox.close)
            outbox.record(map(Entry, recipients))
            outbox.finish_loading()
            store = OutboxStore(outbox)
            stack.push_async_callback(store.aclose)
            return store

        yield make
