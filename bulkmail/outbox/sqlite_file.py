"""The one SQLite file under an outbox: made, opened, checked, locked, and its errors explained."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Annotated

import msgspec

from bulkmail.model.errors import OutboxError
from bulkmail.model.pace import Durability
from bulkmail.text import printable

# -- What tables an outbox has, compared with a file that may be damaged or not ours.


_HINT = "keep a copy of it; sqlite3 FILE .recover may save what is left"


def check_shape(connection: sqlite3.Connection, name: str) -> None:
    """Raises `OutboxError` unless the file has the tables of an outbox, and nothing that runs by itself.

    A view in place of a table, a trigger or a computed column may never come to an end.
    """
    for kind, entry, sql in connection.execute("SELECT type, name, sql FROM sqlite_schema"):
        if kind not in ("table", "index") or str(sql or "").upper().startswith("CREATE VIRTUAL"):
            raise OutboxError(
                f"{name} is not an outbox as bulkmail makes them: it has a {printable(str(kind))} "
                f"{printable(str(entry), 80)!r}",
                hint="look for the file that bulkmail send made: runs/NAME.outbox",
            )
    for table, columns in _expected().items():
        found = connection.execute(f"PRAGMA table_xinfo({table})").fetchall()
        missing = columns - {column[1] for column in found}
        if missing or any(column[6] for column in found):
            what = f"column {min(missing)!r}" if missing and found else f"table {table!r}"
            raise damaged(name, f"its {what} is {'missing' if missing else 'not as bulkmail makes it'}")


def check_values(connection: sqlite3.Connection, name: str) -> None:
    """Raises `OutboxError` where a delivery or a try has a value that sending could not go on with.  Reads them all."""
    for table, wrong in _WRONG_VALUES.items():
        found = connection.execute(f"SELECT id FROM {table} WHERE {wrong} LIMIT 1").fetchone()  # noqa: S608 (ours)
        if found:
            raise damaged(name, f"a value of {table} {found[0]} is not as bulkmail writes it")


_WRONG_VALUES = {
    "delivery": "typeof(forward_path) <> 'text' OR typeof(status) <> 'text' OR typeof(due_at) IN ('text', 'blob')"
    " OR typeof(ending_at) IN ('text', 'blob') OR typeof(first_at) IN ('text', 'blob')"
    " OR typeof(attempts) <> 'integer' OR typeof(tries) <> 'integer' OR typeof(row) <> 'integer'",
    "attempt": "typeof(at) <> 'real' OR typeof(took) <> 'real' OR typeof(code) NOT IN ('integer', 'null')"
    " OR typeof(text) <> 'text' OR typeof(relay) <> 'text' OR typeof(outcome) <> 'text' OR typeof(reason) <> 'text'",
}


Moment = Annotated[float, msgspec.Meta(gt=-1e10, lt=2.5e11)]
"""Wall-clock seconds that a calendar of four-digit years has."""

_DAMAGE = (
    msgspec.MsgspecError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)


@contextmanager
def noticing_damage(name: str, what: str = "a value in it") -> Iterator[None]:
    """Turns what decoding a value of a damaged file raises into an `OutboxError`; `what` names the value."""
    try:
        yield
    except _DAMAGE as error:
        raise damaged(name, f"{what} cannot be read: {printable(str(error), 200)}") from error


def damaged(name: str, what: str) -> OutboxError:
    """The error of an outbox that cannot be trusted."""
    return OutboxError(f"{name} is damaged: {what}", hint=_HINT)


@cache
def _expected() -> dict[str, frozenset[str]]:
    memory = sqlite3.connect(":memory:")
    try:
        memory.executescript(files("bulkmail.outbox").joinpath("schema.sql").read_text("utf-8"))
        tables = [name for (name,) in memory.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()]
        return {
            table: frozenset(column[1] for column in memory.execute(f"PRAGMA table_xinfo({table})")) for table in tables
        }
    finally:
        memory.close()


# -- The one SQLite file under an outbox: made, opened, checked, locked, and its errors explained.


APPLICATION_ID = 0x626D6F62  # "bmob", at byte 68 of the file; file(1) and we tell our files from others' by it
SCHEMA_VERSION = 3
_CACHE_KB = 4096
# The loop waits while a checkpoint copies pages and syncs twice.  Few, larger ones cost less in all, because a page
# that was written in many commits is copied once; 16 MB is what a laptop's disk takes in a tenth of a second.
_CHECKPOINT_PAGES = 4000
_BUSY_SECONDS = 5.0  # a reader of a finished file keeps us from going back to WAL


class OutboxFile:
    """A connection, the lock that lets one thread use it at a time, and the name that errors call it by.

    Every use is inside `with store.reading()` or `with store.writing()`.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path | None) -> None:
        self.connection = connection
        self.path = path
        self.name = str(path) if path else "the outbox in memory"
        self.lock = threading.RLock()
        self.is_open = True

    def reading(self) -> _Access:
        """Alone with the connection, without a transaction."""
        return _Access(self, writes=False)

    def writing(self) -> _Access:
        """Alone with the connection, in one transaction: committed at the end, rolled back by any exception."""
        return _Access(self, writes=True)

    def settle_down(self) -> None:
        """Copies everything into the one plain file, so that no -wal or -shm stays beside it.

        If another process is reading, or the disk has no room for the copy, they stay; no data is lost.
        """
        if self.path is None:
            return
        with self.reading() as connection:
            connection.execute("PRAGMA busy_timeout = 250")
            try:
                connection.execute("PRAGMA journal_mode = DELETE").fetchone()
            except sqlite3.OperationalError as error:
                if _code(error) not in ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL"):
                    raise

    def checkpoint(self) -> None:
        """Copies what the -wal holds into the file, with the disk's word for it, and empties the -wal."""
        with self.reading() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def close(self) -> None:
        """Ends the connection.  May be called again."""
        with self.lock:
            self.is_open = False
            self.connection.close()


class _Access:
    """One stay with the connection.  A class, because a generator would cost a microsecond more per stay."""

    __slots__ = ("_store", "_writes")

    def __init__(self, store: OutboxFile, *, writes: bool) -> None:
        self._store = store
        self._writes = writes

    def __enter__(self) -> sqlite3.Connection:
        store = self._store
        store.lock.acquire()
        try:
            if not store.is_open:
                raise OutboxError(f"{store.name} was closed")
            if self._writes:
                store.connection.execute("BEGIN IMMEDIATE")
        except BaseException as error:
            store.lock.release()
            if isinstance(error, sqlite3.Error):
                raise explained(error, store.name) from error
            raise
        return store.connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        store = self._store
        is_ours = False
        try:
            if self._writes and error is None:
                try:
                    store.connection.execute("COMMIT")
                except (sqlite3.Error, MemoryError) as failure:
                    error, is_ours = failure, True
            if error is not None:
                if self._writes and store.connection.in_transaction:
                    # SQLite may have rolled back by itself; the first error is the one to tell.
                    with suppress(sqlite3.Error):
                        store.connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise explained(error, store.name) from error
                if isinstance(error, UnicodeDecodeError):  # of a name in the schema
                    raise damaged(store.name, "a text in it is not UTF-8") from error
                if is_ours:
                    raise error
        finally:
            store.lock.release()


def explained(error: sqlite3.Error, name: str) -> OutboxError:
    """The error in our words, with SQLite's behind them and what to do about it."""
    code = _code(error)
    for prefix, what, hint in _EXPLANATIONS:
        if code.startswith(prefix):
            return OutboxError(f"{name} {what} ({error})", hint=hint)
    return OutboxError(f"{name} cannot be used ({error})")


_EXPLANATIONS = (
    ("SQLITE_FULL", "cannot grow: the disk is full", "free some room; what was recorded is safe: bulkmail resume"),
    ("SQLITE_IOERR", "cannot be read or written", "look at the disk; what was recorded is safe: bulkmail resume"),
    ("SQLITE_NOTADB", "is not an outbox", "look for the file that bulkmail send made: runs/NAME.outbox"),
    ("SQLITE_CORRUPT", "is damaged", "keep a copy of it; sqlite3 FILE .recover may save what is left"),
    (
        "SQLITE_READONLY_ROLLBACK",
        "was left half written by a program that was killed, and has to be put in order first",
        "run this as a user with write permission for the file and its folder",
    ),
    ("SQLITE_READONLY", "cannot be written", "look at the rights of the file and of its folder"),
    ("SQLITE_PERM", "cannot be opened", "look at the rights of the file and of its folder"),
    ("SQLITE_CANTOPEN", "cannot be opened", "look at the rights of the file and of its folder"),
    ("SQLITE_BUSY", "is in use by another program", "close whatever reads it, then try again"),
    ("SQLITE_LOCKED", "is in use by another program", "close whatever reads it, then try again"),
)


def _code(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", "") or ""


@cache
def statements(resource: str) -> tuple[str, ...]:
    """The SQL statements of a file of this package, in order."""
    script = files("bulkmail.outbox").joinpath(resource).read_text("utf-8")
    found, start = [], 0
    for position, character in enumerate(script):
        if character == ";" and sqlite3.complete_statement(script[start : position + 1]):
            found.append(script[start : position + 1].strip())
            start = position + 1
    return tuple(found)


def connect(path: Path | None, *, writes: bool = True) -> OutboxFile:
    """The existing file, or memory.  Raises `OutboxError`, also for a database that is not an outbox of ours."""
    name = str(path) if path else "the outbox in memory"
    target = f"{path.as_uri()}?mode={'rw' if writes else 'ro'}" if path else ":memory:"
    try:
        # One thread at a time, but not always the same one: Store.lock sees to it.
        connection = sqlite3.connect(
            target, uri=path is not None, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS
        )
    except sqlite3.Error as error:
        raise explained(error, name) from error
    return OutboxFile(connection, path)


def put_in_order(path: Path) -> None:
    """Takes back what a killed program left half done in the file itself, as a reader may not.  Raises `OutboxError`.

    That is the switch to the -wal or away from it; everything else goes through the -wal, which readers understand.
    """
    if not path.with_name(f"{path.name}-journal").exists():
        return
    opened = connect(path)
    try:
        with opened.reading() as connection:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    finally:
        opened.close()


def check_identity(store: OutboxFile) -> None:
    """Raises `OutboxError` unless the file is an outbox that this version can read."""
    with store.reading() as connection:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
    if not pages:
        raise OutboxError(f"{store.name} is empty, not an outbox", hint="remove it, then send again")
    if application != APPLICATION_ID:
        raise OutboxError(
            f"{store.name} is not an outbox, but a database of another program",
            hint="look for the file that bulkmail send made: runs/NAME.outbox",
        )
    if version != SCHEMA_VERSION:
        raise OutboxError(
            f"{store.name} was written by another version of bulkmail: its format is {version}, this one reads"
            f" {SCHEMA_VERSION}",
            hint="use the version that wrote it, or a newer one",
        )
    with store.reading() as connection:
        connection.execute("PRAGMA trusted_schema = OFF")
        check_shape(connection, store.name)


def tune(store: OutboxFile, durability: Durability) -> None:
    """WAL, and syncs as `durability` wants them."""
    with store.reading() as connection:
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
        connection.execute("PRAGMA mmap_size = 0")
        connection.execute("PRAGMA trusted_schema = OFF")
        if store.path is None:
            return
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise OutboxError(
                f"{store.name} is on a file system without shared memory", hint="keep it on a local disk: --outbox FILE"
            )
        power = durability is Durability.POWER
        connection.execute(f"PRAGMA synchronous = {'FULL' if power else 'NORMAL'}")
        connection.execute(f"PRAGMA fullfsync = {int(power)}")  # macOS: past the drive's own cache
        connection.execute(f"PRAGMA checkpoint_fullfsync = {int(power)}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")


def lay_down(store: OutboxFile, fill: Callable[[sqlite3.Connection], None]) -> None:
    """The tables and what `fill` puts into them, in one transaction."""
    with store.writing() as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        for statement in statements("schema.sql"):
            connection.execute(statement)
        fill(connection)


def check_exists(path: Path) -> None:
    """Raises `OutboxError` unless there is a file at `path`."""
    if not path.is_file():
        raise OutboxError(f"there is no outbox at {path}", hint="bulkmail send makes one")


def make_folder(folder: Path) -> None:
    """The folder, with those above it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error


def make_file(path: Path, fill: Callable[[sqlite3.Connection], None], *, replace: bool) -> None:
    """An outbox at `path` for its owner's eyes only, with the lock held.  It appears there complete or not at all."""
    if path.exists() and not replace:
        raise OutboxError(f"{path} exists already", hint=f"bulkmail resume {path} goes on with it")
    if path.exists():
        _check_is_outbox(path)
    draft = path.with_name(f".{path.name}.new")
    try:
        remove(draft)
        os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        new = connect(draft)
        try:
            lay_down(new, fill)
        finally:
            new.close()
        put_in_place(draft, path)
    except BaseException as error:
        with suppress(OSError):
            remove(draft)
        if isinstance(error, OSError):
            raise _cannot_write(path, error) from error
        raise


def _check_is_outbox(path: Path) -> None:
    """Raises `OutboxError` unless the file is an outbox of ours, of this version or another, and may be replaced."""
    try:
        with path.open("rb") as file:
            head = file.read(72)
    except OSError as error:
        raise _cannot_write(path, error) from error
    if not looks_like_outbox(head):
        raise OutboxError(
            f"{path} is not an outbox, and would be overwritten",
            hint="name another file with --outbox, or move it away",
        )


def looks_like_outbox(head: bytes) -> bool:
    """Whether a file that begins with these 72 bytes is an outbox: SQLite's magic, and our application id behind it."""
    return head[:16] == b"SQLite format 3\0" and head[68:72] == APPLICATION_ID.to_bytes(4, "big")


def _cannot_write(path: Path, error: OSError) -> OutboxError:
    return OutboxError(
        f"{path} cannot be written: {error.strerror}", hint="look at the rights and the room in the folder"
    )


def put_in_place(draft: Path, path: Path) -> None:
    """Gives the complete `draft` its name.  What had that name before is gone; no half file is ever seen there."""
    remove(path)
    draft.replace(path)
    if hasattr(os, "O_DIRECTORY"):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove(path: Path) -> None:
    """Takes an outbox and what SQLite keeps beside it away.

    The file itself goes first: without its -wal it would still open, and forget who was written to last.
    """
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
