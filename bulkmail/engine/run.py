"""What the workers of one run share: the work, the rate, the relays, and how the run is to end."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field
from functools import lru_cache

import anyio

from bulkmail.engine.clock import Clock, SystemClock
from bulkmail.engine.contracts import Compose, Ending, Event, Notice, Observe, Outlet, Sign
from bulkmail.engine.explain import explain, explain_failing, explain_left_out, explain_rest
from bulkmail.engine.failing import gives_up, tell_wait
from bulkmail.engine.occupancy import Use
from bulkmail.engine.permission import Permission
from bulkmail.engine.relay_state import RelayState
from bulkmail.engine.sharing import Sharing
from bulkmail.engine.signing import Signer
from bulkmail.engine.throttling import Throttling
from bulkmail.engine.work import Lane, Work
from bulkmail.model.breaker import Breaker
from bulkmail.model.feedback import Feedback, ThrottleDecision
from bulkmail.model.hold import Hold
from bulkmail.model.job import Job
from bulkmail.model.lane import MailboxProviders
from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.model.outcome import Scope
from bulkmail.model.pace import Pace
from bulkmail.model.reply import Fault, Reply
from bulkmail.model.shaper import Shaper
from bulkmail.model.slowdown import Slowdown
from bulkmail.model.timing import OTHER_RELAY_CHECKED_AFTER, PROVIDER_SESSIONS_CHECKED_AFTER
from bulkmail.model.units import say_duration
from bulkmail.outbox.journal import Journal
from bulkmail.outbox.outbox import Outbox
from bulkmail.text import printable

LONGEST_NOTICE = 2_000  # characters


def _no_one(event: Event) -> None:
    """Watches nothing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to do and by what means.

    `serving` says which of `outlets`, by number, the jobs of each lane of the outbox may go through; None is one lane,
    0, through all.  `providers` names the provider of a lane that has but one; in the others every domain is what
    `lanes` says.  `shaper` is that of an earlier part of the same campaign.  `sign`, if not None, finishes what
    `compose` made, in a thread.  `ready` is awaited before a job is taken; `wants` are the ids of
    the only deliveries to send.  `breaker` watches in place of the usual one.  `planned_until` is the latest planned
    time of a delivery, wall-clock seconds, that the run waits for however short its `wait` is.
    """

    outbox: Outbox
    compose: Compose
    outlets: Sequence[Outlet]
    serving: Mapping[Lane, Sequence[int]] | None = None
    pace: Pace = field(default_factory=Pace)
    lanes: MailboxProviders = field(default_factory=MailboxProviders)
    providers: Mapping[Lane, str] = field(default_factory=dict)
    shaper: Shaper | None = None
    feedback: Feedback = field(default_factory=Feedback)
    sign: Sign | None = None
    observe: Observe = _no_one
    ready: Callable[[], Awaitable[None]] | None = None
    wants: Collection[int] | None = None
    breaker: Breaker | None = None
    planned_until: float = 0.0
    clock: Clock = field(default_factory=SystemClock)
    rng: Callable[[], float] = random.random


def make_shaper(lanes: MailboxProviders, pace: Pace, *, known: Iterable[Slowdown] = ()) -> Shaper:
    """Keeps the rates of a campaign and lowers them; `known` are the slowdowns of the past, in monotonic seconds."""
    return Shaper(
        lanes, rate=pace.rate, relay_backoff=pace.relay_backoff, provider_backoff=pace.provider_backoff, known=known
    )


class Run:
    """The shared state.  Every change is made in one plain call without an await, so that nothing needs a lock."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.clock = plan.clock
        self.journal = Journal(plan.outbox)
        self.shaper = plan.shaper or make_shaper(plan.lanes, plan.pace)
        self.throttling = Throttling(self.shaper, clock=plan.clock, rng=plan.rng, show=plan.observe, tell=self.tell)
        self.signer = Signer(plan.sign) if plan.sign is not None else None
        self.breaker = plan.breaker or Breaker(plan.pace.breakers, total=plan.outbox.tally().eligible)
        self._lane_of = lru_cache(maxsize=65_536)(plan.lanes.of)
        self.relays = [
            RelayState(
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
        serving = plan.serving if plan.serving is not None else {0: tuple(range(len(self.relays)))}
        self.work = Work(plan.outbox, lanes=serving, limit=plan.pace.limit, wants=plan.wants)
        self.sharing = Sharing(self.relays, serving)
        self.has_several = len(self.relays) > 1
        self.is_alone = not self.has_several and len(serving) == 1  # one relay, one lane: no one to reckon with
        self.is_plain = (  # anyone who may go needs to ask no one but relay and account
            self.is_alone and plan.sign is None and plan.ready is None and not plan.outbox.has_copies
        )
        self._only = plan.providers.get(next(iter(serving), 0), "")
        self.unsettled = 0  # jobs in hand whose outcome is in the journal and not durable yet
        self.invalid_rows: set[int] = set()  # found to be so in this run
        self.ending: Ending | None = None
        self._wake = anyio.Event()
        self._openings: set[anyio.CancelScope] = set()
        self._rests: dict[RelayState, Hold] = {}  # for which no one waits in this run
        self._reported: Hold | None = None

    def begin(self) -> None:
        """Leaves alone what asked for that in an earlier run, for longer than this one waits."""
        now = self.clock.monotonic()
        for relay in self.relays:
            known = self.shaper.slowdown(relay.name, "", now)
            until = 0.0 if known is None else self.clock.now() + known.until - now
            if known is not None and not self.waits_until(until):
                self.leave_out_until(relay, Hold(until, f"{relay.name} says: {known.words}"))

    async def aclose(self) -> None:
        """Writes down what is not written yet.  Raises `OutboxError`."""
        if self.signer is not None:
            self.signer.close()
        try:
            await self.journal.aclose()
        finally:
            for relay in self.relays:
                await relay.permission.settle()

    # -- jobs

    def next_job(self, relay: RelayState, use: Use) -> Job | None:
        """A job that `relay` may have now, for the session that is used so."""
        if not relay.permission.may_begin():
            return None
        now = self.clock.monotonic()
        self.work.bring_back(now)
        may_go = None if self.is_alone else lambda lane: self._may_go(lane, relay, use, now)
        while (job := self.work.next(self.clock.now(), may_go=may_go)) is not None:
            lane = self.lane_of(job)
            wait = self._held(lane, relay, use, now)
            if wait <= 0:
                return self._taken(job, lane, relay, use)
            if self.work.has_much_aside:
                self.work.take_back(job)
                return None
            self.work.set_aside(job, now + wait)
        return None

    def next_copy(self, job: Job, relay: RelayState, use: Use) -> Job | None:
        """A copy of `job`, which `relay` has: another forward path of its row that may go with it."""
        if not relay.permission.take():
            return None
        copy = self.work.next_copy(job)
        if copy is None:
            relay.permission.put_back()
            return None
        relay.permission.began(copy.delivery.id)
        return self._taken(copy, self.lane_of(copy), relay, use)

    def lane_of_path(self, path: str) -> str:
        """As `lane_of()`, where there is one lane of the outbox."""
        return self._only or self._lane_of(path.rpartition("@")[2])

    def lane_of(self, job: Job) -> str:
        """The name of the provider of a job that is out, or its domain."""
        return self._name_of(self.work.lane_of(job), job)

    def _name_of(self, number: Lane, job: Job) -> str:
        return self.plan.providers.get(number) or self._lane_of(job.delivery.forward_path.rpartition("@")[2])

    def _may_go(self, number: Lane, relay: RelayState, use: Use, now: float) -> bool:
        """Whether `relay` may take the next job of that lane of the outbox."""
        if not self.sharing.may_take(relay, number, now):
            return False
        provider = self.plan.providers.get(number)
        return not provider or self._held(provider, relay, use, now) <= 0

    def _held(self, lane: str, relay: RelayState, use: Use, now: float) -> float:
        """Seconds for which no message of `lane` goes over that session; 0 for one that may go."""
        wait = self.shaper.provider_wait(relay.name, lane, now)
        if wait > 0:
            return wait
        has_room = relay.occupancy.has_room(
            lane,
            use,
            sessions=self.shaper.provider_connections(relay.name, lane),
            messages=self.shaper.messages_per_session(lane),
        )
        return 0.0 if has_room else PROVIDER_SESSIONS_CHECKED_AFTER

    def held_for(self, relay: RelayState) -> tuple[float, bool]:
        """Seconds until something may go that only its lane holds back, or another relay; infinity for nothing.

        With it, whether that is because the lane wants to be left alone, and not because its turn comes then.
        """
        now, shaper = self.clock.monotonic(), self.shaper
        aside = self.work.bring_back(now)
        held, rests = math.inf, False
        if aside is not None and (first := self.work.next_aside) is not None:
            held = max(0.0, aside - now)
            rests = shaper.is_left_alone(relay.name, self._name_of(*first), now)
        if self.is_alone:
            return held, rests
        for number in self.work.lanes_with_some(self.clock.now(), among=self.serves(relay)):
            provider = self.plan.providers.get(number)
            # Without a wait another relay comes first, or as many sessions as may be are busy with it.
            wait = (shaper.provider_wait(relay.name, provider, now) if provider else 0.0) or OTHER_RELAY_CHECKED_AFTER
            if wait < held:
                held, rests = wait, bool(provider and shaper.is_left_alone(relay.name, provider, now))
        return held, rests

    def _taken(self, job: Job, lane: str, relay: RelayState, use: Use) -> Job:
        now = self.clock.monotonic()
        if not self.is_alone and self.sharing.took(relay, self.work.lane_of(job), now):
            self.nudge()
        relay.occupancy.begin(job.delivery.id, lane, use, messages=self.shaper.messages_per_session(lane))
        relay.in_hand += 1
        relay.moved_at = now
        return job

    def take_back(self, job: Job, relay: RelayState) -> None:
        """Nothing was attempted: it is the next to go, through whichever relay may have it."""
        if not self.is_alone:
            self.sharing.gave_back(relay, self.work.lane_of(job))
        relay.in_hand -= 1
        relay.occupancy.end(job.delivery.id, came_back=True)
        relay.permission.not_attempted(job.delivery.id)
        self.work.take_back(job)

    def settled(self, delivery_id: int, relay: RelayState, *, due_at: float | None = None) -> None:
        """What became of it is durable; with `due_at` it comes again."""
        relay.in_hand -= 1
        relay.moved_at = self.clock.monotonic()
        if relay.occupancy.uncounted.pop(delivery_id, None) is None:
            relay.occupancy.end(delivery_id)
        if not relay.permission.is_free:
            relay.permission.attempted(delivery_id)
        self.work.settled(delivery_id, due_at=due_at)

    def serves(self, relay: RelayState) -> Callable[[Lane], bool]:
        """Which lanes `relay` has to do with."""
        return lambda lane: self.sharing.serves(relay, lane)

    def is_to_yield(self, job: Job, relay: RelayState) -> bool:
        """Whether `relay`, which cannot go on with it now, leaves the job to another relay."""
        return self.has_several and self.sharing.has_others(relay, self.work.lane_of(job))

    # -- relays

    def record_success(self, relay: RelayState) -> None:
        """The relay dealt with a message, whatever it thought of it."""
        if relay.is_reported:
            relay.is_reported = False
            self.tell(relay, f"{relay.name} takes mail again")
        relay.health.record_success()
        if relay.is_on_trial:
            relay.is_on_trial = False
            self.nudge()

    def throttle(self, decision: ThrottleDecision, event: Reply | Fault, relay: RelayState, lane: str) -> bool:
        """Does what a complaint asks for: slower, fewer sessions, a rest; False when it is no such complaint."""
        if not self.throttling.throttle(decision, event, relay, lane):
            return False
        if decision.verdict.scope is Scope.RELAY:
            self._leave_out_if_long(relay, self.shaper.relay_rest(relay.name, self.clock.monotonic()), event)
        self.nudge()
        return True

    def _leave_out_if_long(self, relay: RelayState, rest: float, event: Reply | Fault) -> None:
        if not self.waits_until(self.clock.now() + rest):
            self.leave_out_until(relay, Hold(self.clock.now() + rest, f"{relay.name} says: {event}"))

    def record_failure(self, relay: RelayState, event: Reply | Fault, *, asked: float = 0.0) -> None:
        """The relay failed: it is left alone for a while, or for good when patience has ended.

        `asked` is for how many seconds it wants that itself, 0 when it did not say.
        """
        now, health = self.clock.monotonic(), relay.health
        # A session that ends is nothing to speak of while new ones are to be had.
        if self.has_several and not relay.is_reported and (health.is_failing or not health.open):
            relay.is_reported = True
            self.tell(relay, explain_failing(event, relay=relay.name, feedback=self.plan.feedback))
        relay.failure = event
        health.record_failure(now, jitter=self.plan.rng(), asked=asked)
        if asked:
            self._leave_out_if_long(relay, health.resume_at - now, event)
        if not gives_up(self, relay):
            tell_wait(self, relay)
        self.nudge()

    def others_are_able(self, relay: RelayState, now: float) -> bool:
        """Whether another relay takes what `relay` does not."""
        return any(other.is_able(now) for other in self.relays if other is not relay)

    def leave_out(self, relay: RelayState, event: Reply | Fault, *, patience: float | None = None) -> None:
        """Nothing more goes through `relay`.  The run ends if it was the last, else the others go on."""
        if relay.is_out:
            return
        feedback = self.plan.feedback
        relay.error = explain(event, relay=relay.name, feedback=feedback, patience=patience)
        if all(other.is_out for other in self.relays):
            self.end(Ending(relay.error))
            return
        self.tell(relay, explain_left_out(event, relay=relay.name, feedback=feedback, patience=patience))
        self.nudge()

    def tell(self, relay: RelayState, text: str) -> None:
        """Tells anyone who looks after `relay` what it should know."""
        self.plan.observe(Notice(printable(text, LONGEST_NOTICE), relay.name))

    def give_up(self, relay: RelayState, event: Reply | Fault) -> None:
        """No one answers at the very first try: more likely something is misspelt than all are busy."""
        self.end(Ending(explain(event, relay=relay.name, feedback=self.plan.feedback)))

    def has_no_answer(self) -> bool:
        """Whether no relay has ever been reached, and all that are left have failed."""
        left = [relay for relay in self.relays if not relay.is_out]
        return all(relay.health.is_failing and not relay.health.is_proven for relay in left)

    # -- pauses

    @property
    def has_plan(self) -> bool:
        """Whether a planned time is still to come."""
        return self.plan.planned_until > self.clock.now()

    def waits_until(self, at: float) -> bool:
        """Whether this run waits for what comes at `at`, wall-clock seconds: its `wait` begins after the last planned
        time, since that is no retry.
        """
        return at - max(self.clock.now(), self.plan.planned_until) <= self.plan.pace.wait

    def pause_account(self, relay: RelayState, seconds: float, why: str) -> None:
        """The provider says that a quota of the account is used up: `relay` is left alone for this many seconds.

        Later runs are notified of it.  Other relays go on; without any the run waits, or ends with everyone still open.
        """
        if not relay.permission.pause(seconds, why):
            self.leave_out_until(relay, Hold(self.clock.now() + seconds, why))
        elif self.has_several:
            self.tell(relay, f"{relay.name} is left alone for {say_duration(seconds)}, because {why}")
        self.nudge()

    def leave_out_until(self, relay: RelayState, rest: Hold) -> None:
        """Nothing more goes through `relay` in this run, because of what will be over one day."""
        if relay.is_out:
            return
        relay.error = explain_rest(rest, self.clock.now())
        if all(other.is_out for other in self.relays):
            self.end(Ending(relay.error))
        else:
            self.tell(relay, f"{relay.name} is left out from now on, because {rest.why}")

    def rests(self, relay: RelayState, rest: Hold) -> None:
        """`relay` is left alone for longer than this run waits."""
        self._rests[relay] = rest

    def tell_waiting(self, waiting: Hold) -> None:
        """Nothing goes on just now; the same is notified once."""
        if (
            self._reported is None
            or self._reported.why != waiting.why
            or abs(self._reported.until - waiting.until) >= 1
        ):
            self._reported = waiting
            self.plan.observe(waiting)

    def conclude(self) -> Ending:
        """How it ended.  Rows that no relay was left for are the fault of the one that they were meant for."""
        if self.ending is None:
            held = [rest for relay, rest in self._rests.items() if self.work.has_open(self.serves(relay))]
            if held:
                return Ending(explain_rest(min(held, key=lambda rest: rest.until), self.clock.now()))
            for lane, relay in self.sharing.stranded():
                if self.work.left_in(lane):
                    return Ending(relay.error)
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
        """Something changed: anyone who pauses looks again."""
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
