"""What a program hands over to be iterated, read where the program is and used in a worker thread."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from itertools import islice
from typing import Generic, TypeVar

import anyio.lowlevel

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
