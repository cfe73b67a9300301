"""What came back, folded to one answer for each row and copy."""

from __future__ import annotations

from bulkmail.model.feedback_event import (
    GRAVEST_FIRST,
    CameBack,
    ReturnedCounts,
    ReturnedEvent,
    SentPath,
    fold_returned,
)
from bulkmail.model.feedback_event import FeedbackKind as Kind

PATHS = [
    SentPath(1, 1, "ann@x.org", is_copy=False),
    SentPath(2, 1, "Boss@x.org", is_copy=True),
    SentPath(3, 2, "bob@x.org", is_copy=False),
]


def event(kind: Kind, *, at: float = 10.0, row: int | None = 1, delivery: int | None = 1) -> ReturnedEvent:
    return ReturnedEvent(kind, at, kind.value, "", row, delivery)


def test_every_kind_has_a_rank() -> None:
    assert set(GRAVEST_FIRST) == set(Kind)


def test_gravest_of_several_counts_whatever_their_order() -> None:
    events = [event(Kind.AUTO_REPLY), event(Kind.HARD, at=12.0), event(Kind.HARD, at=11.0), event(Kind.DELAYED)]
    for order in (events, events[::-1]):
        assert fold_returned(order, PATHS).rows == {1: CameBack(Kind.HARD, 11.0, "hard")}


def test_copy_does_not_make_its_row_look_bounced() -> None:
    found = fold_returned([event(Kind.HARD, delivery=2), event(Kind.SOFT, row=2, delivery=None)], PATHS)
    assert found.rows == {2: CameBack(Kind.SOFT, 10.0, "soft")}
    assert found.copies == {(1, "boss@x.org"): CameBack(Kind.HARD, 10.0, "hard")}
    assert found.counts() == ReturnedCounts({Kind.SOFT: 1}, {Kind.HARD: 1})
    assert found.counts({1}) == ReturnedCounts({}, {Kind.HARD: 1})


def test_event_about_no_delivery_of_the_run_is_dropped() -> None:
    found = fold_returned([event(Kind.HARD, delivery=9), event(Kind.HARD, row=7, delivery=None)], PATHS)
    assert not found.rows and not found.copies


def test_counts_add_up() -> None:
    one = ReturnedCounts({Kind.HARD: 1}, {}, 2) + ReturnedCounts({Kind.HARD: 2, Kind.SOFT: 1}, {Kind.SOFT: 1})
    assert (one[Kind.HARD], one[Kind.SOFT], one[Kind.BLOCKED], one.copies, one.unmatched) == (
        3,
        1,
        0,
        {Kind.SOFT: 1},
        2,
    )
