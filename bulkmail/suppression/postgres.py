"""The suppression list in the tables of a store in PostgreSQL, for a program that waits for each answer."""

# ruff: noqa: S608 - statements are put together of our own words

from __future__ import annotations

import asyncio
import re
import secrets
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bulkmail.cluster import store_schema
from bulkmail.cluster.database import LIST_SCHEMA, StoreError, connect, saying
from bulkmail.model.errors import ConfigError, SuppressionError
from bulkmail.model.lazy import lazy_pattern
from bulkmail.model.suppression import SuppressionRules
from bulkmail.suppression.copying import copy_tables
from bulkmail.suppression.file import KEY_BYTES, SuppressionFile
from bulkmail.suppression.stored_list import Suppressions
from bulkmail.suppression.tables import ListConnection, Values

if TYPE_CHECKING:
    from asyncpg import Connection

T = TypeVar("T")

_LOCK = 0x626D736C  # of the advisory lock that writers take: they come one after the other, as with a file
_CHANNEL = "bulkmail_suppressions"
_SILENCE = 5.0  # seconds after which a connection is asked whether it still lives: without it no notice would come
_ASKING = 10.0  # seconds that this may take
_VALUE = lazy_pattern(r"\?|(?<![:\w]):([a-z]\w*)")
_ANSWERS = re.compile(r"\s*(?:SELECT|FETCH|WITH)\b|.*\bRETURNING\b", re.IGNORECASE | re.DOTALL)


class PostgresSuppressions(Suppressions):
    """The list in the store at `url`, whose tables `bulkmail store` made."""

    def __init__(
        self,
        url: str,
        *,
        rules: SuppressionRules = SuppressionRules(),  # noqa: B008 - frozen
        provider_of: Callable[[str], str] = str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        tables = PostgresTables(url)
        try:
            super().__init__(tables, rules=rules, provider_of=provider_of, clock=clock)
        except BaseException:
            tables.close()
            raise

    def take_over(self, archive: Path) -> bool:
        """Makes an empty list the one in `archive`, with its secret; False for a list that has been used."""
        with closing(SuppressionFile(archive)) as file, file.snapshot() as theirs, self._tables.writing() as ours:
            for table in ("entry", "event", "run"):
                if ours.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is not None:
                    return False
            ours.execute("UPDATE secret SET key = ?", theirs.execute("SELECT key FROM secret").fetchone())
            copy_tables(theirs, ours)
            for table, column in (("run", "number"), ("event", "id"), ("change", "seq")):
                next_number = f"coalesce((SELECT max({column}) FROM {table}), 0) + 1"
                ours.execute(f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), {next_number}, false)")
        self._read_secret()
        return True


class PostgresTables:
    """A connection to the list's tables in the store at `url`, that one thread uses at a time: a `ListDatabase`.

    What other connections write is told by NOTIFY.  A connection that is lost is made again at the next use.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.RLock()
        self._loop = asyncio.new_event_loop()  # runs only while a thread waits for an answer
        self._link: _Link | None = None
        self._heard = 0
        self._asked_at = 0.0
        try:
            with self.writing() as connection:
                if connection.execute("SELECT 1 FROM secret").fetchone() is None:
                    connection.execute("INSERT INTO secret VALUES (1, ?)", (secrets.token_bytes(KEY_BYTES),))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the connection.  May be called again."""
        with self._lock:
            if self._loop.is_closed():
                return
            if self._link is not None:
                with suppress(SuppressionError):
                    self._wait(self._link.connection.close(timeout=2))
                self._link = None
            self._loop.close()

    @contextmanager
    def reading(self) -> Iterator[ListConnection]:
        """Alone with the connection, without a transaction."""
        with self._lock:
            yield self._living()

    @contextmanager
    def snapshot(self) -> Iterator[ListConnection]:
        """The same in a transaction, in which each statement sees the same tables."""
        with self.reading() as connection, _transaction(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"):
            yield connection

    @contextmanager
    def writing(self) -> Iterator[ListConnection]:
        """Alone with the tables, in one transaction: committed at the end, rolled back by any exception."""
        with self.reading() as connection, _transaction(connection, "BEGIN"):
            connection.execute("SELECT pg_advisory_xact_lock(?)", (_LOCK,))
            yield connection
            connection.execute("SELECT pg_notify(?, '')", (_CHANNEL,))

    def version(self) -> int:
        """Another number whenever another connection wrote, and whenever that could not be seen for a while."""
        with self._lock:
            link = self._living()
            if time.monotonic() - self._asked_at > _SILENCE:
                try:
                    self._wait(link.connection.fetchval("SELECT 1", timeout=_ASKING))
                except SuppressionError:
                    self._drop()
                self._asked_at = time.monotonic()
            else:
                self._wait(_let_notices_in())
            self._living()
            return self._heard

    def shrink(self) -> None:
        """Rewrites the tables, so that nothing is left of what was deleted or blanked."""
        with self.reading() as connection:
            for table in ("entry", "event", "change"):
                connection.execute(f"VACUUM FULL {table}")

    def copy_to(self, target: Path) -> None:
        """A copy of all tables, the secret included, in a new file for its owner's eyes only."""
        if target.exists():
            raise SuppressionError(f"{target} is there already", hint="name a new file")
        with self.snapshot() as ours:
            (key,) = ours.execute("SELECT key FROM secret").fetchone()
            with closing(SuppressionFile(target, key=key)) as file, file.writing() as theirs:
                copy_tables(ours, theirs)

    def _living(self) -> _Link:
        if self._loop.is_closed():
            raise SuppressionError("the suppression list is closed")
        if self._link is not None and self._link.connection.is_closed():
            self._drop()
        if self._link is None:
            self._link = _Link(self._wait(self._open()), self._wait)
            self._heard += 1
            self._asked_at = time.monotonic()
        return self._link

    def _drop(self) -> None:
        if self._link is not None:
            self._link.connection.terminate()
            self._link = None

    async def _open(self) -> Connection:
        connection = await connect(self._url, schema=LIST_SCHEMA)
        try:
            await store_schema.require(connection, self._url)
            with saying(self._url):
                await connection.add_listener(_CHANNEL, self._hear)
        except BaseException:
            connection.terminate()
            raise
        return connection

    def _hear(self, connection: Connection, pid: int, channel: str, payload: object) -> None:
        if pid != connection.get_server_pid():
            self._heard += 1

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives.  A thread in which another loop runs waits for a thread that waits."""
        try:
            if _is_in_loop():
                with ThreadPoolExecutor(1) as thread:
                    return thread.submit(self._loop.run_until_complete, self._saying(work)).result()
            return self._loop.run_until_complete(self._saying(work))
        except (StoreError, ConfigError) as error:
            raise SuppressionError(f"the suppression list in {error}", hint=error.hint) from error
        except BaseException:  # what the server does with the statement is not known
            self._drop()
            raise

    async def _saying(self, work: Coroutine[Any, Any, T]) -> T:
        with saying(self._url):
            return await work


async def _let_notices_in() -> None:
    for _ in range(3):  # what has come is read in one turn of the loop, the end of a connection in the next
        await asyncio.sleep(0)


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@contextmanager
def _transaction(connection: ListConnection, begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(SuppressionError):
            connection.execute("ROLLBACK")
        raise


class _Answer:
    """The rows of one answer, or how many rows a statement changed."""

    def __init__(self, rows: Sequence[Any], rowcount: int) -> None:
        self.rowcount = rowcount
        self._rows = iter(rows)

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        return list(self._rows)

    def __iter__(self) -> Iterator[Any]:
        return self._rows


class _Link:
    """An open connection as a `ListConnection`: statements are written as for SQLite."""

    def __init__(self, connection: Connection, wait: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self.connection = connection
        self._wait = wait

    @property
    def in_transaction(self) -> bool:
        return bool(self.connection.is_in_transaction())

    def execute(self, statement: str, values: Values = (), /) -> _Answer:
        text, names = _numbered(statement)
        ordered = [_plain(values[name]) for name in names] if isinstance(values, Mapping) else list(map(_plain, values))
        if _ANSWERS.match(statement):
            rows = self._wait(self.connection.fetch(text, *ordered, timeout=None))
            return _Answer(rows, len(rows))
        status: str = self._wait(self.connection.execute(text, *ordered, timeout=None))
        number = status.rpartition(" ")[2]
        return _Answer((), int(number) if number.isdecimal() else -1)

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> None:
        values = [tuple(map(_plain, row)) for row in rows]
        if values:
            self._wait(self.connection.executemany(_numbered(statement)[0], values, timeout=None))


@lru_cache(200)
def _numbered(statement: str) -> tuple[str, tuple[str, ...]]:
    """The statement with `$1` for the first value, and the names of the values in that order."""
    names: list[str] = []
    anonymous = 0

    def place(found: re.Match[str]) -> str:
        nonlocal anonymous
        if found[0] == "?":
            anonymous += 1
            return f"${anonymous}"
        if found[1] not in names:
            names.append(found[1])
        return f"${names.index(found[1]) + 1}"

    return _VALUE.sub(place, statement), tuple(names)


def _plain(value: Any) -> Any:
    """What PostgreSQL can keep: no text there holds a zero byte."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value
