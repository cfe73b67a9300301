"""Spending a reservation: never more than it holds, never after its end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.quota import QuotaCredit


def test_quota_credit_is_empty_at_first() -> None:
    assert not QuotaCredit().take(1, 0.0)


def test_quota_credit_spends_what_it_holds_until_its_end() -> None:
    credit = QuotaCredit()
    credit.fill(5, until=60.0)
    assert credit.take(3, 0.0)
    assert not credit.take(3, 0.0)
    assert credit.take(2, 59.9)
    assert credit.used == 5
    credit.fill(5, until=60.0)
    assert not credit.take(1, 60.0)


def test_quota_credit_takes_back_what_was_not_attempted() -> None:
    credit = QuotaCredit()
    credit.fill(2, until=60.0)
    assert credit.take(2, 0.0)
    credit.give_back(1)
    assert credit.used == 1
    assert credit.take(1, 0.0)
    assert not credit.take(1, 0.0)


def test_quota_credit_takes_nothing_back_of_an_earlier_reservation() -> None:
    credit = QuotaCredit()
    credit.fill(2, until=60.0)
    assert credit.take(2, 0.0)
    credit.fill(1, until=60.0)
    credit.give_back(1)
    assert credit.take(1, 0.0)
    assert not credit.take(1, 0.0)


@given(st.integers(0, 100), st.lists(st.tuples(st.integers(1, 20), st.floats(0, 100)), max_size=40))
def test_quota_credit_never_gives_more_than_was_put_in(count: int, takes: list[tuple[int, float]]) -> None:
    credit = QuotaCredit()
    credit.fill(count, until=60.0)
    spent = sum(wanted for wanted, now in takes if credit.take(wanted, now))
    assert spent == credit.used <= count
