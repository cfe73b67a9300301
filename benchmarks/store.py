"""How many messages a store in PostgreSQL records a second, each with a mark and an outcome, in groups.

    python benchmarks/store.py [ROWS] [GROUP]

Over a server of its own on this machine, with fsync on.  No mail is sent.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bulkmail.cluster.database import connect
from bulkmail.cluster.loading import LoadedRow, load
from bulkmail.cluster.session import Session
from bulkmail.cluster.store import ClusterStore
from bulkmail.cluster.store_schema import create
from bulkmail.model.delivery import AttemptResult, Mark, Settlement, accepted
from bulkmail.model.outcome import Reply, Stage
from bulkmail.model.verdict import ACCEPTED
from tests.outbox.making import make_recipient
from tests.servers.postgresql import run_postgresql

REPLY = Reply(Stage.END, 250, "2.0.0", "Ok: queued as 4WxYz1")


async def run(url: str, rows: int, group: int) -> None:
    admin = await connect(url)
    await create(admin, url)
    began = time.perf_counter()
    await load(admin, url, "spring", (LoadedRow(make_recipient(number)) for number in range(1, rows + 1)))
    print(f"loaded {rows / (time.perf_counter() - began):,.0f} rows a second")
    wal = await admin.fetchval("SELECT pg_current_wal_lsn()")
    async with Session(url) as session:
        store = await ClusterStore.open(session, "spring")
        began, cpu, sent = time.perf_counter(), time.process_time(), 0
        while jobs := (await store.claim(0, limit=group, now=time.time())).jobs:
            marks = [Mark(j.delivery.id, f"<{j.delivery.id}@example.com>", 1.0, b"0" * 16) for j in jobs]
            assert len(await store.write(marks)) == len(jobs)
            outcomes = [
                Settlement(accepted(j.delivery, at=1.0), AttemptResult(1.0, 0.1, "the relay", REPLY, ACCEPTED))
                for j in jobs
            ]
            assert len(await store.write(outcomes)) == len(jobs)
            sent += len(jobs)
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        await store.aclose()
    size = await admin.fetchval("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), $1)::float8", wal)
    print(f"{sent / took:,.0f} messages a second in groups of {group}, one session, claims included")
    print(f"{1e6 * cpu / sent:.0f} µs of the worker's processor and {size / sent:,.0f} B of WAL a message")
    await admin.close()


def main() -> None:
    rows, group = [int(argument) for argument in (*sys.argv[1:], *("20000", "100")[len(sys.argv) - 1 :])]
    with run_postgresql() as server:
        asyncio.run(run(server.make("mail"), rows, group))


if __name__ == "__main__":
    main()
