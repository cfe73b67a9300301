"""What came back about the recipients of a run, folded from events: one answer for each row and each copy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import field
from typing import NamedTuple

from bulkmail.model.feedback_event import FeedbackKind
from bulkmail.model.lazy_dataclass import dataclass

GRAVEST_FIRST = (
    FeedbackKind.SPAM_COMPLAINT,
    FeedbackKind.UNSUBSCRIBE,
    FeedbackKind.HARD,
    FeedbackKind.SOFT,
    FeedbackKind.BLOCKED,
    FeedbackKind.UNCLEAR,
    FeedbackKind.DELAYED,
    FeedbackKind.AUTO_REPLY,
    FeedbackKind.DELIVERED,
)
"""Which of several answers of one recipient counts."""

_RANK = {kind: rank for rank, kind in enumerate(GRAVEST_FIRST)}

COMPLAINTS_GOOD, COMPLAINTS_BAD = 0.001, 0.003
"""Shares of spam complaints that Gmail and Yahoo ask senders to stay below, and never to reach."""


class CameBack(NamedTuple):
    """What came back about one recipient: `at` is wall-clock seconds, `reason` a short word such as `unknown-user`."""

    kind: FeedbackKind
    at: float
    reason: str


class ReturnedEvent(NamedTuple):
    """One event about a run, as far as reports need it.

    `row` and `delivery` are None where the event names only an address, by its `key` (`Address.key`).
    """

    kind: FeedbackKind
    at: float
    reason: str
    key: str
    row: int | None
    delivery: int | None


class SentPath(NamedTuple):
    """One delivery of a run: its number, its row, and its forward path.  `is_copy`: not the row's own recipient."""

    delivery: int
    row: int
    path: str
    is_copy: bool


@dataclass(frozen=True, slots=True)
class ReturnedCounts:
    """How many rows, and how many of their copies, something of each kind came back about.

    `unmatched` counts what came back to the same suppression list and is matched to no message.
    """

    rows: Mapping[FeedbackKind, int] = field(default_factory=dict)
    copies: Mapping[FeedbackKind, int] = field(default_factory=dict)
    unmatched: int = 0

    def __getitem__(self, kind: FeedbackKind) -> int:
        return self.rows.get(kind, 0)

    def __add__(self, other: ReturnedCounts) -> ReturnedCounts:
        return ReturnedCounts(
            Counter(self.rows) + Counter(other.rows),
            Counter(self.copies) + Counter(other.copies),
            self.unmatched + other.unmatched,
        )


@dataclass(frozen=True, slots=True)
class Returned:
    """What came back about a run: by row, and for its copies by row and forward path in lower case.

    Each recipient counts once, by the gravest of what came back about them.
    """

    rows: Mapping[int, CameBack] = field(default_factory=dict)
    copies: Mapping[tuple[int, str], CameBack] = field(default_factory=dict)

    def counts(self, rows: Container[int] | None = None) -> ReturnedCounts:
        """How much of each kind came back, or only about these rows and their copies."""
        return ReturnedCounts(
            Counter(came.kind for row, came in self.rows.items() if rows is None or row in rows),
            Counter(came.kind for (row, _), came in self.copies.items() if rows is None or row in rows),
        )


def fold_returned(events: Iterable[ReturnedEvent], paths: Collection[SentPath]) -> Returned:
    """What `events` come to.  `paths` are the deliveries of the rows that they name; events about others are dropped.

    An event without a delivery is about the own recipient of its row.
    """
    by_delivery = {path.delivery: path for path in paths}
    own = {path.row: path for path in paths if not path.is_copy}
    rows: dict[int, CameBack] = {}
    copies: dict[tuple[int, str], CameBack] = {}
    for event in events:
        path = own.get(event.row or 0) if event.delivery is None else by_delivery.get(event.delivery)
        if path is None:
            continue
        came = CameBack(event.kind, event.at, event.reason)
        if path.is_copy:
            key = (path.row, path.path.lower())
            copies[key] = graver(copies.get(key), came)
        else:
            rows[path.row] = graver(rows.get(path.row), came)
    return Returned(rows, copies)


def graver(one: CameBack | None, other: CameBack) -> CameBack:
    """The one that counts; of two of a kind, the first."""
    return other if one is None or (_RANK[other.kind], other.at) < (_RANK[one.kind], one.at) else one
