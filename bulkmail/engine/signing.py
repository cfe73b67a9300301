"""Signatures that take long are made in threads, one message ahead of the line."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor

from bulkmail.engine.contracts import Sign
from bulkmail.model.job import Job
from bulkmail.model.message import Message

THREADS = 2


class Signer:
    """A few threads that finish messages; the interpreter's lock is free while they reckon."""

    def __init__(self, sign: Sign) -> None:
        self._sign = sign
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="bulkmail-sign")

    def begin(self, message: Message, date: float) -> Future[Message]:
        """The signed message, some time."""
        return self._pool.submit(self._sign, message, date)

    def close(self) -> None:
        """Lets go of the threads; what is not begun is not signed any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class Signing:
    """A job with its message, which is ready at once where there is nothing to wait for."""

    __slots__ = ("_future", "_message", "first_at", "job")

    def __init__(self, job: Job, message: Message, first_at: float, signer: Signer | None) -> None:
        self.job = job
        self.first_at = first_at
        self._message = message
        self._future = signer.begin(message, first_at) if signer is not None else None

    @property
    def is_ready(self) -> bool:
        """Whether `now()` does not wait."""
        return self._future is None or self._future.done()

    def now(self) -> Message:
        """The message; waits a millisecond or two where it is not ready."""
        return self._message if self._future is None else self._future.result()

    async def message(self) -> Message:
        """The message, as soon as it is ready."""
        return self._message if self._future is None else await asyncio.wrap_future(self._future)
