"""A campaign as all its passes."""

from __future__ import annotations

import pytest

from bulkmail.model.tally import Passes, RowStatus, Status, stands

A, R, E, D, P = Status.ACCEPTED, Status.REJECTED, Status.EXPIRED, Status.IN_DOUBT, Status.PENDING
S, F, N, X = Status.SUPPRESSED, Status.FILTERED, Status.INVALID, Status.DUPLICATE


@pytest.mark.parametrize(
    ("earlier", "later", "holds"),
    [
        (A, S, True),
        (A, R, True),
        (A, A, False),
        (D, S, True),
        (D, A, False),
        (R, S, True),
        (R, F, True),
        (R, A, False),
        (R, P, False),
        (E, N, True),
        (P, S, False),
        (S, P, False),
        (N, A, False),
        (Status.CANCELLED, S, False),
    ],
)
def test_earlier_outcome_stands_until_a_later_pass_says_otherwise(earlier: Status, later: Status, holds: bool) -> None:
    assert stands(earlier, later) is holds


def test_each_recipient_counts_once_by_the_pass_that_says_what_became_of_them() -> None:
    first = [RowStatus(1, "ann@x.org", A), RowStatus(2, "bob@x.org", R), RowStatus(3, "eve@x.org", A)]
    second = [
        RowStatus(1, "ann@x.org", S),
        RowStatus(2, "bob@x.org", A),
        RowStatus(3, "eva@x.org", A),  # eve's row, corrected
        RowStatus(4, "new@x.org", P),
    ]
    passes = Passes([first, second])
    assert (passes.rows_of(0), passes.rows_of(1)) == ({1, 3}, {2, 3, 4})
    assert passes.tally.by_status == {A: 4, P: 1}
    assert passes.tally.rows == 5 and passes.tally.adds_up


def test_row_that_was_never_sent_and_is_gone_from_the_list_is_not_counted() -> None:
    first = [RowStatus(1, "", N), RowStatus(2, "ann@x.org", P), RowStatus(3, "bob@x.org", F)]
    passes = Passes([first, [RowStatus(1, "eve@x.org", A), RowStatus(2, "", N)]])
    assert (passes.rows_of(0), passes.rows_of(1)) == (set(), {1, 2})
    assert passes.tally.by_status == {A: 1, N: 1}


def test_rows_of_one_address_are_reported_apart_by_their_order() -> None:
    first = [RowStatus(1, "ann@x.org", A), RowStatus(2, "ann@x.org", X)]
    passes = Passes([first, [RowStatus(1, "ann@x.org", S), RowStatus(2, "ann@x.org", S)]])
    assert (passes.rows_of(0), passes.rows_of(1)) == ({1}, {2})
    assert passes.tally.by_status == {A: 1, S: 1}


def test_copies_count_with_the_row_that_counts() -> None:
    first = [RowStatus(1, "ann@x.org", A, (A, R)), RowStatus(2, "bob@x.org", R, (R,))]
    passes = Passes([first, [RowStatus(1, "ann@x.org", S), RowStatus(2, "bob@x.org", A, (A,))]])
    assert passes.tally.copies == {A: 2, R: 1}


def test_third_pass_goes_on_from_what_two_have_come_to() -> None:
    passes = Passes([[RowStatus(1, "ann@x.org", R)], [RowStatus(1, "ann@x.org", R)], [RowStatus(1, "ann@x.org", A)]])
    assert [passes.rows_of(number) for number in range(3)] == [set(), set(), {1}]


def test_recipient_with_many_rows_has_each_of_them_in_each_pass() -> None:
    first = [RowStatus(row, "info@x.org", A if row % 2 else R) for row in range(1, 301)]
    second = [RowStatus(row, "info@x.org", S if row % 2 else A) for row in range(1, 301)]
    passes = Passes([first, second])
    assert (passes.rows_of(0), passes.rows_of(1)) == ({*range(1, 301, 2)}, {*range(2, 301, 2)})
    assert passes.tally.by_status == {A: 300}
    assert 301 not in passes.rows_of(0) and len(passes.rows_of(0)) == 150
