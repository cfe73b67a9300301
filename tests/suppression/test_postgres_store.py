"""The store in PostgreSQL keeps the contract, and what only a server can do wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bulkmail.cli import main as cli
from bulkmail.cluster.database import LIST_SCHEMA, connect
from bulkmail.cluster.store_schema import create
from bulkmail.model.errors import SuppressionError
from bulkmail.model.feedback_event import FeedbackKind, KnownRun
from bulkmail.model.suppression import SuppressionRules
from bulkmail.suppression.file import SqliteSuppressions
from bulkmail.suppression.ports import Addition, EntryQuery
from bulkmail.suppression.postgres import PostgresSuppressions
from tests.feedback import mails
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
    tables = ", ".join(f"{LIST_SCHEMA}.{name}" for name in ("secret", "run", "event", "sent", "mistake", "reached"))
    more = ", ".join(f"{LIST_SCHEMA}.{name}" for name in ("entry", "change", "intake", "place"))
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


def test_list_moves_into_a_store_and_back(database: str, tmp_path: Path) -> None:
    with SqliteSuppressions(tmp_path / "old.db") as old:
        old.register(KnownRun(0, "run-0"))
        old.record([contract.event(1), contract.event(2, FeedbackKind.UNSUBSCRIBE, to="bob@example.org")])
        old.add([Addition("@example.net", note="asked by phone")])
        old.note_sent("run-1", {"example.org": 7}, at=contract.START)
        old.note_intake("mailbox", is_pushed=True)
        old.copy_to(tmp_path / "archive.db")
        history, secret, runs = old.history("ann@example.org"), old.secret, old.runs()
    with PostgresSuppressions(database) as store:
        assert store.take_over(tmp_path / "archive.db")
        assert not store.take_over(tmp_path / "archive.db")
        assert (store.history("ann@example.org"), store.secret, store.runs()) == (history, secret, runs)
        assert store.record([contract.event(3, to="eve@example.org", run="run-9")]) == 1  # numbers go on
        store.copy_to(tmp_path / "back.db")
    assert (tmp_path / "back.db").stat().st_mode & 0o777 == 0o600
    with SqliteSuppressions(tmp_path / "back.db") as back:
        assert back.history("ann@example.org") == history
        assert back.count(EntryQuery()) == 4 and len(back.runs()) == 3
        assert back.intake_state().pushed_at is not None


def test_lost_connection_is_made_again_and_told(database: str) -> None:
    with PostgresSuppressions(database) as store, PostgresSuppressions(database) as other:
        before = store.version()
        with other._tables.reading() as connection:
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            connection.execute(f"{others} AND application_name = 'bulkmail'")
        other.add([Addition("ann@example.org")])
        time.sleep(0.2)
        assert store.version() != before
        assert store.changes(0).keys == {"ann@example.org"}


def test_several_writers_number_changes_in_the_order_in_which_they_are_seen(database: str) -> None:
    seen: set[str] = set()

    def write(number: int) -> None:
        with PostgresSuppressions(database) as store:
            for each in range(10):
                store.add([Addition(f"p{number}-{each}@example.org")])

    with PostgresSuppressions(database) as reader, ThreadPoolExecutor(3) as threads:
        writing = [threads.submit(write, number) for number in range(3)]
        after, is_done = 0, False
        while not is_done:
            is_done = all(each.done() for each in writing)
            found = reader.changes(after)
            seen |= found.keys
            after = found.latest
    assert len(seen) == 30


def test_store_that_is_none_says_what_to_type(postgresql: Database) -> None:
    url = postgresql.make("empty")
    with pytest.raises(SuppressionError, match="not a store yet") as caught:
        PostgresSuppressions(url)
    assert "bulkmail store create" in caught.value.hint


def test_commands_use_the_list_of_a_store(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def say(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(cli, [*arguments, "--store", database])
        assert done.exit_code == code, done.output
        return done.output

    assert "1 address added" in say("suppress", "add", "ann@example.org")
    assert "ann@example.org" in say("suppress", "list")
    assert "gets no mail" in say("suppress", "show", "ann@example.org")
    (tmp_path / "mails.mbox").write_bytes(b"From x\n" + mails.dsn())
    assert "1 event new" in say("bounces", "--mbox", str(tmp_path / "mails.mbox"))
    assert "550" in say("bounces", "--unmatched")
    assert "give one of them" in say("suppress", "list", "--file", str(tmp_path / "x.db"), code=2)
    assert "blanked" in say("erase", "ann@example.org", "--yes", str(tmp_path))
    assert "ann@example.org" not in say("suppress", "list")
    with PostgresSuppressions(database) as store:
        assert store.reason(store.digest("ann@example.org"), contract.APPLIED, time.time())
    assert not (tmp_path / "suppressions.db").exists()
