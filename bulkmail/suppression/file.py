"""The suppression list in a file of SQLite: opened, checked, locked for a transaction, its errors in our words."""

from __future__ import annotations

import os
import secrets
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.resources import files
from pathlib import Path

from bulkmail.model.errors import OutboxError, SuppressionError
from bulkmail.model.suppression import SuppressionRules
from bulkmail.outbox.lock import refuse_network
from bulkmail.suppression.stored_list import Suppressions
from bulkmail.suppression.tables import ListConnection

VARIABLE = "BULKMAIL_SUPPRESSIONS"

APPLICATION_ID = 0x626D736C  # "bmsl"
SCHEMA_VERSION = 1
KEY_BYTES = 32
_BUSY_SECONDS = 15.0  # an import of a million entries holds the file for some seconds
_CACHE_KB = 16_384


class SuppressionFile:
    """A connection to the file at `path`, made if need be, that one thread uses at a time.

    Every use is inside `with file.reading()` or `with file.writing()`.  Raises `SuppressionError`.
    """

    def __init__(self, path: Path, *, key: bytes = b"") -> None:
        """`key` is the secret of a new file, by default a random one."""
        self.path = path
        self._lock = threading.RLock()
        self._connection = _connect(path)
        try:
            with self.reading() as connection:
                connection.execute("PRAGMA trusted_schema = OFF")
                connection.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
                # Emptied instead of removed, the journal costs no write to the folder.
                connection.execute("PRAGMA journal_mode = TRUNCATE").fetchone()
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA secure_delete = ON")  # what is erased leaves no trace in free pages
            with self.writing() as connection:
                _lay_down(connection, path, key)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Ends the connection.  May be called again."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def reading(self) -> Iterator[ListConnection]:
        """Alone with the connection, without a transaction."""
        with self._lock:
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise explained(error, self.path) from error

    @contextmanager
    def snapshot(self) -> Iterator[ListConnection]:
        """The same in a transaction, in which each statement sees the same list."""
        with self.reading() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("COMMIT")

    def version(self) -> int:
        """Another number whenever another connection wrote."""
        with self.reading() as connection:
            return int(connection.execute("PRAGMA data_version").fetchone()[0])

    def shrink(self) -> None:
        """Rewrites the file without its free pages."""
        with self.reading() as connection:
            connection.execute("VACUUM")

    def copy_to(self, target: Path) -> None:
        """A copy of the whole list, its secret included, in a new file for its owner's eyes only."""
        try:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except OSError as error:
            raise SuppressionError(f"{target} cannot be written: {error.strerror}", hint="name a new file") from error
        with self.reading() as connection:
            connection.execute("VACUUM INTO ?", (str(target),))

    @contextmanager
    def writing(self) -> Iterator[ListConnection]:
        """Alone with the file, in one transaction: committed at the end, rolled back by any exception."""
        with self.reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise


class SqliteSuppressions(Suppressions):
    """The list in the file at `path`, made if need be; `key` is the secret of a new one, by default a random one."""

    def __init__(
        self,
        path: Path,
        *,
        rules: SuppressionRules = SuppressionRules(),  # noqa: B008 - frozen
        provider_of: Callable[[str], str] = str,
        clock: Callable[[], float] = time.time,
        key: bytes = b"",
    ) -> None:
        self.path = path
        super().__init__(SuppressionFile(path, key=key), rules=rules, provider_of=provider_of, clock=clock)


def _connect(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        refuse_network(path.parent.resolve())
        number = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        try:
            mode = os.fstat(number).st_mode
        finally:
            os.close(number)
    except OSError as error:
        raise SuppressionError(
            f"the suppression list {path} cannot be opened: {error.strerror}", hint=_ELSEWHERE
        ) from error
    except OutboxError:
        raise SuppressionError(
            f"the suppression list {path} is on a network file system, where it could be damaged", hint=_ELSEWHERE
        ) from None
    if os.name == "posix" and mode & (stat.S_IRWXO & ~stat.S_IXOTH):
        raise SuppressionError(
            f"the suppression list {path} may be read by every user of this computer, expected its owner or a group",
            hint=f"type: chmod o-rwx {path}",
        )
    try:
        return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS)
    except sqlite3.Error as error:
        raise explained(error, path) from error


def _lay_down(connection: ListConnection, path: Path, key: bytes) -> None:
    if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        for statement in _statements():
            connection.execute(statement)
        connection.execute("INSERT INTO secret VALUES (1, ?)", (key or secrets.token_bytes(KEY_BYTES),))
        return
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise SuppressionError(
            f"{path} is not a suppression list, but a database of another program",
            hint=f"name another file in [suppressions] file, or with {VARIABLE}",
        )
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != SCHEMA_VERSION:
        raise SuppressionError(
            f"the suppression list {path} was written by another version of bulkmail: its format is {version}, this one"
            f" reads {SCHEMA_VERSION}",
            hint="use the version that wrote it, or a newer one",
        )


@cache
def _statements() -> tuple[str, ...]:
    script = files("bulkmail.suppression").joinpath("schema.sql").read_text("utf-8")
    found, start = [], 0
    for position, character in enumerate(script):
        if character == ";" and sqlite3.complete_statement(script[start : position + 1]):
            found.append(script[start : position + 1].strip())
            start = position + 1
    return tuple(found)


_ELSEWHERE = f"name a file on a local disk that you may write to: [suppressions] file, or {VARIABLE}"
_EXPLANATIONS = (
    (("SQLITE_NOTADB",), "is not a suppression list", "name another file, or move this one away"),
    (("SQLITE_CORRUPT",), "is damaged", "restore it from a backup, or import an export of it into a new file"),
    (("SQLITE_BUSY", "SQLITE_LOCKED"), "is in use by another program", "close what reads it, then try again"),
    (("SQLITE_FULL",), "cannot grow: the disk is full", "free some room, then try again"),
)


def explained(error: sqlite3.Error, path: Path) -> SuppressionError:
    """The error in our words, with SQLite's behind them."""
    code = getattr(error, "sqlite_errorname", "") or ""
    for prefixes, what, hint in _EXPLANATIONS:
        if code.startswith(prefixes):
            return SuppressionError(f"the suppression list {path} {what} ({error})", hint=hint)
    return SuppressionError(f"the suppression list {path} cannot be used ({error})", hint=_ELSEWHERE)
