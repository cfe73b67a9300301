"""What the engine is given and asks of its neighbours: clock, store, sessions, the plan of a run, and its observers."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import field
from typing import Protocol, TypeAlias, TypeVar

import anyio
from msgspec import Struct

from bulkmail.model.breaker import Breaker
from bulkmail.model.delivery import AttemptResult, Claim, Delivery, Job, Message, Written
from bulkmail.model.errors import BulkmailError
from bulkmail.model.lazy import dataclass
from bulkmail.model.pace import Pace
from bulkmail.model.rate import RateLimiter
from bulkmail.model.recipient import Recipient
from bulkmail.model.route import MailboxProviders, Route
from bulkmail.model.shaper import Feedback, Shaper, Slowdown
from bulkmail.model.tally import Tally
from bulkmail.model.timing import Hold
from bulkmail.smtp.connection import More

# -- The time that a run lives by, so that a test can be the one that turns it.


class Clock(Protocol):
    """`now` is wall-clock seconds, for what is stored; `monotonic` seconds are for what is waited for."""

    def now(self) -> float: ...
    def monotonic(self) -> float: ...
    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's own clocks."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


# -- What the engine asks of its neighbours and tells its observers.


T = TypeVar("T")
Answer: TypeAlias = T | asyncio.Future[T]
"""A plain value where the answer is at hand, or a future of the running loop.

SQLite on this machine answers at once, and a message must not pay for a task, a coroutine or a turn of the loop that it
does not need.  A store over a network answers later.  `isinstance(answer, asyncio.Future)` tells which.
"""

QueueKey = int
"""The number of a part of the work that has its own queue: what is due in another one never stands before it."""


class ClaimLost(Exception):
    """The store did not grant this mark or does not take this outcome: the delivery is not this run's any more."""


class Store(Protocol):
    """Where the deliveries of a run are: it hands them out, grants marks and keeps outcomes.

    A claimed delivery is handed out to no other process, and not again to this run, until its outcome or its
    invalidation has been answered, an entry about it was not granted, or the `epoch` has changed.  A store may lose
    claims at any time; then it grants no mark that depends on them.  Every answer may come later, and every call may
    raise `BulkmailError`, at once or in its future, when nothing can be read or recorded any more; from then on every
    `write()` does.
    """

    @property
    def eligible(self) -> int:
        """How many messages the run was about when sending began."""

    @property
    def has_copies(self) -> bool:
        """Whether some row goes to more than one address."""

    @property
    def epoch(self) -> int:
        """Changes when claims were lost: what was claimed before and is not under way is claimed again."""

    def claim(self, queue: int, *, limit: int, now: float) -> Answer[Claim]:
        """At most `limit` deliveries of `queue` that may be tried at `now` (wall clock).

        Deferred ones come first, by due time, then those never tried in the order of the input.
        """

    def give_back(self, ids: Collection[int]) -> None:
        """These were claimed and are not taken up: anybody may claim them."""

    def has_more(self, queue: int, *, besides: Collection[int]) -> bool:
        """Whether a delivery of `queue` that is neither claimed nor in `besides` may still be tried in this run.

        A plain answer, because a breaker has to judge in the instant of an outcome.  A store that would have to ask
        says True: then a breaker or a strike waits for more, and nothing is refused for it.
        """

    def count_open(self, queue: int) -> Answer[int]:
        """How many deliveries of `queue` sending goes on with."""

    def tally(self) -> Answer[Tally]:
        """Rows by status."""

    def write(self, entries: Sequence[Written]) -> Answer[Collection[int]]:
        """Records the entries in their order; the answer comes when they are durable.

        It names the deliveries whose mark was granted or whose outcome or invalidation was taken.  The end of a message
        must not be written unless its mark is among them.  Calls may follow each other before the first is answered;
        answers come in the order of the calls.  An outcome after a granted mark is always taken, however late.
        """

    async def aclose(self) -> None:
        """Gives back what is claimed and not marked.  Everything that was written has been answered."""


class Connection(Protocol):
    """One open session with a relay, or what stands for one."""

    @property
    def usable(self) -> bool: ...
    @property
    def transactions(self) -> int: ...
    @property
    def closed_because(self) -> str: ...
    @property
    def delivers(self) -> bool:
        """Whether what it accepts goes to recipients, as far as is known."""

    async def carry(self, more: More) -> None: ...
    async def quit(self) -> None: ...
    def abort(self) -> None: ...


Connect = Callable[[], Awaitable[Connection]]
"""Opens a session, or raises `SessionRefused`."""


class Limits(Protocol):
    """How many recipients may still be written to through a relay, and when.  Times are wall clock.

    Plain calls never wait.  Calls of `refill()` and `settle()` never overlap.
    """

    @property
    def is_free(self) -> bool:
        """Whether neither hours nor quotas hold for now, so that nothing needs to be taken; a pause ends that."""

    def rest(self, now: float) -> Hold | None:
        """Why nothing may be begun at `now`, as far as is known."""

    def take(self, count: int, now: float) -> bool:
        """Spends `count` recipients; False, and nothing is spent, when `refill()` is to be awaited first."""

    def give_back(self, count: int) -> None:
        """`count` recipients were not written to after all."""

    def is_running_low(self, now: float) -> bool:
        """Whether it is time for a `refill()`."""

    async def refill(self, now: float) -> None:
        """Gets more to spend, or learns that there is none; then `rest()` says so.  Raises `BulkmailError`."""

    def pause(self, seconds: float, why: str, now: float) -> None:
        """The provider says that a quota is used up: `rest()` says so at once; `remember_pause()` follows."""

    async def remember_pause(self) -> None:
        """Lets other runs know of the pause.  Raises `BulkmailError`."""

    async def settle(self, now: float) -> None:
        """Gives back what was not spent.  Raises `BulkmailError`."""


@dataclass(frozen=True, slots=True)
class Outlet:
    """A relay, with the way to open sessions with it; without limits everything may go at any time."""

    route: Route
    connect: Connect
    limits: Limits | None = None


Compose = Callable[[Job, float], Message]
"""The message of a job and the wall-clock time of its first attempt; `TemplateError` when its row does not render."""

Sign = Callable[[Message, float], Message]
"""A message that `Compose` made for this time, signed.  May be called in any thread."""


class DeliveryResult(Struct, frozen=True):
    """A delivery has got an outcome, and that is durable."""

    delivery: Delivery
    attempt: AttemptResult
    recipient: Recipient | None


class ResultBatch(Struct, frozen=True):
    """What deliveries came to since the last batch, in the order in which that became durable."""

    results: Sequence[DeliveryResult]


@dataclass(frozen=True, slots=True)
class Sessions:
    """How many sessions are open now with one of the relays."""

    open: int
    relay: str


@dataclass(frozen=True, slots=True)
class Notice:
    """What the administrator of one of several relays should know, while the others continue."""

    text: str
    relay: str


@dataclass(frozen=True, slots=True)
class Slowed:
    """A relay or a provider complained, or tolerates more again; the times in it are wall-clock seconds."""

    slowdown: Slowdown


Event = ResultBatch | Hold | Sessions | Notice | Slowed
Observe = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended: by itself, by the user's word, or by what stopped it."""

    error: BulkmailError | None = None
    was_stopped: bool = False


# -- What a run is to do, and by what means.


def _unobserved(event: Event) -> None:
    """Ignores every event."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to do and by what means.

    It has more attributes than a class should, because it is all that a run is given; nearly all have a default.

    `serving` says which of `outlets`, by number, the jobs of each queue of `store` may go through; None is one queue,
    0, through all.  `providers` names the provider of a queue that has but one; in the others every domain is what
    `mailbox_providers` says.  `shaper` is that of an earlier part of the same campaign.  `sign`, if not None,
    finishes what `compose` made, in a thread.  `ready` is awaited before a job is taken.  `breaker` watches in place
    of the usual one.  `planned_until` is the latest planned time of a delivery, wall-clock seconds, that the run
    waits for however short its `wait` is.
    """

    store: Store
    compose: Compose
    outlets: Sequence[Outlet]
    serving: Mapping[QueueKey, Sequence[int]] | None = None
    pace: Pace = field(default_factory=Pace)
    mailbox_providers: MailboxProviders = field(default_factory=MailboxProviders)
    providers: Mapping[QueueKey, str] = field(default_factory=dict)
    shaper: Shaper | None = None
    feedback: Feedback = field(default_factory=Feedback)
    sign: Sign | None = None
    observe: Observe = _unobserved
    ready: Callable[[], Awaitable[None]] | None = None
    breaker: Breaker | None = None
    planned_until: float = 0.0
    clock: Clock = field(default_factory=SystemClock)
    rng: Callable[[], float] = random.random


def make_shaper(
    mailbox_providers: MailboxProviders,
    pace: Pace,
    *,
    known: Iterable[Slowdown] = (),
    limiter: RateLimiter | None = None,
) -> Shaper:
    """Keeps the rates of a campaign and lowers them; `known` are the slowdowns of the past, in monotonic seconds.

    `limiter` is one that other workers share.
    """
    return Shaper(
        mailbox_providers,
        rate=pace.rate,
        relay_backoff=pace.relay_backoff,
        provider_backoff=pace.provider_backoff,
        known=known,
        limiter=limiter,
    )
