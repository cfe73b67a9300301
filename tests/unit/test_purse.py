"""Spending a reservation: never more than it holds, never after its end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.purse import Purse


def test_purse_is_empty_at_first() -> None:
    assert not Purse().take(1, 0.0)


def test_purse_spends_what_it_holds_until_its_end() -> None:
    purse = Purse()
    purse.fill(5, until=60.0)
    assert purse.take(3, 0.0)
    assert not purse.take(3, 0.0)
    assert purse.take(2, 59.9)
    assert purse.used == 5
    purse.fill(5, until=60.0)
    assert not purse.take(1, 60.0)


def test_purse_takes_back_what_was_not_attempted() -> None:
    purse = Purse()
    purse.fill(2, until=60.0)
    assert purse.take(2, 0.0)
    purse.give_back(1)
    assert purse.used == 1
    assert purse.take(1, 0.0)
    assert not purse.take(1, 0.0)


def test_purse_takes_nothing_back_of_an_earlier_reservation() -> None:
    purse = Purse()
    purse.fill(2, until=60.0)
    assert purse.take(2, 0.0)
    purse.fill(1, until=60.0)
    purse.give_back(1)
    assert purse.take(1, 0.0)
    assert not purse.take(1, 0.0)


@given(st.integers(0, 100), st.lists(st.tuples(st.integers(1, 20), st.floats(0, 100)), max_size=40))
def test_purse_never_gives_more_than_was_put_in(count: int, takes: list[tuple[int, float]]) -> None:
    purse = Purse()
    purse.fill(count, until=60.0)
    spent = sum(wanted for wanted, now in takes if purse.take(wanted, now))
    assert spent == purse.used <= count
