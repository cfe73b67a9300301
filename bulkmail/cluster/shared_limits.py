"""What workers share while they send: slots of rates, and openings with relays."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from bulkmail.cluster.database import STANDS_STILL, StoreError, connect, saying
from bulkmail.model.rate import Rate, RateLimiter

if TYPE_CHECKING:
    from asyncpg import Connection

T = TypeVar("T")

HORIZON = 0.25  # seconds ahead that slots are booked at most
LATE = 0.1  # seconds after which a slot that was not used lapses
MOST_ASKED = 100  # slots at a time
ASKED_AGAIN = 0.02  # seconds after which a worker that waits for the store's answer looks again
FIRST_BACKOFF, LONGEST_BACKOFF = 2.0, 60.0  # seconds between two openings of all workers with a relay that fails

_GRANT = "SELECT grant_slots($1, $2, $3, $4, $5, $6)"
# One that may open now has the place to itself until `next_at`, unless it succeeds before.
_OPENING = """
    INSERT INTO relay AS r (key, next_at) VALUES ($1, clock_timestamp() + make_interval(secs => $2))
    ON CONFLICT (key) DO UPDATE SET next_at = CASE WHEN r.is_proven AND r.failures = 0 THEN r.next_at
        WHEN r.next_at <= clock_timestamp()
        THEN clock_timestamp() + make_interval(secs => least($2 * 2 ^ least(r.failures, 10), $3)) ELSE r.next_at END
    RETURNING (r.is_proven AND r.failures = 0) OR r.next_at > clock_timestamp() + make_interval(secs =>
        least($2 * 2 ^ least(r.failures, 10), $3) - 0.001) AS is_granted,
        extract(epoch FROM r.next_at - clock_timestamp())::float8 AS wait
"""
_OPENED = (
    "UPDATE relay SET is_proven = true, failures = 0, next_at = 'epoch'"
    " WHERE key = $1 AND (failures > 0 OR NOT is_proven)"
)
_FAILED = "UPDATE relay SET failures = failures + 1 WHERE key = $1"


class Shared:
    """A worker's way to what all of them share, over one connection."""

    def __init__(self, url: str, session: Callable[[], int]) -> None:
        """`session` says which one this worker has just now."""
        self._url = url
        self._session = session
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()

    async def aclose(self) -> None:
        """Ends the connection."""
        if self._connection is not None:
            with suppress(Exception):
                await self._connection.close(timeout=2)

    async def grant(self, key: str, rate: Rate, wanted: int) -> list[float]:
        """Seconds until each slot that was booked; one negative number for none.  Raises `StoreError`."""

        async def ask(connection: Connection) -> list[float]:
            return list(
                await connection.fetchval(_GRANT, key, self._session(), rate.per_second, rate.burst, wanted, HORIZON)
            )

        return await self._over(ask)

    async def opening(self, relay: str) -> float:
        """0 when a session with `relay` may be opened now, else the seconds to wait.  Raises `StoreError`."""

        async def ask(connection: Connection) -> float:
            record = await connection.fetchrow(_OPENING, relay, FIRST_BACKOFF, LONGEST_BACKOFF)
            return 0.0 if record["is_granted"] else max(0.05, float(record["wait"]))

        return await self._over(ask)

    async def opened(self, relay: str, *, well: bool) -> None:
        """An opening with `relay` succeeded or failed.  Raises `StoreError`."""

        async def say(connection: Connection) -> None:
            await connection.execute(_OPENED if well else _FAILED, relay)

        await self._over(say)

    async def _over(self, use: Callable[[Connection], Awaitable[T]]) -> T:
        async with self._lock:
            if self._connection is None or self._connection.is_closed():
                self._connection = await connect(self._url, stands_still=STANDS_STILL)
            with saying(self._url):
                return await use(self._connection)


class SharedLimiter(RateLimiter):
    """A `RateLimiter` whose slots come out of the store, so that all workers together keep to each rate.

    `key_of` gives the key of a rate in the store by its name here.  Slots are asked for by the first message that
    has to wait, and again before they are used up; without an answer nothing goes.
    """

    __slots__ = ("_asking", "_clock", "_key_of", "_refused", "_shared", "_slots", "_used")

    def __init__(
        self, shared: Shared, *, key_of: Callable[[str], str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._shared = shared
        self._key_of = key_of
        self._clock = clock
        self._slots: dict[str, deque[float]] = {}
        self._refused: dict[str, float] = {}  # until when it is not worth asking
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._used: dict[str, int] = {}  # slots taken since the last question

    def wait(self, names: Iterable[str], now: float) -> float:
        """Seconds until one message may go that counts for all of `names`, as far as is known."""
        return max((self._wait(name, now) for name in names if name in self._rates), default=0.0)

    def take(self, names: Iterable[str], now: float) -> bool:
        """Takes a slot of each of `names`; False, and none is taken, when one of them must wait."""
        limited = [name for name in names if name in self._rates]
        if any(self._wait(name, now) > 0 for name in limited):
            return False
        self.booked = {name: self._slots[name].popleft() for name in limited}
        for name in limited:
            self._used[name] = self._used.get(name, 0) + 1
            self._ask_early(name, now)
        return True

    def give_back(self, booked: Mapping[str, float]) -> None:
        """The message that `booked` was for did not go: its slots are the next ones."""
        if booked is self.booked:
            for name, slot in booked.items():
                if name in self._rates:
                    self._slots.setdefault(name, deque()).appendleft(slot)
            self.booked = {}

    def turn(self, name: str, rate: Rate | None, now: float) -> None:
        """From now on `name` goes at `rate`; None frees it."""
        if rate is None:
            self._rates.pop(name, None)
            self._slots.pop(name, None)
        else:
            self._rates[name] = rate

    def forget(self, now: float, *, beginning: str) -> None:
        """What is booked here lapses by itself."""

    def _wait(self, name: str, now: float) -> float:
        slots = self._slots.setdefault(name, deque())
        while slots and slots[0] < now - LATE:
            slots.popleft()
        if slots:
            return max(0.0, slots[0] - now)
        refused = self._refused.get(name, 0.0) - now
        if refused > 0:
            return refused
        self._ask(name)
        return ASKED_AGAIN

    def _ask_early(self, name: str, now: float) -> None:
        """Asks again while there is something left, at a rate of which several slots come in the time of an answer."""
        if not self._slots[name] and self._refused.get(name, 0.0) <= now:
            self._ask(name)

    def _ask(self, name: str) -> None:
        if name not in self._asking:
            self._asking[name] = asyncio.ensure_future(self._fetch(name))

    async def _fetch(self, name: str) -> None:
        rate = self._rates[name]
        # As many as were used since the last answer and a little more: the others have their share.
        wanted = max(1, min(MOST_ASKED, 2 * self._used.pop(name, 0), int(rate.per_second * HORIZON)))
        try:
            granted = await self._shared.grant(self._key_of(name), rate, wanted)
        except StoreError:  # without the store nothing may go
            granted = [-1.0]
        finally:
            del self._asking[name]
        now = self._clock()  # after the answer: to the safe side
        if granted and granted[0] < 0:
            self._refused[name] = now - granted[0]
        else:
            self._slots.setdefault(name, deque()).extend(now + wait for wait in granted)
