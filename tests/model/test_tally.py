"""Counting rows: the sum that must add up, and the exit code that says how it went."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model import tally as module
from bulkmail.model.tally import Status, Tally

S = Status


def tally(**by_status: int) -> Tally:
    return Tally(sum(by_status.values()), {Status(name): number for name, number in by_status.items()})


def test_exit_codes_are_the_documented_ones() -> None:
    codes = {name: value for name, value in vars(module).items() if name.startswith("EXIT_")}
    assert codes == {
        "EXIT_OK": 0,
        "EXIT_SOME_FAILED": 1,
        "EXIT_NOTHING_SENT": 2,
        "EXIT_STOPPED": 3,
        "EXIT_IN_DOUBT": 4,
        "EXIT_BUG": 70,
    }


@pytest.mark.parametrize(
    ("counted", "code"),
    [
        (tally(), 0),
        (tally(accepted=5), 0),
        (tally(accepted=5, duplicate=1, suppressed=1, filtered=1), 0),
        (tally(suppressed=5), 0),
        (tally(accepted=5, rejected=1), 1),
        (tally(accepted=5, expired=1), 1),
        (tally(accepted=5, invalid=1), 1),
        (tally(accepted=5, in_doubt=1), 4),
        (tally(accepted=5, in_doubt=1, rejected=1, invalid=1), 4),
        (tally(accepted=5, pending=1), 3),
        (tally(accepted=5, deferred=1), 3),
        (tally(accepted=5, cancelled=1), 3),
        (tally(pending=1, in_doubt=1, rejected=1), 3),
        (tally(cancelled=1, in_doubt=1), 3),
    ],
    ids=lambda value: (
        "+".join(status.value for status in value.by_status) or "nothing" if isinstance(value, Tally) else ""
    ),
)
def test_exit_code_is_the_first_that_holds(counted: Tally, code: int) -> None:
    assert counted.exit_code == code


def test_tally_counts_what_is_open_and_what_was_eligible() -> None:
    counted = tally(pending=1, deferred=2, accepted=4, invalid=8, duplicate=16, cancelled=32)
    assert counted.open == 3
    assert counted.eligible == 39
    assert counted[S.ACCEPTED] == 4
    assert counted[S.REJECTED] == 0


@pytest.mark.parametrize(
    ("copies", "code"),
    [
        ({S.ACCEPTED: 3}, 0),
        ({S.DUPLICATE: 3, S.SUPPRESSED: 1}, 0),
        ({S.ACCEPTED: 3, S.REJECTED: 1}, 1),
        ({S.EXPIRED: 1}, 1),
        ({S.REJECTED: 1, S.IN_DOUBT: 1}, 4),
        ({S.DEFERRED: 1, S.IN_DOUBT: 1}, 3),
        ({S.CANCELLED: 1}, 3),
    ],
)
def test_exit_code_counts_a_copy_like_a_row_and_the_rows_add_up_without(copies: dict[Status, int], code: int) -> None:
    counted = Tally(2, {S.ACCEPTED: 2}, copies)
    assert (counted.exit_code, counted.adds_up, counted.eligible) == (code, True, 2)


def test_tally_is_untouched_only_while_every_copy_is() -> None:
    assert Tally(2, {S.PENDING: 2}, {S.PENDING: 2}).is_untouched
    assert Tally(2, {S.PENDING: 1, S.DUPLICATE: 1}, {S.PENDING: 1, S.DUPLICATE: 1}).is_untouched
    assert not Tally(2, {S.PENDING: 2}, {S.PENDING: 1, S.ACCEPTED: 1}).is_untouched


def test_tally_is_open_as_long_as_a_copy_is() -> None:
    counted = Tally(2, {S.ACCEPTED: 2}, {S.DEFERRED: 1, S.ACCEPTED: 1})
    assert (counted.open, counted.open_rows, counted.with_copies(S.ACCEPTED)) == (1, 0, 3)


COUNTS = st.dictionaries(st.sampled_from(S), st.integers(0, 1000))


@pytest.mark.slow
@given(COUNTS, st.integers(-3, 3))
def test_tally_adds_up_exactly_when_no_row_is_missing(counts: dict[Status, int], off: int) -> None:
    counted = Tally(sum(counts.values()) + off, counts)
    assert counted.adds_up == (off == 0)
    everybody_reached = counted.eligible == counted[S.ACCEPTED] and not counted[S.INVALID]
    assert (counted.exit_code == 0) == everybody_reached
