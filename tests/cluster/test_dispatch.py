"""Handing out shards: what a dead worker leaves behind holds up none of the others."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from bulkmail.cluster.database import connect
from bulkmail.cluster.dispatch import Dispatch

pytestmark = [pytest.mark.real, pytest.mark.slow]


async def test_job_of_a_dead_worker_holds_up_no_shard_and_is_removed(database: str) -> None:
    served = asyncio.Event()

    async def serve(campaign: int, queue: int) -> None:
        served.set()

    admin = await connect(database)
    async with Dispatch(database, serve, shards=1) as dispatch:
        await dispatch.offer(1, 0, 1)
        await admin.execute("UPDATE procrastinate_jobs SET status = 'doing'")  # by one of which nothing is known
        await dispatch.offer(1, 0, 1)  # its shard is free again
        running = asyncio.create_task(dispatch.run())
        await asyncio.wait_for(served.wait(), 10)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await dispatch.offer(1, 0, 1)
        await dispatch.remove_lost()
        assert [record["status"] for record in await admin.fetch("SELECT status FROM procrastinate_jobs")] == ["todo"]
    await admin.close()


async def test_store_that_does_not_answer_is_in_no_log_but_ours(caplog: pytest.LogCaptureFixture) -> None:
    async def serve(campaign: int, queue: int) -> None:
        raise AssertionError

    dispatch = await asyncio.to_thread(Dispatch, "postgresql://me@127.0.0.1:1/mail", serve, shards=1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(dispatch.__aenter__(), 1)
    assert not [record for record in caplog.records if not record.name.startswith("bulkmail")]
