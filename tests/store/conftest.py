"""Every store that there is, filled and ready to be asked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TypeVar

import pytest

from bulkmail.engine.contracts import Answer, Store
from bulkmail.model.pace import Durability
from bulkmail.outbox.outbox import Entry, Outbox
from bulkmail.outbox.sending import OutboxStore
from tests.outbox.making import make_recipient
from tests.store.memory import MemoryStore

T = TypeVar("T")
Open = Callable[[int], Awaitable[Store]]


async def answered(answer: Answer[T]) -> T:
    """The answer, now or later."""
    return await answer if isinstance(answer, asyncio.Future) else answer


@pytest.fixture(params=["process", "power", "memory"])
async def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens a store that has so many deliveries, each with an id from 1."""
    async with AsyncExitStack() as stack:

        async def make(number: int) -> Store:
            recipients = [make_recipient(n) for n in range(1, number + 1)]
            if request.param == "memory":
                return MemoryStore(recipients, rng=random.Random(number))
            durability = Durability(request.param)
            outbox = Outbox.create(tmp_path / "run.outbox", campaign=None, settings={}, durability=durability)
            stack.callback(outbox.close)
            outbox.record(map(Entry, recipients))
            outbox.finish_loading()
            store = OutboxStore(outbox)
            stack.push_async_callback(store.aclose)
            return store

        yield make
