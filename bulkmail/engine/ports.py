"""What the engine asks of its neighbours and tells to whoever watches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from bulkmail.model.delivery import Attempt, Delivery
from bulkmail.model.errors import BulkmailError
from bulkmail.model.message import Message
from bulkmail.model.recipient import Recipient
from bulkmail.outbox.outbox import Job
from bulkmail.smtp.line import More


class Line(Protocol):
    """One open session with a relay, or what stands for one."""

    @property
    def usable(self) -> bool: ...
    @property
    def transactions(self) -> int: ...
    async def carry(self, more: More) -> None: ...
    async def quit(self) -> None: ...
    def abort(self) -> None: ...


Connect = Callable[[], Awaitable[Line]]
"""Opens a session, or raises `SessionRefused`."""

Compose = Callable[[Job, float], Message]
"""The message of a job and the wall-clock time of its first attempt; `TemplateError` when its row does not render."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A delivery has got an outcome, and that is durable."""

    delivery: Delivery
    attempt: Attempt
    recipient: Recipient | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """Nothing is to be done before `until` (wall-clock seconds), because of `why`."""

    until: float
    why: str


@dataclass(frozen=True, slots=True)
class Sessions:
    """So many sessions are open now."""

    open: int


Event = Settled | Waiting | Sessions
Observe = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended: by itself, by the user's word, or by what stopped it."""

    error: BulkmailError | None = None
    was_stopped: bool = False
