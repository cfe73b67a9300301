"""What the engine asks of its neighbours and tells to anyone who watches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from msgspec import Struct

from bulkmail.model.delivery import Attempt, Delivery
from bulkmail.model.errors import BulkmailError
from bulkmail.model.hold import Hold
from bulkmail.model.job import Job
from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.model.message import Message
from bulkmail.model.recipient import Recipient
from bulkmail.model.route import Route
from bulkmail.model.slowdown import Slowdown
from bulkmail.smtp.connection import More


class Connection(Protocol):
    """One open session with a relay, or what stands for one."""

    @property
    def usable(self) -> bool: ...
    @property
    def transactions(self) -> int: ...
    @property
    def goodbye(self) -> str: ...
    async def carry(self, more: More) -> None: ...
    async def quit(self) -> None: ...
    def abort(self) -> None: ...


Connect = Callable[[], Awaitable[Connection]]
"""Opens a session, or raises `SessionRefused`."""


class Limits(Protocol):
    """Anyone who says how many recipients may still be written to through a relay, and when.  Times are wall clock.

    Plain calls never wait.  No one calls `refill()` or `settle()` while one of them is under way.
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
    attempt: Attempt
    recipient: Recipient | None


@dataclass(frozen=True, slots=True)
class Sessions:
    """This many sessions are open now with one of the relays."""

    open: int
    relay: str


@dataclass(frozen=True, slots=True)
class Notice:
    """What anyone who looks after one of several relays should know, while the others go on."""

    text: str
    relay: str


@dataclass(frozen=True, slots=True)
class Slowed:
    """A relay or a provider complained, or tolerates more again; the times in it are wall-clock seconds."""

    slowdown: Slowdown


Event = DeliveryResult | Hold | Sessions | Notice | Slowed
Observe = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended: by itself, by the user's word, or by what stopped it."""

    error: BulkmailError | None = None
    was_stopped: bool = False
