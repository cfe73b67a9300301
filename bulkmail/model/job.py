"""What a store hands out to be sent, and what is reported back to it."""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct

from bulkmail.model.delivery import Attempt, Delivery
from bulkmail.model.recipient import Recipient


# What is made for every message is a Struct: making one takes a tenth of the time.
class Job(Struct, frozen=True):
    """A delivery that may be tried now, with what its message is made of.

    Exactly one of `recipient` and `content` is given; `reverse_path` goes with `content`.  `message_id` is that of the
    ready-made message or of the last marked attempt, else empty.  With `in_doubt_before` the message must have `digest`
    again, and its Date is `delivery.first_at`.
    """

    delivery: Delivery
    recipient: Recipient | None
    content: bytes | None
    digest: bytes | None
    in_doubt_before: bool
    reverse_path: str = ""
    message_id: str = ""

    def __repr__(self) -> str:
        return f"Job({self.delivery!r})"


class Mark(Struct, frozen=True):
    """The end of this delivery's message is about to be written.

    `first_at` is the message's Date in wall-clock seconds, `digest` is `Message.digest()`.  `relay` is where it
    goes to; empty: the only one of the run.
    """

    delivery_id: int
    message_id: str
    first_at: float
    digest: bytes
    relay: str = ""


class Settlement(Struct, frozen=True):
    """How a try ended: the delivery as `model.delivery.settle` made it, and the try itself.  Clears the mark."""

    delivery: Delivery
    attempt: Attempt


class Release(Struct, frozen=True):
    """Nothing of the end of this delivery's message was written: clears the mark, if there is one."""

    delivery_id: int


class PutBack(Struct, frozen=True):
    """Deliveries, by id, that were rejected for what is not their fault: those that are become pending again."""

    deliveries: tuple[int, ...]


class Invalidation(Struct, frozen=True):
    """No message can be made for this delivery's row, which is pending: what is pending of it becomes invalid."""

    delivery_id: int
    row: int
    reason: str


Written = Mark | Settlement | Release | PutBack | Invalidation
"""What is written to a store."""


EVERYTHING: Collection[int] = range(2**62)
"""The answer of a store that took all entries: it holds every id, and looking into it costs nothing."""


class Claim(Struct, frozen=True):
    """What a store hands out: jobs that no other process gets until they have an outcome.

    `more_at` says when it is worth asking again (wall clock): 0 is as soon as these are used up, infinity only when one
    that is out comes back.  `epoch` is the store's when it claimed them: in a later one they are lost.
    """

    jobs: list[Job]
    more_at: float = 0.0
    epoch: int = 0
