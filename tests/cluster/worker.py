"""A worker that sends a campaign out of a store until nothing is left: python worker.py URL PORT LEASE MARKS

For the harness that kills and stops it.  With MARKS "off" it takes every end of a message for permitted.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Collection, Sequence

from bulkmail.cluster.session import Session
from bulkmail.cluster.store import ClusterStore
from bulkmail.engine.contracts import Connection, Outlet, Plan
from bulkmail.engine.engine import Engine
from bulkmail.model.delivery import Envelope, Job, Mark, Message, Release, Written
from bulkmail.model.pace import Pace
from bulkmail.model.relay import Relay
from bulkmail.model.route import Route
from bulkmail.smtp import connection as smtp
from bulkmail.smtp.opening import Access

CONNECTIONS = 3


def compose(job: Job, first_at: float) -> Message:
    path = job.delivery.forward_path
    message_id = f"<{job.delivery.id}@example.com>"
    content = f"Subject: hello\r\nMessage-ID: {message_id}\r\n\r\nDear {path}\r\n".encode()
    return Message(Envelope("sender@example.com", path), message_id, (content,))


def without_marks(store: ClusterStore) -> None:
    """Takes the fence away: outcomes are recorded, marks are not asked for."""
    write = store.write

    def unfenced(entries: Sequence[Written]) -> asyncio.Future[Collection[int]]:
        marks = {entry.delivery_id for entry in entries if isinstance(entry, Mark)}
        others = [entry for entry in entries if not isinstance(entry, Mark | Release)]
        if others:
            return asyncio.ensure_future(_joined(write(others), marks))
        answer: asyncio.Future[Collection[int]] = asyncio.get_running_loop().create_future()
        answer.set_result(marks)
        return answer

    store.write = unfenced  # type: ignore[method-assign]


async def _joined(answer: asyncio.Future[Collection[int]], marks: set[int]) -> Collection[int]:
    return {*await answer, *marks}


async def main(url: str, port: int, lease: float, marks: str) -> None:
    where = Relay.parse(f"smtp://127.0.0.1:{port}?tls=off&connections={CONNECTIONS}")

    async def connect() -> Connection:
        return await smtp.SmtpConnection.open(Access(where), None)

    async with Session(url, lease=lease) as session:
        store = await ClusterStore.open(session, "spring")
        if marks == "off":
            without_marks(store)
        plan = Plan(store, compose, [Outlet(Route(where, "the relay"), connect)], pace=Pace(wait=3600))
        ending = await Engine(plan).run()
        if ending.error is not None:
            raise ending.error


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]))
