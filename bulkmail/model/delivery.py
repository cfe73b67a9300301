"""One delivery: its message, the job that a store hands out, its statuses and what a verdict makes of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from hashlib import blake2b

from msgspec import Struct

from bulkmail.model.errors import IllegalMove
from bulkmail.model.outcome import Fault, Outcome, Reply, Verdict
from bulkmail.model.recipient import Recipient
from bulkmail.model.retry import REFUSED_BACKOFF, RetryPolicy, asked_wait
from bulkmail.model.tally import Status

# -- A message to one person, ready for the line.


# Both are made for every message: making a Struct takes a tenth of the time.
class Envelope(Struct, frozen=True):
    """What the relay gets as sender and recipients.  All paths are addresses without angle brackets (RFC 5321 §2.3.1).

    An empty reverse path is the null path `<>`.  `copies` are further forward paths of the same transaction.
    """

    reverse_path: str
    forward_path: str
    copies: tuple[str, ...] = ()

    @property
    def forward_paths(self) -> tuple[str, ...]:
        """All of them, in the order of their RCPT commands."""
        return (self.forward_path, *self.copies)


class Message(Struct, frozen=True):
    """Content as a sequence of buffers, CRLF line ends throughout, ending in CRLF, not dot-stuffed.

    No bare CR or LF, no NUL, no byte above 127 unless `is_8bit`, no line over 998 bytes (RFC 5322 §2.1.1).  Buffers
    may be shared between messages and are never changed.
    """

    envelope: Envelope
    message_id: str
    buffers: Sequence[bytes]
    needs_smtputf8: bool = False
    is_8bit: bool = False

    @property
    def size_bytes(self) -> int:
        """What RFC 1870 counts: the bytes between DATA and the terminator, without dot-stuffing."""
        return sum(map(len, self.buffers))

    def digest(self) -> bytes:
        """16 bytes that differ when the content or the envelope does: a resend must have the same."""
        envelope = self.envelope
        paths = "\0".join((envelope.reverse_path, envelope.forward_path, *envelope.copies, ""))
        state = blake2b(paths.encode(), digest_size=16)
        for buffer in self.buffers:
            state.update(buffer if len(buffer) < _LONG else _digest_of(buffer))
        return state.digest()


_LONG = 1_000_000  # bytes: such a buffer is an enclosure, and mostly the same one in every message


@lru_cache(maxsize=2)
def _digest_of(buffer: bytes) -> bytes:
    return blake2b(buffer).digest()


# -- The life of one delivery: its statuses, which of them may follow which, and what a verdict makes of it.


__all__ = [
    "MOST_FREE_TRIES",
    "MOVES",
    "OPERATOR_MOVES",
    "AttemptResult",
    "Delivery",
    "Status",
    "accepted",
    "check_move",
    "settle",
]


_OPEN = frozenset({Status.PENDING, Status.DEFERRED})
_OUTCOMES = frozenset({Status.ACCEPTED, Status.DEFERRED, Status.REJECTED, Status.EXPIRED, Status.IN_DOUBT})

MOVES: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset(Status) - {Status.PENDING},
    Status.DEFERRED: _OUTCOMES | {Status.SUPPRESSED, Status.CANCELLED},
    **{status: frozenset() for status in Status if status not in _OPEN},
}
"""What sending may do; nothing else changes a status."""

OPERATOR_MOVES: dict[Status, frozenset[Status]] = {
    Status.IN_DOUBT: frozenset({Status.PENDING, Status.ACCEPTED, Status.REJECTED}),
    Status.REJECTED: frozenset({Status.PENDING}),
    Status.EXPIRED: frozenset({Status.PENDING}),
}
"""What only a person's word may do."""

MOST_FREE_TRIES = 20
"""Tries that failed through no fault of the row and do not count.  Later ones do, or it might be tried for ever."""


def check_move(before: Status, after: Status, *, by_operator: bool = False) -> None:
    """Raises `IllegalMove` unless `after` may follow `before`."""
    allowed = MOVES[before] | (OPERATOR_MOVES.get(before, frozenset()) if by_operator else frozenset())
    if after not in allowed:
        raise IllegalMove(f"a delivery cannot go from {before.value} to {after.value}")


# Two are made for every message: making a Struct takes a tenth of the time.
class AttemptResult(Struct, frozen=True):
    """One try as it will be remembered.  `at` is wall-clock seconds; `took` is seconds."""

    at: float
    took: float
    relay: str
    event: Reply | Fault
    verdict: Verdict


class Delivery(Struct, frozen=True):
    """One forward path of one row, and how far it has come.

    `row` is the input row's number, from 1.  `attempts` are those that count against the limit; `tries` are all.
    `first_at` and `due_at` are wall-clock seconds; `first_at` is also the message's Date and never changes once set.
    `is_copy`: it goes to another address (To, Cc, Bcc) than the row's own recipient.
    """

    id: int
    row: int
    forward_path: str
    status: Status = Status.PENDING
    attempts: int = 0
    tries: int = 0
    due_at: float = 0.0
    first_at: float | None = None
    is_copy: bool = False


def accepted(delivery: Delivery, *, at: float) -> Delivery:
    """As `settle()` with a try that began at `at` and was accepted: the usual case at a quarter of its cost."""
    if delivery.status is not Status.PENDING and delivery.status is not Status.DEFERRED:
        check_move(delivery.status, Status.ACCEPTED)
    return Delivery(
        delivery.id,
        delivery.row,
        delivery.forward_path,
        Status.ACCEPTED,
        delivery.attempts + 1,
        delivery.tries + 1,
        delivery.due_at,
        at if delivery.first_at is None else delivery.first_at,
        delivery.is_copy,
    )


def settle(delivery: Delivery, attempt: AttemptResult, policy: RetryPolicy, *, jitter: float) -> Delivery:
    """The delivery after `attempt`.  `jitter` is a random number in [0, 1).

    A verdict that stops the campaign leaves the status as it is: the row was not at fault and stays pending.  So does
    one that strikes or probes, and the row waits longer each time, so that others are tried before it.  Tries that do
    not count are free up to `MOST_FREE_TRIES`, so that none goes on for ever.  A server that says when to try again is
    not asked sooner.
    """
    verdict = attempt.verdict
    status = Status(verdict.outcome.value)
    check_move(delivery.status, status)
    is_free = delivery.tries < MOST_FREE_TRIES or verdict.stops or verdict.outcome is not Outcome.DEFERRED
    counts = verdict.counts or not is_free
    ended_at = attempt.at + attempt.took
    first_at = attempt.at if delivery.first_at is None else delivery.first_at
    attempts, due_at = delivery.attempts + counts, delivery.due_at
    if verdict.stops:
        status = delivery.status
    elif verdict.outcome is Outcome.DEFERRED:
        asked = asked_wait(attempt.event.text) if isinstance(attempt.event, Reply) else 0.0
        if not counts:  # the session or relay slows down instead
            if verdict.strikes or verdict.probes:
                asked = max(asked, REFUSED_BACKOFF.wait(delivery.tries + 1, jitter=jitter))
            status, due_at = delivery.status, ended_at + asked
        elif (delay := policy.delay(attempts, age=ended_at - first_at, jitter=jitter, asked=asked)) is None:
            status = Status.EXPIRED
        else:
            due_at = ended_at + delay
    return Delivery(
        delivery.id,
        delivery.row,
        delivery.forward_path,
        status,
        attempts,
        delivery.tries + 1,
        due_at,
        first_at,
        delivery.is_copy,
    )


# -- What a store hands out to be sent, and what is reported back to it.


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
    attempt: AttemptResult


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
