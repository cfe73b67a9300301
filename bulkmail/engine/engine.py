"""A run from its first session to its last: for each relay a bounded set of workers that grows as far as it accepts."""

from __future__ import annotations

import anyio

from bulkmail.engine.contracts import Ending
from bulkmail.engine.plan import Plan
from bulkmail.engine.relay_state import RelayState
from bulkmail.engine.run import Run
from bulkmail.engine.starter import Starter
from bulkmail.engine.worker import Worker
from bulkmail.model.timing import SILENCE_NOTED_AFTER
from bulkmail.model.units import say_duration


class Engine:
    """Delivers what is open in the outbox of `plan`; every outcome is durable before it is reported.

    `stop()` lets the transactions under way finish and begins no others.  Cancelling the task in `run()` aborts them;
    anyone who had been sent the end of a message without an answer is in doubt then.
    """

    def __init__(self, plan: Plan) -> None:
        self._run = Run(plan)

    def stop(self) -> None:
        """Begin nothing more.  May be called at any time, from the loop's own thread."""
        self._run.life.end(Ending(was_stopped=True))

    async def run(self) -> Ending:
        """Works until nothing is left that may go within the pace's `wait`, or until it is stopped.

        Raises `OutboxError` if what is known at the end cannot be made durable.
        """
        self._run.begin()
        try:
            async with anyio.create_task_group() as group:
                starter = Starter(group)
                for relay in self._run.relays:
                    relay.account.use(starter.start)
                    self._enlarge(relay, starter)
                group.start_soon(self._watch)
                await starter.until_done()
                group.cancel_scope.cancel()
        finally:
            await self._run.aclose()
        return self._run.conclude()

    async def _watch(self) -> None:
        """Says which relays do not answer although it is their turn: after 10 s, then once a minute."""
        run = self._run
        while True:
            await run.clock.sleep(SILENCE_NOTED_AFTER / 2)
            for relay in run.relays:
                if silence := relay.silence.to_tell(run.clock.monotonic(), moved_at=relay.moved_at):
                    run.tell(relay, f"{relay.name} has not answered for {say_duration(silence)}; waiting for it")

    def _enlarge(self, relay: RelayState, starter: Starter) -> None:
        """One more sender, if there may be one more: called for the first, and whenever a job was found."""
        run, health = self._run, relay.health
        if run.life.ending is None and not relay.is_out and relay.workers < (health.limit if health.is_proven else 1):
            relay.workers += 1
            starter.start(Worker(run, relay, enlarge=lambda: self._enlarge(relay, starter)).work)
