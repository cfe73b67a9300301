"""Many cases in one test (`tests/cases.py`): each that fails is named with its own message."""

from __future__ import annotations

import pytest

from tests.cases import every


def test_every_names_each_case_that_fails_and_calls_all() -> None:
    seen = []

    @every((str(n), (n, n % 2)) for n in range(5))
    def is_even(n: int, rest: int) -> None:
        seen.append(n)
        if n == 3:
            raise ValueError("no number")
        assert rest == 0, f"{n} is odd"

    with pytest.raises(AssertionError, match=r"2 of 5 cases fail") as failed:
        is_even()
    assert seen == [0, 1, 2, 3, 4]
    assert "[1]" in str(failed.value) and "1 is odd" in str(failed.value)
    assert "[3]" in str(failed.value) and "ValueError: no number" in str(failed.value)


def test_every_wants_a_case() -> None:
    with pytest.raises(AssertionError, match="without a case"):
        every([])
