"""The rows of a list, wherever they come from, with their columns and what was noticed on the way."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Protocol

from bulkmail.model.errors import EmptyList
from bulkmail.model.recipient import BadRow, Recipient
from bulkmail.recipients.columns import DELIVERY_COLUMNS
from bulkmail.recipients.source import ListOptions, from_rows, open_list


class Rows(Protocol):
    """Iterated once; `columns` and `notices` may grow on the way."""

    @property
    def columns(self) -> list[str]: ...
    @property
    def notices(self) -> list[str]: ...
    def __iter__(self) -> Iterator[Recipient | BadRow]: ...
    def close(self) -> None: ...


Given = str | os.PathLike[str] | Iterable[Mapping[str, object] | Recipient]
"""A list as a program gives it: a file, or rows as mappings (with a column `email`, or as `ListOptions` says) or as
recipients; all rows are of one kind."""


class GivenRows:
    """Rows that a program or the command line brings, rather than a file."""

    def __init__(
        self, rows: Iterable[Mapping[str, object] | Recipient], options: ListOptions, *, name: str = "<rows>"
    ) -> None:
        self.columns: list[str] = []
        self.notices: list[str] = []
        self._rows = iter(rows)
        self._options = options
        self._name = name

    def __iter__(self) -> Iterator[Recipient | BadRow]:
        """Each row in order.  Raises `ListError` if no field holds addresses."""
        known = dict.fromkeys(self.columns)
        for row in self._recipients():
            for column in row.fields:
                if column not in known:
                    known[column] = None
                    self.columns.append(column)
            yield row

    def close(self) -> None:
        """Nothing is open."""

    def _recipients(self) -> Iterator[Recipient | BadRow]:
        mappings: list[Mapping[str, object]] = []
        for row in self._rows:
            if isinstance(row, Recipient):
                yield row
            else:
                mappings.append(row)
                break
        if mappings:
            yield from from_rows(_chained(mappings, self._rows), self._options, name=self._name)


class NoRows:
    """A list that can be read and is empty; the notice says so."""

    def __init__(self, why: EmptyList) -> None:
        self.columns: list[str] = []
        self.notices = [str(why)]

    def __iter__(self) -> Iterator[Recipient | BadRow]:
        return iter(())

    def close(self) -> None:
        """Nothing is open."""


@contextmanager
def opened(source: str | os.PathLike[str], options: ListOptions) -> Iterator[Rows]:
    """The rows of a list, be it empty; else as `open_list()`."""
    try:
        rows: Rows = open_list(source, options)
    except EmptyList as error:
        rows = NoRows(error)
    with closing(rows):
        yield rows


def asks_for_delivery(where: str) -> bool:
    """Whether a condition speaks of the columns that an earlier report has added to its list."""
    return any(column in where for column in DELIVERY_COLUMNS)


def _chained(
    first: Iterable[Mapping[str, object]], rest: Iterator[Mapping[str, object] | Recipient]
) -> Iterator[Mapping[str, object]]:
    yield from first
    for row in rest:
        if isinstance(row, Recipient):
            raise TypeError("rows are mappings or recipients, not both")
        yield row
