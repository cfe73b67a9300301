"""What the senders of one run share: the work, the rate, the relays, and how the run is to end."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field
from functools import lru_cache

import anyio

from bulkmail.engine.channel import Channel
from bulkmail.engine.clock import Clock, SystemClock
from bulkmail.engine.complaints import Complaints
from bulkmail.engine.contracts import Compose, Ending, Event, Notice, Observe, Outlet, Rest, Sign, Store, Waiting
from bulkmail.engine.explain import explain, explain_failing, explain_left_out, explain_rest
from bulkmail.engine.failing import gives_up, tell_wait
from bulkmail.engine.journal import Journal
from bulkmail.engine.occupancy import Use
from bulkmail.engine.permission import Permission
from bulkmail.engine.sharing import Sharing
from bulkmail.engine.signing import Signer
from bulkmail.engine.work import Lane, Work
from bulkmail.model.breaker import Breaker
from bulkmail.model.errors import OutboxError
from bulkmail.model.feedback import Feedback, Heeding
from bulkmail.model.job import Job
from bulkmail.model.lane import Lanes
from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.model.pace import Pace
from bulkmail.model.printing import printable
from bulkmail.model.reply import Fault, Reply
from bulkmail.model.shaper import Shaper
from bulkmail.model.slowdown import Slowdown
from bulkmail.model.units import say_duration
from bulkmail.model.verdict import Scope

LONGEST_NOTICE = 2_000  # characters
SOON = 0.05  # seconds after which a lane is looked at again that has as many sessions as it may
HELD = 1.0  # seconds after which a sender that others come before looks again whether they still do


def _nobody(event: Event) -> None:
    """Watches nothing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to do and by what means.

    `serving` says which of `outlets`, by number, the jobs of each lane of `store` may go through; None is one lane,
    0, through all.  `providers` names the provider of a lane that has but one; in the others every domain is what
    `lanes` says.  `shaper` is that of an earlier part of the same campaign.  `sign`, if not None, finishes what
    `compose` made, in a thread.  `ready` is awaited before a job is taken.  `breaker` watches in place of the usual
    one.  `planned_until` is the latest planned time of a delivery, wall-clock seconds, that the run waits for however
    short its `wait` is.
    """

    store: Store
    compose: Compose
    outlets: Sequence[Outlet]
    serving: Mapping[Lane, Sequence[int]] | None = None
    pace: Pace = field(default_factory=Pace)
    lanes: Lanes = field(default_factory=Lanes)
    providers: Mapping[Lane, str] = field(default_factory=dict)
    shaper: Shaper | None = None
    feedback: Feedback = field(default_factory=Feedback)
    sign: Sign | None = None
    observe: Observe = _nobody
    ready: Callable[[], Awaitable[None]] | None = None
    breaker: Breaker | None = None
    planned_until: float = 0.0
    clock: Clock = field(default_factory=SystemClock)
    dice: Callable[[], float] = random.random


def as_outbox_error(error: BaseException) -> OutboxError:
    """What to end a run with when its store fails."""
    if isinstance(error, OutboxError):
        return error
    if isinstance(error, MemoryError):  # which has no words of its own
        return OutboxError("the outbox failed: there is not enough memory", hint="what was recorded is safe")
    return OutboxError(f"the outbox failed: {error}")


def make_shaper(lanes: Lanes, pace: Pace, *, known: Iterable[Slowdown] = ()) -> Shaper:
    """What keeps the rates of a campaign and heeds complaints; `known` are those of the past, in monotonic seconds."""
    return Shaper(lanes, rate=pace.rate, relay_backoff=pace.relay_backoff, lane_backoff=pace.lane_backoff, known=known)


class Run:
    """The shared state.  Every change is made in one plain call without an await, so that nothing needs a lock."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.clock = plan.clock
        self.journal = Journal(plan.store)
        self.shaper = plan.shaper or make_shaper(plan.lanes, plan.pace)
        self.complaints = Complaints(self.shaper, clock=plan.clock, dice=plan.dice, show=plan.observe, tell=self.tell)
        self.signer = Signer(plan.sign) if plan.sign is not None else None
        self.breaker = plan.breaker or Breaker(plan.pace.breakers, total=plan.store.eligible)
        self._lane_of = lru_cache(maxsize=65_536)(plan.lanes.of)
        self.channels = [
            Channel(
                outlet,
                pace=plan.pace,
                shaper=self.shaper,
                clock=plan.clock,
                pause=self.pause,
                permission=Permission(
                    outlet.limits,
                    clock=plan.clock,
                    changed=self.nudge,
                    failed=lambda error: self.end(Ending(error)),
                ),
            )
            for outlet in plan.outlets
        ]
        serving = plan.serving if plan.serving is not None else {0: tuple(range(len(self.channels)))}
        self.work = Work(plan.store, lanes=serving, limit=plan.pace.limit, changed=self.nudge, failed=self.store_failed)
        self.sharing = Sharing(self.channels, serving)
        self.has_several = len(self.channels) > 1
        self.is_alone = not self.has_several and len(serving) == 1  # one relay, one lane: nobody to reckon with
        self.is_plain = (  # whoever may go needs to ask nobody but relay and account
            self.is_alone and plan.sign is None and plan.ready is None and not plan.store.has_copies
        )
        self._only = plan.providers.get(next(iter(serving), 0), "")
        self.unsettled = 0  # jobs in hand whose outcome is in the journal and not durable yet
        self.ending: Ending | None = None
        self._wake = anyio.Event()
        self._openings: set[anyio.CancelScope] = set()
        self._rests: dict[Channel, Rest] = {}  # for which nobody waits in this run
        self._told: Waiting | None = None

    def begin(self) -> None:
        """Leaves alone what asked for that in an earlier run, for longer than this one waits."""
        now = self.clock.monotonic()
        for channel in self.channels:
            known = self.shaper.slowdown(channel.name, "", now)
            until = 0.0 if known is None else self.clock.now() + known.until - now
            if known is not None and not self.waits_until(until):
                self.leave_out_until(channel, Rest(until, f"{channel.name} says: {known.words}"))

    async def aclose(self) -> None:
        """Writes down what is not written yet.  Raises `OutboxError`."""
        if self.signer is not None:
            self.signer.close()
        try:
            await self.journal.aclose()
            await self.plan.store.aclose()
        finally:
            for channel in self.channels:
                await channel.permission.settle()

    # -- jobs

    def next_job(self, channel: Channel, use: Use) -> Job | None:
        """A job that `channel` may have now, for the session that is used so."""
        if not channel.permission.may_begin():
            return None
        now = self.clock.monotonic()
        self.work.bring_back(now)
        may_go = None if self.is_alone else lambda lane: self._may_go(lane, channel, use, now)
        while (job := self.work.next(self.clock.now(), may_go=may_go)) is not None:
            lane = self.lane_of(job)
            wait = self._held(lane, channel, use, now)
            if wait <= 0:
                return self._taken(job, lane, channel, use)
            if self.work.has_much_aside:
                self.work.take_back(job)
                return None
            self.work.set_aside(job, now + wait)
        return None

    def next_copy(self, job: Job, channel: Channel, use: Use) -> Job | None:
        """A copy of `job`, which `channel` has: another forward path of its row that may go with it."""
        if not channel.permission.take():
            return None
        copy = self.work.next_copy(job)
        if copy is None:
            channel.permission.put_back()
            return None
        channel.permission.began(copy.delivery.id)
        return self._taken(copy, self.lane_of(copy), channel, use)

    def lane_of_path(self, path: str) -> str:
        """As `lane_of()`, where there is one lane of the outbox."""
        return self._only or self._lane_of(path.rpartition("@")[2])

    def lane_of(self, job: Job) -> str:
        """The name of the provider of a job that is out, or its domain."""
        return self._name_of(self.work.lane_of(job), job)

    def _name_of(self, number: Lane, job: Job) -> str:
        return self.plan.providers.get(number) or self._lane_of(job.delivery.forward_path.rpartition("@")[2])

    def _may_go(self, number: Lane, channel: Channel, use: Use, now: float) -> bool:
        """Whether `channel` may take the next job of that lane of the outbox."""
        if not self.sharing.may_take(channel, number, now):
            return False
        provider = self.plan.providers.get(number)
        return not provider or self._held(provider, channel, use, now) <= 0

    def _held(self, lane: str, channel: Channel, use: Use, now: float) -> float:
        """Seconds for which no letter of `lane` goes over that session; 0 for one that may go."""
        wait = self.shaper.lane_wait(channel.name, lane, now)
        if wait > 0:
            return wait
        has_room = channel.occupancy.has_room(
            lane,
            use,
            sessions=self.shaper.lane_connections(channel.name, lane),
            messages=self.shaper.messages_per_session(lane),
        )
        return 0.0 if has_room else SOON

    def held_for(self, channel: Channel) -> tuple[float, bool]:
        """Seconds until something may go that only its lane holds back, or another relay; infinity for nothing.

        With it, whether that is because the lane wants to be left alone, and not because its turn comes then.
        """
        now, shaper = self.clock.monotonic(), self.shaper
        aside = self.work.bring_back(now)
        held, rests = math.inf, False
        if aside is not None and (first := self.work.next_aside) is not None:
            held = max(0.0, aside - now)
            rests = shaper.is_left_alone(channel.name, self._name_of(*first), now)
        if self.is_alone:
            return held, rests
        for number in self.work.lanes_with_some(self.clock.now(), among=self.serves(channel)):
            provider = self.plan.providers.get(number)
            # Without a wait another relay comes first, or as many sessions as may be are busy with it.
            wait = (shaper.lane_wait(channel.name, provider, now) if provider else 0.0) or HELD
            if wait < held:
                held, rests = wait, bool(provider and shaper.is_left_alone(channel.name, provider, now))
        return held, rests

    def _taken(self, job: Job, lane: str, channel: Channel, use: Use) -> Job:
        now = self.clock.monotonic()
        if not self.is_alone and self.sharing.took(channel, self.work.lane_of(job), now):
            self.nudge()
        channel.occupancy.begin(job.delivery.id, lane, use, messages=self.shaper.messages_per_session(lane))
        channel.in_hand += 1
        channel.moved_at = now
        return job

    def take_back(self, job: Job, channel: Channel) -> None:
        """Nothing was attempted: it is the next to go, through whichever relay may have it."""
        if not self.is_alone:
            self.sharing.gave_back(channel, self.work.lane_of(job))
        channel.in_hand -= 1
        channel.occupancy.end(job.delivery.id, came_back=True)
        channel.permission.not_attempted(job.delivery.id)
        self.work.take_back(job)

    def settled(self, delivery_id: int, channel: Channel, *, due_at: float | None = None) -> None:
        """What became of it is durable; with `due_at` it comes again."""
        channel.in_hand -= 1
        channel.moved_at = self.clock.monotonic()
        if channel.occupancy.uncounted.pop(delivery_id, None) is None:
            channel.occupancy.end(delivery_id)
        if not channel.permission.is_free:
            channel.permission.attempted(delivery_id)
        self.work.settled(delivery_id, due_at=due_at)

    def lost(self, job: Job, channel: Channel) -> None:
        """Its delivery is not this run's any more."""
        if not self.is_alone:
            self.sharing.gave_back(channel, self.work.lane_of(job))
        channel.in_hand -= 1
        channel.occupancy.end(job.delivery.id, came_back=True)
        channel.permission.not_attempted(job.delivery.id)
        self.work.lost(job.delivery.id)
        self.nudge()

    def store_failed(self, error: BaseException) -> None:
        """Nothing can be read or recorded any more."""
        self.end(Ending(as_outbox_error(error)))

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
            self.tell(channel, f"{channel.name} takes mail again")
        channel.health.fine()
        if channel.is_on_trial:
            channel.is_on_trial = False
            self.nudge()

    def heed(self, heeding: Heeding, event: Reply | Fault, channel: Channel, lane: str) -> bool:
        """Does what a complaint asks for: slower, fewer sessions, a rest; False when it is no such complaint."""
        if not self.complaints.heed(heeding, event, channel, lane):
            return False
        if heeding.verdict.scope is Scope.RELAY:
            self._leave_out_if_long(channel, self.shaper.relay_rest(channel.name, self.clock.monotonic()), event)
        self.nudge()
        return True

    def _leave_out_if_long(self, channel: Channel, rest: float, event: Reply | Fault) -> None:
        if not self.waits_until(self.clock.now() + rest):
            self.leave_out_until(channel, Rest(self.clock.now() + rest, f"{channel.name} says: {event}"))

    def trouble(self, channel: Channel, event: Reply | Fault, *, asked: float = 0.0) -> None:
        """The relay failed: it is left alone for a while, or for good when patience has ended.

        `asked` is for how many seconds it wants that itself, 0 when it did not say.
        """
        now, health = self.clock.monotonic(), channel.health
        # A session that ends is nothing to speak of while new ones are to be had.
        if self.has_several and not channel.is_told and (health.is_failing or not health.open):
            channel.is_told = True
            self.tell(channel, explain_failing(event, relay=channel.name, feedback=self.plan.feedback))
        channel.failure = event
        health.trouble(now, dice=self.plan.dice(), asked=asked)
        if asked:
            self._leave_out_if_long(channel, health.resume_at - now, event)
        if not gives_up(self, channel):
            tell_wait(self, channel)
        self.nudge()

    def others_are_able(self, channel: Channel, now: float) -> bool:
        """Whether another relay takes what `channel` does not."""
        return any(other.is_able(now) for other in self.channels if other is not channel)

    def leave_out(self, channel: Channel, event: Reply | Fault, *, patience: float | None = None) -> None:
        """Nothing more goes through `channel`.  The run ends if it was the last, else the others go on."""
        if channel.is_out:
            return
        feedback = self.plan.feedback
        channel.error = explain(event, relay=channel.name, feedback=feedback, patience=patience)
        if all(other.is_out for other in self.channels):
            self.end(Ending(channel.error))
            return
        self.tell(channel, explain_left_out(event, relay=channel.name, feedback=feedback, patience=patience))
        self.nudge()

    def tell(self, channel: Channel, text: str) -> None:
        """Tells whoever looks after `channel` what it should know."""
        self.plan.observe(Notice(printable(text, LONGEST_NOTICE), channel.name))

    def give_up(self, channel: Channel, event: Reply | Fault) -> None:
        """Nobody answers at the very first try: more likely something is misspelt than all are busy."""
        self.end(Ending(explain(event, relay=channel.name, feedback=self.plan.feedback)))

    def nobody_answers(self) -> bool:
        """Whether no relay has ever been reached, and all that are left have failed."""
        left = [channel for channel in self.channels if not channel.is_out]
        return all(channel.health.is_failing and not channel.health.is_proven for channel in left)

    # -- rests

    @property
    def has_plan(self) -> bool:
        """Whether a planned time is still to come."""
        return self.plan.planned_until > self.clock.now()

    def waits_until(self, at: float) -> bool:
        """Whether this run waits for what comes at `at`, wall-clock seconds: its `wait` begins after the last planned
        time, since that is no retry.
        """
        return at - max(self.clock.now(), self.plan.planned_until) <= self.plan.pace.wait

    def pause_account(self, channel: Channel, seconds: float, why: str) -> None:
        """The provider says that a quota of the account is used up: `channel` is left alone for so many seconds.

        Later runs are told of it.  Other relays go on; without any the run waits, or ends with everybody still open.
        """
        if not channel.permission.pause(seconds, why):
            self.leave_out_until(channel, Rest(self.clock.now() + seconds, why))
        elif self.has_several:
            self.tell(channel, f"{channel.name} is left alone for {say_duration(seconds)}, because {why}")
        self.nudge()

    def leave_out_until(self, channel: Channel, rest: Rest) -> None:
        """Nothing more goes through `channel` in this run, because of what will be over one day."""
        if channel.is_out:
            return
        channel.error = explain_rest(rest, self.clock.now())
        if all(other.is_out for other in self.channels):
            self.end(Ending(channel.error))
        else:
            self.tell(channel, f"{channel.name} is left out from now on, because {rest.why}")

    def rests(self, channel: Channel, rest: Rest) -> None:
        """`channel` is left alone for longer than this run waits."""
        self._rests[channel] = rest

    def tell_waiting(self, waiting: Waiting) -> None:
        """Nothing goes on just now; the same is told once."""
        if self._told is None or self._told.why != waiting.why or abs(self._told.until - waiting.until) >= 1:
            self._told = waiting
            self.plan.observe(waiting)

    async def conclude(self) -> Ending:
        """How it ended.  Rows that no relay was left for are the fault of the one that they were meant for."""
        if self.ending is None:
            held = [rest for channel, rest in self._rests.items() if await self.work.has_open(self.serves(channel))]
            if held:
                return Ending(explain_rest(min(held, key=lambda rest: rest.until), self.clock.now()))
            for lane, channel in self.sharing.stranded():
                if await self.work.left_in(lane):
                    return Ending(channel.error)
        return self.ending or Ending()

    # -- the end, and waiting

    def end(self, ending: Ending) -> None:
        """Begin nothing more.  The first reason stands, except that an error outranks the user's word."""
        if self.ending is None or (ending.error and not self.ending.error):
            self.ending = ending
        for opening in self._openings:
            opening.cancel()
        self.nudge()

    @contextmanager
    def opening(self) -> Iterator[anyio.CancelScope]:
        """Around the opening of a session, which carries no message yet: cancelled when the run ends.

        A server that is silent would otherwise hold the end up for five minutes (RFC 5321 §4.5.3.2.1).
        """
        with anyio.CancelScope() as scope:
            self._openings.add(scope)
            try:
                yield scope
            finally:
                self._openings.remove(scope)

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
