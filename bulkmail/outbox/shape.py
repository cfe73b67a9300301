"""What tables an outbox has, compared with a file that may be damaged or not ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import Annotated

import msgspec

from bulkmail.model.errors import OutboxError
from bulkmail.text import printable

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
