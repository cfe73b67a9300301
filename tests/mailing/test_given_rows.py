"""Rows as programs have them: cursors, generators and asynchronous iterables, read where the program is."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sqlite3
import threading

import pytest
import sqlalchemy

import bulkmail
from bulkmail.mailing.rows import SLICE


@pytest.fixture
def campaign():
    return bulkmail.compose(from_="Shop <shop@shop.test>", subject="Hello", text="Dear {{ name }},\n")


def rows(number):
    return [{"email": f"p{n}@example.org", "name": f"P{n}"} for n in range(number)]


class QuerySet:
    """As Django's: its rows come by a connection that belongs to a thread, and `for` refuses where a loop runs."""

    def __init__(self, number):
        self._number = number
        self._thread = threading.get_ident()

    def __iter__(self):
        for row in rows(self._number):
            assert threading.get_ident() == self._thread
            with pytest.raises(RuntimeError, match="no running event loop"):
                asyncio.get_running_loop()
            yield row

    async def __aiter__(self):
        task = asyncio.current_task()
        for row in rows(self._number):
            await asyncio.sleep(0)
            assert asyncio.current_task() is task
            yield row


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, SLICE - 1, SLICE, SLICE + 1, 2 * SLICE, 2 * SLICE + 7])
async def test_generator_is_read_in_the_thread_of_its_program(campaign, number):
    here = threading.get_ident()

    def people():
        for row in rows(number):
            assert threading.get_ident() == here
            yield row

    report = await bulkmail.send(campaign, people(), relay="null:")
    assert [row.address for row in report.rows()] == [row["email"] for row in rows(number)]


async def test_row_that_is_used_again_by_its_iterator_is_taken_as_it_was(campaign):
    def people():
        row = {}
        for each in rows(3):
            row.update(each)
            yield row

    report = await bulkmail.send(campaign, people(), relay="null:")
    assert [row.address for row in report.rows()] == [row["email"] for row in rows(3)]


@pytest.mark.slow
@pytest.mark.parametrize("factory", [None, sqlite3.Row])
async def test_sqlite3_cursor_is_a_list(campaign, factory):
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.row_factory = factory
        connection.execute("CREATE TABLE people (email, name)")
        people = [(row["email"], row["name"]) for row in rows(SLICE + 20)]
        connection.executemany("INSERT INTO people VALUES (?, ?)", people)
        report = await bulkmail.send(campaign, connection.execute("SELECT * FROM people"), relay="null:")
    assert report.accepted == SLICE + 20


async def test_sqlalchemy_result_is_a_list(campaign):
    engine = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.pool.StaticPool)
    with engine.connect() as connection:
        query = sqlalchemy.text(
            "SELECT 'ann@example.org' AS email, 'Ann' AS name UNION SELECT 'bob@example.org', 'Bob'"
        )
        report = await bulkmail.send(campaign, connection.execute(query), relay="null:")
    engine.dispose()
    assert report.accepted == 2


@pytest.mark.slow
async def test_asynchronous_rows_are_read_in_the_task_of_their_program(campaign):
    report = await bulkmail.send(campaign, QuerySet(SLICE + 3), relay="null:")
    assert report.accepted == SLICE + 3


async def test_objects_with_fields_are_rows(campaign):
    @dataclasses.dataclass
    class Person:
        email: str
        name: str

    async def people():
        for row in rows(3):
            yield Person(**row)

    report = await bulkmail.send(campaign, people(), relay="null:")
    assert report.accepted == 3


async def test_asynchronous_generator_is_closed_when_its_rows_are_refused(campaign):
    closed = []

    async def people():
        try:
            while True:
                yield {"nobody": "here"}
        finally:
            closed.append(asyncio.current_task())

    with pytest.raises(bulkmail.ListError, match="no column is named email"):
        await bulkmail.send(campaign, people(), relay="null:")
    assert closed == [asyncio.current_task()]


@pytest.mark.slow
async def test_loop_has_its_turn_between_slices(campaign):
    ticks = 0
    seen = []

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    def people():
        for number, row in enumerate(rows(4 * SLICE)):
            if number % SLICE == 0:
                seen.append(ticks)
            yield row

    ticking = asyncio.create_task(tick())
    await bulkmail.send(campaign, people(), relay="null:")
    ticking.cancel()
    assert len(seen) == 4
    assert len(set(seen)) == 4


@pytest.mark.slow
async def test_what_the_rows_raise_comes_out_and_nothing_is_sent(campaign, tmp_path):
    def people():
        yield from rows(SLICE + 1)
        raise LookupError("the connection was lost")

    outbox = tmp_path / "run.outbox"
    with pytest.raises(LookupError, match="connection was lost"):
        await bulkmail.send(campaign, people(), relay="null:", outbox=outbox)
    report = await bulkmail.send(campaign, rows(2), relay="null:", outbox=outbox)
    assert report.accepted == 2


@pytest.mark.slow
def test_send_sync_reads_rows_where_no_loop_runs(campaign):
    report = bulkmail.send_sync(campaign, QuerySet(2 * SLICE + 1), relay="null:")
    assert report.accepted == 2 * SLICE + 1


def test_what_the_rows_raise_comes_out_of_send_sync(campaign):
    def people():
        yield from rows(SLICE + 1)
        raise LookupError("the connection was lost")

    with pytest.raises(LookupError, match="connection was lost"):
        bulkmail.send_sync(campaign, people(), relay="null:")


def test_send_sync_takes_asynchronous_rows(campaign):
    async def people():
        for row in rows(3):
            yield row

    assert bulkmail.send_sync(campaign, people(), relay="null:").accepted == 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"email": "ann@example.org"}, "is one row, expected a list of rows"),
        (b"people.csv", "is bytes, expected the name of a file, or rows"),
        (7, "is a number, expected the name of a file, or rows"),
    ],
    ids=["one row", "bytes", "number"],
)
async def test_what_is_no_list_of_rows_is_refused(campaign, given, words):
    with pytest.raises(bulkmail.ListError, match=words):
        await bulkmail.send(campaign, given, relay="null:")


async def test_messages_are_read_in_the_thread_of_their_program():
    from email.message import EmailMessage

    here = threading.get_ident()

    def messages():
        for row in rows(3):
            assert threading.get_ident() == here
            message = EmailMessage()
            message["From"], message["To"], message["Subject"] = "me@example.org", row["email"], "Hi"
            message.set_content("Hi\n")
            yield message

    async def later():
        for message in messages():
            yield message

    assert (await bulkmail.Mailer("null:").send_messages(messages())).accepted == 3
    assert (await bulkmail.Mailer("null:").send_messages(later())).accepted == 3
