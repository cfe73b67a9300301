"""What the list needs of the database that its tables are in: SQLite or PostgreSQL, in the SQL that both know."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

Values = Sequence[Any] | Mapping[str, Any]


class StatementResult(Protocol):
    """What a statement answered."""

    @property
    def rowcount(self) -> int:
        """How many rows it changed."""
        ...

    def fetchone(self) -> Any:
        """The next row; None when there is none."""
        ...

    def fetchall(self) -> list[Any]:
        """The rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class ListConnection(Protocol):
    """A connection that one thread uses at a time.  Values stand at `?`, or at `:name`."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        ...

    def execute(self, statement: str, values: Values = (), /) -> StatementResult:
        """Runs one statement."""
        ...

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> object:
        """Runs a statement that answers nothing for each of `rows`."""
        ...


class ListDatabase(Protocol):
    """Where the tables are.  Everything raises `SuppressionError`."""

    def reading(self) -> AbstractContextManager[ListConnection]:
        """Alone with the connection, without a transaction."""
        ...

    def snapshot(self) -> AbstractContextManager[ListConnection]:
        """The same in a transaction, in which each statement sees the same tables."""
        ...

    def writing(self) -> AbstractContextManager[ListConnection]:
        """Alone with the tables, in one transaction: committed at the end, rolled back by any exception.

        Writers come one after the other, so that changes become visible in the order of their numbers.
        """
        ...

    def version(self) -> int:
        """Another number whenever another connection wrote; cheap enough to ask every second."""
        ...

    def shrink(self) -> None:
        """Rewrites the tables, so that nothing is left of what was deleted or blanked."""
        ...

    def copy_to(self, target: Path) -> None:
        """A copy of all tables, the secret included, in a new file for its owner's eyes only."""
        ...

    def close(self) -> None:
        """Ends the connection.  May be called again."""
        ...


def among(values: Collection[object]) -> str:
    """`(?, ?)` for as many values, of none a list that nothing is in."""
    return f"({', '.join('?' for _ in values) or 'NULL'})"
