"""A run from its first session to its last: a bounded set of senders that grows while the relay bears it."""

from __future__ import annotations

import anyio
from anyio.abc import TaskGroup

from bulkmail.engine.ports import Ending
from bulkmail.engine.run import Plan, Run
from bulkmail.engine.sender import Sender


class Engine:
    """Delivers what is open in the outbox of `plan`; every outcome is durable before anybody is told.

    `stop()` lets the transactions under way finish and begins no others.  Cancelling the task in `run()` aborts them;
    whoever had been sent the end of a message without an answer is in doubt then.
    """

    def __init__(self, plan: Plan) -> None:
        self._run = Run(plan)

    def stop(self) -> None:
        """Begin nothing more.  May be called at any time, from the loop's own thread."""
        self._run.end(Ending(was_stopped=True))

    async def run(self) -> Ending:
        """Works until nothing is left that may go within the pace's `wait`, or until it is stopped.

        Raises `OutboxError` if what is known at the end cannot be made durable.
        """
        try:
            async with anyio.create_task_group() as group:
                self._enlarge(group)
        finally:
            await self._run.journal.aclose()
        return self._run.ending or Ending()

    def _enlarge(self, group: TaskGroup) -> None:
        """One more sender, if there may be one more: called for the first, and whenever a job was found."""
        run = self._run
        if run.ending is None and run.senders < (run.health.limit if run.health.is_proven else 1):
            run.senders += 1
            group.start_soon(Sender(run, enlarge=lambda: self._enlarge(group)).work)
