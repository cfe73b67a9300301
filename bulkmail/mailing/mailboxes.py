"""Mailboxes that are read for as long as a server runs, each in a thread of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import anyio
from anyio import CapacityLimiter, to_thread

from bulkmail.mailbox.ports import MailSource, pause_after
from bulkmail.mailing.intake import Intake
from bulkmail.model.errors import BulkmailError
from bulkmail.model.lazy_dataclass import dataclass

log = logging.getLogger("bulkmail.mailing")

WAIT = 540.0  # seconds that one wait for mail lasts


@dataclass(slots=True)
class MailboxState:
    """How reading one mailbox goes: `read_at` is when all in it was last read (wall clock), None for never.

    `failures` counts all of them, `trouble` is the last one's reason, empty since it was read again.
    """

    name: str
    read_at: float | None = None
    failures: int = 0
    trouble: str = ""


class Mailboxes:
    """Reads `sources` as mail comes in, each with an intake from `make_intake`, until it is cancelled.

    A mailbox that fails is tried again later, and never ends the others or the server.  `told` gets a sentence when one
    begins to fail.
    """

    def __init__(
        self,
        sources: Sequence[MailSource],
        make_intake: Callable[[], Intake],
        *,
        told: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.states = [MailboxState(source.name) for source in sources]
        self._sources = sources
        self._make_intake = make_intake
        self._told = told

    async def run(self) -> None:
        """Until it is cancelled; a batch of mails that is being stored is finished first."""
        async with anyio.create_task_group() as group:
            for source, state in zip(self._sources, self.states, strict=True):
                group.start_soon(self._keep_reading, source, state)
            try:
                await anyio.sleep_forever()
            finally:  # a thread that waits for mail would be waited for
                for source in self._sources:
                    source.interrupt()

    async def _keep_reading(self, source: MailSource, state: MailboxState) -> None:
        limiter = CapacityLimiter(1)  # threads of its own: a wait takes minutes
        intake = self._make_intake()
        failures = 0
        while True:
            try:
                await to_thread.run_sync(intake.take, source, limiter=limiter)
                state.read_at, state.trouble, failures = time.time(), "", 0
                await to_thread.run_sync(source.wait, WAIT, limiter=limiter)
                continue
            except BulkmailError as error:
                trouble = str(error)
            except Exception as error:  # whatever one mailbox brings, the server goes on
                log.exception("a mailbox cannot be read", extra={"mailbox": source.name})
                trouble = f"{source.name}: {type(error).__name__}"
            failures += 1
            state.failures += 1
            state.trouble = trouble
            if failures == 1:
                self._told(f"{trouble}; it is tried again, and everything else goes on")
            await anyio.sleep(pause_after(failures))
