"""The quota ledger of an account in a store: what all workers together have sent to."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from anyio import from_thread

from bulkmail.cluster.database import STANDS_STILL, connect, saying
from bulkmail.model.quota import DAY, NO_QUOTA, Quota, QuotaBooking, Ramp
from bulkmail.model.timing import Hold
from bulkmail.outbox.ledger import HOLD, LONGEST_HOLD, LONGEST_PAUSE, Reservation

if TYPE_CHECKING:
    from asyncpg import Connection

T = TypeVar("T")

_BUCKET = 10  # seconds that are counted together, at the end of them
_KEPT = 7 * DAY
_NOW = "SELECT extract(epoch FROM clock_timestamp())::float8"
_SPEND = (
    "INSERT INTO spent (account, at, count) VALUES ($1, $2, $3)"
    " ON CONFLICT (account, at) DO UPDATE SET count = spent.count + excluded.count"
)
_BOOKINGS = (
    "SELECT at::float8, count FROM spent WHERE account = $1 AND at > $2"
    " UNION ALL SELECT until, count FROM reserved WHERE account = $1 ORDER BY 1"
)


class StoreLedger:
    """One account.  As `Ledger`, called in a thread that the loop waits for; times count by the store's clock.

    What is reserved counts until it is given back, so that a worker that dies makes us send too little, never too much.
    The times that come in and go out are those of the caller's clock.
    """

    def __init__(self, url: str, account: str) -> None:
        self._url = url
        self._account = account
        self._connection: Connection | None = None

    def __enter__(self) -> StoreLedger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection.  What is reserved stays so."""
        if self._connection is not None:
            with suppress(Exception):
                self._connection.terminate()
            self._connection = None

    def reserve(
        self,
        wanted: int,
        now: float,
        *,
        quota: Quota = NO_QUOTA,
        ramp: Ramp | None = None,
        campaign: str = "",
        hold: float = HOLD,
    ) -> Reservation | Hold:
        """The right to send to up to `wanted` recipients within `hold` seconds, or until when there is none."""
        hold = min(hold, LONGEST_HOLD)

        async def ask(connection: Connection, at: float) -> Reservation | Hold:
            ahead = now - at
            if (resting := await self._pause(connection, at)) is not None:
                return Hold(resting.until + ahead, resting.why)
            bookings = await self._bookings(connection, at)
            free = quota.free(bookings, at)
            if free == 0:
                return Hold(quota.opens_at(bookings, at) + ahead, f"the quota of {quota} is used up")
            count = wanted if free is None else min(wanted, free)
            if ramp is not None:
                began_at = await self._ramp_began(connection, campaign, at)
                day = ramp.day(began_at, at)
                since = ramp.begins_at(began_at, day)
                left = ramp.allowance(day) - sum(booking.count for booking in bookings if booking.at >= since)
                if left <= 0:
                    opens_at = ramp.begins_at(began_at, day + 1) + ahead
                    return Hold(opens_at, f"the ramp of {ramp} allows {ramp.allowance(day):,} on day {day + 1}")
                count = min(count, left)
            number = await connection.fetchval(
                "INSERT INTO reserved (account, until, count) VALUES ($1, $2, $3) RETURNING id",
                self._account,
                at + hold,
                count,
            )
            return Reservation(int(number), count, now + hold)

        return self._run(ask)

    def settle(self, reservation: Reservation, used: int, now: float) -> None:
        """Of `reservation`, `used` recipients were sent to; the others are given back."""

        async def say(connection: Connection, at: float) -> None:
            count = await connection.fetchval(
                "DELETE FROM reserved WHERE id = $1 AND account = $2 RETURNING count", reservation.id, self._account
            )
            if count is not None:
                await self._spend(connection, at, min(used, count))

        self._run(say)

    def pause(self, seconds: float, why: str, now: float) -> float:
        """Pauses the account for `seconds`, two days at most; returns until when.  A longer pause stays."""

        async def say(connection: Connection, at: float) -> float:
            until = at + min(seconds, LONGEST_PAUSE)
            resting = await self._pause(connection, at)
            if resting is not None and resting.until >= until:
                return resting.until + now - at
            await connection.execute(
                "INSERT INTO pause (account, until, why) VALUES ($1, $2, $3)"
                " ON CONFLICT (account) DO UPDATE SET until = excluded.until, why = excluded.why",
                self._account,
                until,
                why,
            )
            return until + now - at

        return self._run(say)

    def lift(self) -> None:
        """Ends the pause of the account, because the user says so."""

        async def say(connection: Connection, at: float) -> None:
            await connection.execute("DELETE FROM pause WHERE account = $1", self._account)

        self._run(say)

    # -- what takes its time

    def _run(self, use: Callable[[Connection, float], Awaitable[T]]) -> T:
        return from_thread.run(self._alone, use)

    async def _alone(self, use: Callable[[Connection, float], Awaitable[T]]) -> T:
        """`use` in one transaction that holds the account, with the store's time."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._url, stands_still=STANDS_STILL)
        connection = self._connection
        with saying(self._url):
            async with connection.transaction():
                await connection.execute("INSERT INTO account (key) VALUES ($1) ON CONFLICT DO NOTHING", self._account)
                await connection.execute("SELECT 1 FROM account WHERE key = $1 FOR UPDATE", self._account)
                at = float(await connection.fetchval(_NOW))
                await self._heal(connection, at)
                return await use(connection, at)

    async def _heal(self, connection: Connection, at: float) -> None:
        """Counts what was never given back, and forgets what is long past."""
        gone = await connection.fetch(
            "DELETE FROM reserved WHERE account = $1 AND until < $2 RETURNING until, count",
            self._account,
            at - LONGEST_HOLD,
        )
        for record in gone:
            await self._spend(connection, record["until"], record["count"])
        await connection.execute("DELETE FROM spent WHERE account = $1 AND at < $2", self._account, int(at - _KEPT))

    async def _spend(self, connection: Connection, at: float, count: int) -> None:
        if count > 0:
            await connection.execute(_SPEND, self._account, math.ceil(at / _BUCKET) * _BUCKET, count)

    async def _bookings(self, connection: Connection, at: float) -> list[QuotaBooking]:
        found = await connection.fetch(_BOOKINGS, self._account, int(at - DAY))
        return [QuotaBooking(float(record[0]), int(record[1])) for record in found]

    async def _pause(self, connection: Connection, at: float) -> Hold | None:
        found = await connection.fetchrow(
            "SELECT until, why FROM pause WHERE account = $1 AND until > $2", self._account, at
        )
        return None if found is None else Hold(float(found["until"]), found["why"])

    async def _ramp_began(self, connection: Connection, campaign: str, at: float) -> float:
        await connection.execute(
            "INSERT INTO ramp (account, campaign, began_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            self._account,
            campaign,
            at,
        )
        return float(
            await connection.fetchval(
                "SELECT began_at FROM ramp WHERE account = $1 AND campaign = $2", self._account, campaign
            )
        )
