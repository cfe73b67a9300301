"""What the senders of one run share: the work, the rate, the relays, and how the run is to end."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import anyio

from bulkmail.engine.channel import Channel
from bulkmail.engine.clock import Clock, SystemClock
from bulkmail.engine.explain import explain, explain_failing, explain_left_out
from bulkmail.engine.ports import Compose, Ending, Event, Notice, Observe, Outlet
from bulkmail.engine.sharing import Sharing
from bulkmail.engine.turnstile import Meter
from bulkmail.engine.work import Lane, Work
from bulkmail.model.pace import Pace
from bulkmail.model.reply import Fault, Reply, printable
from bulkmail.outbox.journal import Journal
from bulkmail.outbox.outbox import Job, Outbox

LONGEST_NOTICE = 2_000  # characters
HELD = 1.0  # seconds after which a sender that others come before looks again whether they still do


def _nobody(event: Event) -> None:
    """Watches nothing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to do and by what means.

    `serving` says which of `outlets`, by number, the jobs of each lane of the outbox may go through; None is one lane,
    0, through all.  `ready` is awaited before a job is taken; `wants` chooses the jobs.
    """

    outbox: Outbox
    compose: Compose
    outlets: Sequence[Outlet]
    serving: Mapping[Lane, Sequence[int]] | None = None
    pace: Pace = field(default_factory=Pace)
    observe: Observe = _nobody
    ready: Callable[[], Awaitable[None]] | None = None
    wants: Callable[[Job], bool] | None = None
    clock: Clock = field(default_factory=SystemClock)
    dice: Callable[[], float] = random.random


class Run:
    """The shared state.  Every change is made in one plain call without an await, so that nothing needs a lock."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.clock = plan.clock
        self.journal = Journal(plan.outbox)
        rate = Meter(plan.pace.rate) if plan.pace.rate else None  # of the campaign, through all relays together
        self.channels = [
            Channel(outlet, pace=plan.pace, campaign=rate, clock=plan.clock, pause=self.pause)
            for outlet in plan.outlets
        ]
        serving = plan.serving if plan.serving is not None else {0: tuple(range(len(self.channels)))}
        self.work = Work(plan.outbox, lanes=serving, limit=plan.pace.limit, wants=plan.wants)
        self.sharing = Sharing(self.channels, serving)
        self.has_several = len(self.channels) > 1
        self.is_alone = not self.has_several and len(serving) == 1  # one relay, one lane: nobody to reckon with
        self.invalid_rows: set[int] = set()  # found to be so in this run
        self.ending: Ending | None = None
        self._wake = anyio.Event()

    # -- jobs

    def next_job(self, channel: Channel) -> Job | None:
        """A job that `channel` may have now."""
        if self.is_alone:
            job = self.work.next(self.clock.now())
        else:
            now = self.clock.monotonic()
            job = self.work.next(self.clock.now(), may_go=lambda lane: self.sharing.may_take(channel, lane, now))
            if job is not None and self.sharing.took(channel, self.work.lane_of(job), now):
                self.nudge()
        return self._in_hand(job, channel)

    def next_copy(self, job: Job, channel: Channel) -> Job | None:
        """A copy of `job`, which `channel` has: another forward path of its row that may go with it."""
        copy = self.work.next_copy(job)
        if copy is not None and not self.is_alone:
            self.sharing.took(channel, self.work.lane_of(copy), self.clock.monotonic())
        return self._in_hand(copy, channel)

    def _in_hand(self, job: Job | None, channel: Channel) -> Job | None:
        if job is not None:
            channel.in_hand += 1
            channel.moved_at = self.clock.monotonic()
        return job

    def take_back(self, job: Job, channel: Channel) -> None:
        """Nothing was attempted: it is the next to go, through whichever relay may have it."""
        if not self.is_alone:
            self.sharing.gave_back(channel, self.work.lane_of(job))
        channel.in_hand -= 1
        self.work.take_back(job)

    def settled(self, delivery_id: int, channel: Channel, *, due_at: float | None = None) -> None:
        """What became of it is durable; with `due_at` it comes again."""
        channel.in_hand -= 1
        channel.moved_at = self.clock.monotonic()
        self.work.settled(delivery_id, due_at=due_at)

    def serves(self, channel: Channel) -> Callable[[Lane], bool]:
        """Which lanes `channel` has to do with."""
        return lambda lane: self.sharing.serves(channel, lane)

    def is_to_yield(self, job: Job, channel: Channel) -> bool:
        """Whether `channel`, which cannot go on with it now, leaves the job to another relay."""
        return self.has_several and self.sharing.has_others(channel, self.work.lane_of(job))

    # -- relays

    def fine(self, channel: Channel) -> None:
        """The relay dealt with a message, whatever it thought of it."""
        if channel.is_told:
            channel.is_told = False
            self._tell(channel, f"{channel.name} takes mail again")
        channel.health.fine()

    def trouble(self, channel: Channel, event: Reply | Fault) -> None:
        """The relay failed: it is left alone for a while, or for good when patience has ended."""
        now, health = self.clock.monotonic(), channel.health
        # A session that ends is nothing to speak of while new ones are to be had.
        if self.has_several and not channel.is_told and (health.is_failing or not health.open):
            channel.is_told = True
            self._tell(channel, explain_failing(event, relay=channel.name))
        health.trouble(now, dice=self.plan.dice())
        # With others there to do its work it may be tried as long as they have any.
        if health.is_hopeless(now) and self.sharing.is_needed(channel, now):
            self.leave_out(channel, event, patience=self.plan.pace.patience)
        self.nudge()

    def ran_out(self, channel: Channel, event: Fault) -> None:
        """This computer gives no more connections, which is no fault of the relay: it goes on with those it has."""
        before = channel.health.limit
        channel.health.lower_limit()
        if channel.health.limit < before:
            self._tell(channel, f"{event}; the run goes on with {channel.health.limit}")

    def leave_out(self, channel: Channel, event: Reply | Fault, *, patience: float | None = None) -> None:
        """Nothing more goes through `channel`.  The run ends if it was the last, else the others go on."""
        if channel.is_out:
            return
        channel.error = explain(event, relay=channel.name, patience=patience)
        if all(other.is_out for other in self.channels):
            self.end(Ending(channel.error))
            return
        self._tell(channel, explain_left_out(event, relay=channel.name, patience=patience))
        self.nudge()

    def _tell(self, channel: Channel, text: str) -> None:
        self.plan.observe(Notice(printable(text, LONGEST_NOTICE), channel.name))

    def give_up(self, channel: Channel, event: Reply | Fault) -> None:
        """Nobody answers at the very first try: more likely something is misspelt than all are busy."""
        self.end(Ending(explain(event, relay=channel.name)))

    def nobody_answers(self) -> bool:
        """Whether no relay has ever been reached, and all that are left have failed."""
        left = [channel for channel in self.channels if not channel.is_out]
        return all(channel.health.is_failing and not channel.health.is_proven for channel in left)

    def conclude(self) -> Ending:
        """How it ended.  Rows that no relay was left for are the fault of the one that they were meant for."""
        if self.ending is None:
            for lane, channel in self.sharing.stranded():
                if self.work.left_in(lane):
                    return Ending(channel.error)
        return self.ending or Ending()

    # -- the end, and waiting

    def end(self, ending: Ending) -> None:
        """Begin nothing more.  The first reason stands, except that an error outranks the user's word."""
        if self.ending is None or (ending.error and not self.ending.error):
            self.ending = ending
        self.nudge()

    def nudge(self) -> None:
        """Something changed: whoever pauses looks again."""
        self._wake.set()
        self._wake = anyio.Event()

    async def pause(self, seconds: float) -> bool:
        """Returns after `seconds`, or sooner when something changed; False when the run is ending."""
        if self.ending is not None:
            return False
        async with anyio.create_task_group() as group:
            group.start_soon(self._alarm, seconds, group.cancel_scope)
            await self._wake.wait()
            group.cancel_scope.cancel()
        return self.ending is None

    async def _alarm(self, seconds: float, scope: anyio.CancelScope) -> None:
        await self.clock.sleep(seconds)
        scope.cancel()
