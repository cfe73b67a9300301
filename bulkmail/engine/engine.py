"""A run from its first session to its last: for each relay a bounded set of workers that grows as far as it accepts."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskGroup

from bulkmail.engine.contracts import Ending
from bulkmail.engine.plan import Plan
from bulkmail.engine.relay_state import RelayState
from bulkmail.engine.run import Run
from bulkmail.engine.worker import Worker
from bulkmail.model.quantities import say_duration
from bulkmail.model.timing import SILENCE_NOTED_AFTER

Task = Callable[[], Awaitable[object]]


class Starter:
    """Starts work in a task group from plain calls, also from those of a transport, which are made in no task.

    There a task group may not be asked: where sniffio is installed, anyio asks it which library is running, and sniffio
    knows only by the current task.
    """

    def __init__(self, group: TaskGroup) -> None:
        self._group = group
        self._waiting: deque[Task] = deque()
        self._open = 0  # waiting or running
        self._changed = anyio.Event()

    def start(self, work: Task) -> None:
        """`work()` begins soon, if the group is not cancelled before."""
        self._open += 1
        self._waiting.append(work)
        self._changed.set()

    async def until_done(self) -> None:
        """Starts what it is asked to, until all of it has ended."""
        while self._open:
            await self._changed.wait()
            self._changed = anyio.Event()
            while self._waiting:
                self._group.start_soon(self._see_through, self._waiting.popleft())

    async def _see_through(self, work: Task) -> None:
        try:
            await work()
        finally:
            self._open -= 1
            self._changed.set()


class Engine:
    """Delivers what is open in the store of `plan`; every outcome is durable before it is reported.

    `stop()` lets the transactions under way finish and begins no others.  Cancelling the task in `run()` aborts them;
    recipients whose message was sent to its end without a reply are in doubt then.
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
        return await self._run.conclude()

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
