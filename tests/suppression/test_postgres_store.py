"""The store in PostgreSQL keeps the contract, and what only a server can do wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from bulkmail.cluster.database import connect
from bulkmail.cluster.schema import create
from bulkmail.model.suppression import SuppressionRules
from bulkmail.suppression.postgres import SCHEMA, PostgresSuppressions
from tests.servers.postgresql import Database
from tests.store.conftest import postgresql
from tests.suppression import contract

__all__ = ["postgresql"]
USUAL = SuppressionRules()


@pytest.fixture(scope="module")
def made(postgresql: Database) -> str:
    """The URL of a store for all tests of this module: to make one for each would take minutes."""
    url = postgresql.make("suppressions")
    _in_store(url, lambda connection: create(connection, url))
    return url


@pytest.fixture
def database(made: str) -> str:
    """The same, with an empty list in it."""
    tables = ", ".join(f"{SCHEMA}.{name}" for name in ("secret", "run", "event", "sent", "mistake", "reached"))
    more = ", ".join(f"{SCHEMA}.{name}" for name in ("entry", "change", "intake", "place"))
    _in_store(made, lambda connection: connection.execute(f"TRUNCATE {tables}, {more} RESTART IDENTITY"))
    return made


def _in_store(url: str, work: Callable[[Any], Awaitable[object]]) -> None:
    async def run() -> None:
        connection = await connect(url)
        try:
            await work(connection)
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as thread:  # a loop may be running here
        thread.submit(lambda: asyncio.run(run())).result()


@pytest.fixture
def open_store(database: str) -> Iterator[contract.OpenStore]:
    with ExitStack() as stack:

        def open_again(
            *, rules: SuppressionRules = USUAL, clock: Callable[[], float] = time.time
        ) -> PostgresSuppressions:
            return stack.enter_context(PostgresSuppressions(database, rules=rules, clock=clock))

        yield open_again


class TestContract(contract.Contract):
    """The suite of all stores."""
