"""The life of one delivery: its statuses, which of them may follow which, and what a verdict makes of it."""

from __future__ import annotations

from msgspec import Struct

from bulkmail.model.errors import IllegalMove
from bulkmail.model.outcome import Outcome, Verdict
from bulkmail.model.reply import Fault, Reply
from bulkmail.model.retry import REFUSED_BACKOFF, RetryPolicy, asked_wait
from bulkmail.model.status import Status

__all__ = [
    "MOST_FREE_TRIES",
    "MOVES",
    "OPERATOR_MOVES",
    "Attempt",
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
class Attempt(Struct, frozen=True):
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


def settle(delivery: Delivery, attempt: Attempt, policy: RetryPolicy, *, jitter: float) -> Delivery:
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
