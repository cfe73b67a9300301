"""The rows of a list or of a program, wherever they come from: fields that are added, and which are meant."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import islice
from typing import Generic, Protocol, TypeVar, cast

import anyio.lowlevel

from bulkmail.checks.row_checks import RowCheck
from bulkmail.message.template.rendering import Condition
from bulkmail.model.campaign import Campaign
from bulkmail.model.errors import ConfigError, EmptyList, ListError, TemplateError
from bulkmail.model.lazy import dataclass
from bulkmail.model.recipient import FIELD, Address, BadRow, Place, PlainRow, PlainRows, Recipient, variant_of
from bulkmail.model.tally import MOST_INVALID, Status
from bulkmail.recipients.columns import DELIVERY_COLUMNS
from bulkmail.recipients.given import not_rows, reader_of
from bulkmail.recipients.list_reading import ListOptions
from bulkmail.recipients.list_source import RecipientList, from_plain, open_list
from bulkmail.recipients.remarks import Remarks
from bulkmail.recipients.screening import Screened, Suppression, screen
from bulkmail.text import printable

# -- What a program hands over to be iterated, read where the program is and used in a worker thread.


SLICE = 500  # items that are read before the loop has its turn
LONGEST_TURN = 0.02  # seconds that slow items keep it waiting

T = TypeVar("T")
R = TypeVar("R")


class Feed(Generic[T]):
    """Items of an iterable, `async` or not, each `taken` at once: its iterator may give the same object again.

    The iterable may be bound to the program's thread, as a cursor is, or to its task.  So `fetch()` reads a slice of it
    where it is awaited, and iterating gives what was fetched, in whichever thread that is done.
    """

    def __init__(self, source: Iterable[T] | AsyncIterable[T], taken: Callable[[T], T]) -> None:
        self._taken = taken
        self._later: AsyncIterator[T] | None = None
        self._now: Iterator[T] = iter(())
        self._fetched: deque[T] = deque()
        self._has_ended = False
        if isinstance(source, AsyncIterable):  # first: what is both, as Django's QuerySet, is so for a running loop
            self._later = aiter(source)
        else:
            self._now = iter(source)

    async def fetch(self) -> int:
        """How many items can be iterated now, at most `SLICE`; 0 when all were.

        What the program's iterator raises passes through.
        """
        while not self._has_ended and len(self._fetched) < SLICE:
            if self._later is None:
                self._fetch_turn(self._now)
                await anyio.lowlevel.checkpoint()
            else:
                await self._fetch_later(self._later)
        return min(len(self._fetched), SLICE)

    def fetch_all(self) -> None:
        """Reads everything at once: for a few items, and not for an `async` iterable."""
        self._fetched.extend(map(self._taken, self._now))
        self._has_ended = True

    async def aclose(self) -> None:
        """Ends an asynchronous generator that was not read to its end, in the task that read it."""
        if inspect.isasyncgen(self._later):
            await self._later.aclose()

    def __iter__(self) -> Iterator[T]:
        """What was fetched.  Callers ask for no more items than `fetch()` returned."""
        while self._fetched:
            yield self._fetched.popleft()
        if not self._has_ended:
            raise AssertionError("more was asked for than was fetched")

    def _fetch_turn(self, items: Iterator[T]) -> None:
        end = time.monotonic() + LONGEST_TURN
        for item in islice(items, SLICE - len(self._fetched)):
            self._fetched.append(self._taken(item))
            if time.monotonic() > end:
                return
        self._has_ended = len(self._fetched) < SLICE

    async def _fetch_later(self, items: AsyncIterator[T]) -> None:
        async for item in items:
            self._fetched.append(self._taken(item))
            if len(self._fetched) >= SLICE:
                return
        self._has_ended = True


class Handover(Generic[T]):
    """Items of an iterable that must not be read where a loop runs, as an `async` iterable for one.

    `run()` runs the loop and reads by turns, both in the thread that calls it.
    """

    def __init__(self, source: Iterable[T], taken: Callable[[T], T]) -> None:
        self._taken = taken
        self._source = source
        self._items: Iterator[T] | None = None
        self._slice: list[T] = []
        self._error: BaseException | None = None
        self._wanted = asyncio.Event()
        self._given = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[T]:
        while True:
            self._wanted.set()
            await self._given.wait()
            self._given.clear()
            if self._error is not None:
                raise self._error
            if not self._slice:
                return
            for item in self._slice:
                yield item

    def run(self, main: Coroutine[object, object, R], runner: asyncio.Runner) -> R:
        """What `main`, which iterates this, returns or raises."""
        task = runner.get_loop().create_task(main)
        try:
            while runner.run(self._is_wanted(task)):
                self._read()
            return task.result()
        finally:
            if not task.done():  # Ctrl-C: an error of the source ends the task
                task.cancel()
                runner.run(_ended(task))

    async def _is_wanted(self, task: asyncio.Task[R]) -> bool:
        """Waits until items are wanted, or the task has ended: then False."""
        wanted = asyncio.ensure_future(self._wanted.wait())
        try:
            await asyncio.wait({task, wanted}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            wanted.cancel()
        return not task.done()

    def _read(self) -> None:
        self._wanted.clear()
        try:
            if self._items is None:
                self._items = iter(self._source)
            self._slice = list(map(self._taken, islice(self._items, SLICE)))
        except Exception as error:
            self._error = error
        self._given.set()


async def _ended(task: asyncio.Task[R]) -> None:
    await asyncio.wait({task})


# -- The rows of a list, wherever they come from: the fields that are added to them, and which of them are meant.


class Rows(Protocol):
    """Iterated once; `columns` and `notices` may grow on the way.

    `repeated` are the names that several columns have, each with what all but the first are called instead.
    """

    @property
    def columns(self) -> list[str]: ...
    @property
    def notices(self) -> list[str]: ...
    @property
    def repeated(self) -> dict[str, list[str]]: ...
    @property
    def remarks(self) -> Remarks: ...
    def __iter__(self) -> Iterator[Recipient | BadRow]: ...
    def close(self) -> None: ...


Given = str | os.PathLike[str] | Iterable[object] | AsyncIterable[object]
"""A list as a program gives it: a file, or rows that are iterated, `async` or not.  Each row is a mapping, or what has
fields by name (a NamedTuple, a dataclass, a row of a database, a pydantic model), with a field `email` or as
`ListOptions` says; or all are `Recipient`s."""


class GivenRows:
    """Rows that a program or the command line brings, rather than a file.

    `fetch()` comes before iterating, as in `Feed`.
    """

    def __init__(
        self, rows: Iterable[object] | AsyncIterable[object], options: ListOptions, *, name: str = "<rows>"
    ) -> None:
        """Raises `ListError` for what cannot be iterated as rows."""
        if fault := not_rows(rows):
            raise ListError(f"the list of recipients {fault}")
        self.columns: list[str] = []
        self.notices: list[str] = []
        self.repeated: dict[str, list[str]] = {}
        self.remarks = Remarks()
        self._feed: Feed[object] = Feed(rows, reader_of(rows))
        self.fetch = self._feed.fetch
        self.fetch_all = self._feed.fetch_all
        self.aclose = self._feed.aclose
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
        others: list[object] = []
        rows = iter(self._feed)
        for row in rows:
            if isinstance(row, Recipient):
                yield row
            else:
                others.append(row)
                break
        if others:
            yield from from_plain(_chained(others, rows), self._options, name=self._name)


class NoRows:
    """A list that can be read and is empty; the notice says so."""

    def __init__(self, why: EmptyList) -> None:
        self.columns: list[str] = []
        self.notices = [str(why)]
        self.repeated: dict[str, list[str]] = {}
        self.remarks = Remarks()

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


def _chained(first: Iterable[object], rest: Iterator[object]) -> Iterator[object]:
    yield from first
    for row in rest:
        if isinstance(row, Recipient):
            raise TypeError("rows are mappings or recipients, not both")
        yield row


def blocks_of(rows: Rows) -> Iterator[Recipient | BadRow | PlainRows]:
    """The same rows, many at a time where a file has them so."""
    return rows.blocks() if isinstance(rows, RecipientList | WrappedRows) else iter(rows)


class WrappedRows(ABC):
    """Says of the rows what their list says; `adds` are the fields that each row gets."""

    def __init__(self, rows: Rows, *adds: str) -> None:
        self._rows = rows
        self._adds = adds
        self.close = rows.close

    @abstractmethod
    def fields(self, key: str, fields: Mapping[str, object]) -> Mapping[str, object]:
        """What the fields of a row to this `Address.key` become.  Raises `ListError` for a row that cannot be used."""

    def __iter__(self) -> Iterator[Recipient | BadRow]:
        """Each row in order."""
        for row in self._rows:
            yield self._with(row)

    def blocks(self) -> Iterator[Recipient | BadRow | PlainRows]:
        """The same rows, many at a time where the list has them so."""
        for row in blocks_of(self._rows):
            if isinstance(row, PlainRows):
                yield from self._block(row)
            else:
                yield self._with(row)

    def _with(self, row: Recipient | BadRow) -> Recipient | BadRow:
        if isinstance(row, BadRow):
            return row
        try:
            fields = self.fields(row.address.key, row.fields)
        except ListError as error:
            return BadRow(str(error), row.fields, row.place)
        return row if fields is row.fields else replace(row, fields=fields)

    def _block(self, block: PlainRows) -> Iterator[BadRow | PlainRows]:
        found: list[PlainRow] = []
        for line, wire, name, key, fields in block.rows:
            try:
                found.append((line, wire, name, key, cast("dict[str, str]", self.fields(key, fields))))
            except ListError as error:
                if found:
                    yield block._replace(rows=found)
                found = []
                yield BadRow(str(error), fields, Place(block.file, line))
        if found:
            yield block._replace(rows=found)

    @property
    def columns(self) -> list[str]:
        """The list's, and those that are added."""
        return list(dict.fromkeys([*self._rows.columns, *self._adds]))

    @property
    def notices(self) -> list[str]:
        """The list's."""
        return self._rows.notices

    @property
    def repeated(self) -> dict[str, list[str]]:
        """The list's."""
        return self._rows.repeated

    @property
    def remarks(self) -> Remarks:
        """The list's."""
        return self._rows.remarks


class VariedRows(WrappedRows):
    """The same rows with a field `variant`.

    A list that has that column decides itself, as a report does that is fed back; an empty cell there is filled in.
    """

    def __init__(self, rows: Rows, campaign: Campaign) -> None:
        super().__init__(rows, FIELD)
        self._variants = campaign.variants
        self._names = {name for name, _ in campaign.variants}
        self._salt = campaign.name

    def fields(self, key: str, fields: Mapping[str, object]) -> Mapping[str, object]:
        """With the variant."""
        given = fields.get(FIELD)
        if given in (None, ""):
            return {**fields, FIELD: variant_of(key, self._variants, salt=self._salt)}
        if isinstance(given, str) and given in self._names:
            return fields
        known = ", ".join(name for name, _ in self._variants)
        raise ListError(f"the variant {printable(str(given), 40)!r} is none of this campaign: {known}")


def varied(rows: Rows, campaign: Campaign) -> Rows:
    """The rows with the variant of each, where the campaign has variants."""
    return VariedRows(rows, campaign) if campaign.variants else rows


@dataclass(slots=True)
class Where:
    """A condition that remembers whether it made sense for any row."""

    condition: Condition
    _answered: int = 0
    _error: TemplateError | None = None

    def __call__(self, fields: Mapping[str, object]) -> bool:
        try:
            holds = self.condition(fields)
        except TemplateError as error:
            self._error = self._error or error
            raise
        self._answered += 1
        return holds

    def refuse_senseless(self) -> None:
        """Raises the first `TemplateError` if there was nothing else: then the condition is at fault, and no row."""
        if self._error is not None and not self._answered:
            raise self._error


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows of the list are meant: `where` is a Jinja expression over the row, empty for all.

    `own_columns` are those that settings name for addresses and names.  `only`, if not empty, are the keys of the
    addresses that a rehearsal is for.  More than the share `most_invalid` of the rows must not be
    invalid.  `address_column` is the column of the addresses, if settings name one.
    """

    where: str = ""
    suppression: Suppression | None = None
    allow_duplicates: bool = False
    redirect_to: Address | None = None
    sample: int | None = None
    own_columns: frozenset[str] = frozenset()
    only: frozenset[str] = frozenset()
    most_invalid: float = MOST_INVALID
    address_column: str = ""

    @property
    def takes_all(self) -> bool:
        """Whether every good row of the list, unless it is suppressed, is to be sent to its own address."""
        return not (self.where or self.redirect_to or self.only)

    def suppressed_copies(self, row: Recipient, paths: tuple[str, ...]) -> dict[str, str]:
        """The copies of `row` that are suppressed, with the reasons; `paths` are its own address and those copies."""
        if self.suppression is None:
            return {}
        found = {}
        for path in paths[1:]:
            local, _, domain = path.rpartition("@")
            if reason := self.suppression.matches_copy(Address(local, domain), of=row.address):
                found[path] = reason
        return found

    def screen(
        self,
        row: Recipient | BadRow,
        *,
        seen: RowCheck,
        where: Callable[[Mapping[str, object]], bool] | None,
        due_at: Callable[[Mapping[str, object]], float] | None = None,
        why_not: Callable[[str], str] | None = None,
    ) -> Screened:
        """What the row begins as; `where` is the condition, compiled, and `seen` takes a look at the row.

        `due_at` says when it may be tried first; a row that it raises `ConfigError` for is a bad one.
        `why_not` says why an `Address.key` is left out of a follow-up, empty if it is not.
        """
        screened = screen(row, suppression=self.suppression, where=where)
        if screened.status is Status.PENDING and isinstance(row, Recipient):
            if why_not is not None and (reason := why_not(row.address.key)):
                return Screened(row, Status.FILTERED, reason)
            if due_at is not None:
                screened = _planned(row, due_at)
        seen.note(screened.row)
        is_other = self.only and isinstance(row, Recipient) and row.address.key not in self.only
        if is_other and screened.status is Status.PENDING:
            return Screened(row, Status.FILTERED, "left out by --only")
        return screened


def _planned(row: Recipient, due_at: Callable[[Mapping[str, object]], float]) -> Screened:
    try:
        return Screened(row, Status.PENDING, "", due_at(row.fields))
    except ConfigError as error:
        reason = str(error)
        return Screened(BadRow(reason, row.fields, row.place), Status.INVALID, reason)
