"""Handing out shards to workers: the only file that knows procrastinate, which keeps its jobs in the same PostgreSQL.

A job is "take one shard of this queue of this campaign, and send it".  It says nothing about a message: what may be
sent is decided by the tables, so that a job that is lost, or done twice, costs time and no more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from anyio import to_thread

from bulkmail.cluster.database import SCHEMA
from bulkmail.model.errors import ConfigError

if TYPE_CHECKING:
    from asyncpg import Connection
    from procrastinate import App

log = logging.getLogger("bulkmail.cluster")

TASK = "bulkmail.serve"
HEARTBEAT = 3.0  # seconds
GONE_AFTER = 15.0  # seconds without a heartbeat after which a worker is gone
POLLING = 1.0  # seconds between two looks for jobs, where no notification comes
AGAIN = 1.0  # seconds after which the loop is started again that ended

Serve = Callable[[int, int], Awaitable[None]]
"""Takes one shard of a campaign's queue and sends it; gets the numbers of both."""


def needed() -> Any:
    """procrastinate.  Raises `ConfigError` where it is not installed."""
    try:
        import procrastinate
    except ImportError as error:
        raise ConfigError(
            "a worker needs procrastinate, which is not installed", hint="pip install 'bulkmail[postgres]'"
        ) from error
    return procrastinate


async def apply_schema(connection: Connection) -> None:
    """The tables of procrastinate beside ours, unless they are there."""
    if await connection.fetchval("SELECT to_regclass($1)", f"{SCHEMA}.procrastinate_jobs") is not None:
        return
    await connection.execute(await to_thread.run_sync(_schema_text))


def _schema_text() -> str:
    needed()
    return files("procrastinate.sql").joinpath("schema.sql").read_text("utf-8")


class Dispatch:
    """One worker's part in handing out shards; a context manager."""

    def __init__(self, url: str, serve: Serve, *, shards: int) -> None:
        """`shards` is how many this worker holds at a time.  Imports procrastinate, which takes a moment."""
        procrastinate = needed()
        self._shards = shards
        connector = procrastinate.PsycopgConnector(
            conninfo=url, kwargs={"options": f"-c search_path={SCHEMA}"}, min_size=1, max_size=4, timeout=10
        )
        self._app: App = procrastinate.App(connector=connector)

        @self._app.task(name=TASK, queue="bulkmail")  # type: ignore[untyped-decorator]
        async def work(campaign: int, queue: int) -> None:
            try:
                await serve(campaign, queue)
            except Exception as error:  # the shard goes back with the session or the campaign's engine
                log.warning("a shard was not sent", extra={"why": f"{type(error).__name__}: {error}"})

        self._task = work
        logging.getLogger("procrastinate").setLevel(logging.CRITICAL)  # what is to be said is said by us
        logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)

    async def __aenter__(self) -> Dispatch:
        await self._app.open_async()
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(Exception):
            await self._app.close_async()

    async def offer(self, campaign: int, queue: int, slots: int) -> None:
        """Sees to it that `slots` jobs for this queue wait.

        Jobs at work hold up none that wait: the worker of one may be dead, and its shard be free again.
        """
        from procrastinate.exceptions import AlreadyEnqueued

        for number in range(slots):
            with suppress(AlreadyEnqueued):
                waiting = self._task.configure(queueing_lock=f"{campaign}/{queue}/{number}")
                await waiting.defer_async(campaign=campaign, queue=queue)

    async def run(self) -> None:
        """Works until it is cancelled.

        procrastinate forgets a worker that stood still for a while, and its loop ends then: it is started again.
        """
        while True:
            try:
                await self._app.run_worker_async(
                    queues=["bulkmail"],
                    concurrency=self._shards,
                    wait=True,
                    fetch_job_polling_interval=POLLING,
                    install_signal_handlers=False,
                    update_heartbeat_interval=HEARTBEAT,
                    stalled_worker_timeout=GONE_AFTER,
                    delete_jobs="always",
                    shutdown_graceful_timeout=2.0,
                )
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # of any kind: shards go on being handed out
                log.info("handing out shards begins again", extra={"why": f"{type(error).__name__}: {error}"})
            await asyncio.sleep(AGAIN)

    async def remove_lost(self) -> None:
        """Removes the jobs of workers that are gone.

        They are not tried again: their shards are offered as soon as they are free, and a job that waits for the same
        slot makes a second try of the first one impossible.
        """
        from procrastinate.exceptions import ConnectorException
        from procrastinate.jobs import Status

        manager = self._app.job_manager
        for job in await manager.get_stalled_jobs(task_name=TASK, seconds_since_heartbeat=GONE_AFTER):
            with suppress(ConnectorException):  # another worker was quicker
                await manager.finish_job(job, Status.FAILED, delete_job=True)
