"""A worker's session in the store: its id is the fence, its lease says until when it may write the end of a message."""

# ruff: noqa: S608 - what is put into a statement is the number of a campaign, or another statement
from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING

from anyio import to_thread

from bulkmail.cluster.database import STANDS_STILL, StoreError, connect, is_gone, is_to_be_repeated, saying

if TYPE_CHECKING:
    from asyncpg import Connection

LEASE = 15.0  # seconds
RENEWALS = 5  # in a lease
GUARD = 2.0  # seconds before its end from which on no end of a message is written

_OPEN = (
    "INSERT INTO session (host, pid, version, lease_until)"
    " VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4)) RETURNING id"
)
_RENEW = (
    "UPDATE session SET lease_until = clock_timestamp() + make_interval(secs => $2)"
    " WHERE id = $1 AND ended_at IS NULL AND lease_until > clock_timestamp() RETURNING id"
)
_END = "UPDATE session SET ended_at = clock_timestamp() WHERE id = $1 AND ended_at IS NULL"
_END_OF_SHARD = (
    "(SELECT min(d.due_at) FROM delivery d WHERE d.campaign = s.campaign AND d.id BETWEEN s.first_id AND s.last_id"
    " AND d.queue = s.queue)"
)
# Three statements in one READ COMMITTED transaction, by the worker that comes first.  The first one waits for marks
# under way (FOR SHARE) and refuses later ones; as a statement of its own the second sees every mark that was granted.
_EXPIRE = (
    "UPDATE session SET ended_at = clock_timestamp()"
    " WHERE ended_at IS NULL AND lease_until < clock_timestamp() RETURNING id"
)
_DOUBT = (
    "UPDATE delivery d SET status = 'in_doubt', due_at = NULL, in_doubt_before = true FROM shard s"
    " WHERE s.holder = ANY ($1) AND d.campaign = s.campaign AND d.id BETWEEN s.first_id AND s.last_id"
    " AND d.queue = s.queue AND d.marked_by = s.holder AND d.status IN ('pending', 'deferred')"
)
_LET_GO = f"UPDATE shard s SET holder = NULL, due_at = {_END_OF_SHARD} WHERE s.holder = ANY ($1)"


def monotonic() -> float:
    """Seconds that go on while the machine sleeps, where there is such a clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Session:
    """One worker's lease, renewed while `run()` is running.

    When the lease was lost a new session begins: `id` is another then, `epoch` is one more, and `lost` is called.
    """

    def __init__(
        self,
        url: str,
        *,
        lease: float = LEASE,
        lost: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.url = url
        self.id = 0
        self.epoch = 0
        self.lost = lost
        self._lease = lease
        self._clock = clock
        self._version = ""
        self._ends = 0.0
        self._connection: Connection | None = None
        self._renewing: asyncio.Task[None] | None = None

    def is_safe(self) -> bool:
        """Whether an end of a message may be written this instant: no other worker can have taken it over."""
        return self._clock() < self._ends - min(GUARD, self._lease / 3)

    async def __aenter__(self) -> Session:
        self._version = await to_thread.run_sync(version, "bulkmail")
        await self._open(await self._connected())
        self._renewing = asyncio.create_task(self._renew_for_ever())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            with suppress(asyncio.CancelledError):
                await self._renewing
        with suppress(StoreError):
            await self._end(await self._connected())
        if self._connection is not None:
            with suppress(Exception):
                await self._connection.close(timeout=2)

    async def renew(self) -> None:
        """One renewal, a new session if the lease is lost, and the expiry of others.  Raises `StoreError`."""
        connection = await self._connected()
        asked = self._clock()  # before the question: to the safe side
        with saying(self.url):
            if await connection.fetchval(_RENEW, self.id, self._lease) is None:
                await self._open(connection)
                self.epoch += 1
                self.lost()
            else:
                self._ends = asked + self._lease
            await expire(connection)

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._lease / RENEWALS)
            with suppress(StoreError):  # without the store no mark is granted, and the lease runs out by itself
                await self.renew()

    async def _open(self, connection: Connection) -> None:
        asked = self._clock()
        with saying(self.url):
            self.id = await connection.fetchval(_OPEN, socket.gethostname(), os.getpid(), self._version, self._lease)
        self._ends = asked + self._lease

    async def _end(self, connection: Connection) -> None:
        """What is marked without an outcome is in doubt, what is held goes back."""
        self._ends = 0.0
        with saying(self.url):
            async with connection.transaction():
                await connection.execute(_END, self.id)
                await connection.execute(_DOUBT, [self.id])
                await connection.execute(_LET_GO, [self.id])

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(
                self.url, within=max(1.0, self._lease / RENEWALS), stands_still=STANDS_STILL
            )
        return self._connection


async def expire(connection: Connection) -> list[int]:
    """Ends the sessions whose lease is over: what they had marked is in doubt, what they held is free."""
    for _ in range(5):
        try:
            async with connection.transaction():
                ended = [record["id"] for record in await connection.fetch(_EXPIRE)]
                if ended:
                    await connection.execute(_DOUBT, ended)
                    await connection.execute(_LET_GO, ended)
                return ended
        except Exception as error:
            if is_gone(error) or not is_to_be_repeated(error):
                raise
    return []
