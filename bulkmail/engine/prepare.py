"""Messages made ahead of the session that carries them, and signed in threads where that takes long."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor

from bulkmail.engine.clock import Clock
from bulkmail.engine.contracts import Compose, Sign
from bulkmail.engine.scheduler import Booking
from bulkmail.model.delivery import Message

THREADS = 2


class Prepared:
    """A booked delivery with its message, which is ready at once where there is nothing to wait for."""

    __slots__ = ("_future", "_message", "booking", "first_at")

    def __init__(self, booking: Booking, message: Message, first_at: float, future: Future[Message] | None) -> None:
        self.booking = booking
        self.first_at = first_at
        self._message = message
        self._future = future

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


class Preparer:
    """Makes the messages of a run.  A few threads sign them; signing releases the GIL."""

    def __init__(self, compose: Compose, sign: Sign | None, clock: Clock) -> None:
        self._compose = compose
        self._sign = sign
        self._clock = clock
        self._pool = None if sign is None else ThreadPoolExecutor(THREADS, thread_name_prefix="bulkmail-sign")

    @property
    def is_slow(self) -> bool:
        """Whether a message is better prepared while the one before is under way."""
        return self._pool is not None

    def prepare(self, booking: Booking, *, at_once: bool = False) -> Prepared:
        """The message of a delivery; signed by a thread meanwhile, unless `at_once`.  Raises `TemplateError`."""
        first_at = booking.job.delivery.first_at or self._clock.now()
        message = self._compose(booking.job, first_at)
        if self._sign is None or self._pool is None:
            return Prepared(booking, message, first_at, None)
        if at_once:
            return Prepared(booking, self._sign(message, first_at), first_at, None)
        return Prepared(booking, message, first_at, self._pool.submit(self._sign, message, first_at))

    def close(self) -> None:
        """Lets go of the threads; what is not begun is not signed any more."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
