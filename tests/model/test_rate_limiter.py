"""Several rates at once: anyone who goes is booked for all of them, and none is ever exceeded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.rate import Rate, RateLimiter

RATES = st.builds(Rate, st.sampled_from([0.1, 0.5, 1.0, 3.0, 14.0, 50.0]), st.integers(1, 8))
NAMES = ["campaign", "relay", "google", "yahoo", "example.com"]
ASKERS = st.lists(
    st.tuples(st.one_of(st.just(0.0), st.floats(0, 3)), st.sets(st.sampled_from(NAMES), min_size=1)), max_size=80
)


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from(NAMES), RATES), ASKERS)
def test_limiter_lets_no_window_of_any_name_exceed_its_rate(
    rates: dict[str, Rate], askers: list[tuple[float, set[str]]]
) -> None:
    limiter, now = RateLimiter(rates), 1_000.0
    went: dict[str, list[float]] = {name: [] for name in NAMES}
    for nap, names in askers:
        now += nap
        may_go = limiter.wait(names, now) == 0.0
        assert limiter.take(names, now) == may_go
        if may_go:
            for name in names:
                went[name].append(now)
    for name, rate in rates.items():
        for first, begin in enumerate(went[name]):
            for last in range(first, len(went[name])):
                held = rate.burst + rate.per_second * (went[name][last] - begin)
                assert last - first + 1 <= held + 1e-6


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from(NAMES), RATES), ASKERS)
def test_limiter_books_all_or_nothing(rates: dict[str, Rate], askers: list[tuple[float, set[str]]]) -> None:
    limiter, now = RateLimiter(rates), 1_000.0
    for nap, names in askers:
        now += nap
        before = {name: limiter.wait([name], now) for name in NAMES}
        if not limiter.take(names, now):
            assert {name: limiter.wait([name], now) for name in NAMES} == before


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from(NAMES), RATES, min_size=1), ASKERS)
def test_limiter_is_open_after_the_wait_it_reported(
    rates: dict[str, Rate], askers: list[tuple[float, set[str]]]
) -> None:
    limiter, now = RateLimiter(rates), 1_000.0
    for _, names in askers:
        now += limiter.wait(names, now) + 1e-9
        assert limiter.take(names, now)


def test_limiter_waits_for_the_slowest_name() -> None:
    limiter = RateLimiter({"campaign": Rate(10.0), "google": Rate(1.0)})
    assert limiter.take(["campaign", "google"], 0.0)
    assert limiter.wait(["campaign", "google"], 0.0) == 1.0
    assert limiter.wait(["campaign", "yahoo"], 0.0) == pytest.approx(0.1)
    assert not limiter.take(["campaign", "google"], 0.5)
    assert limiter.take(["campaign", "yahoo"], 0.5)


def test_limiter_counts_a_name_once_that_was_given_twice() -> None:
    limiter = RateLimiter({"campaign": Rate(1.0)})
    assert limiter.take(["campaign", "campaign"], 0.0)
    assert limiter.wait(["campaign"], 0.0) == 1.0


def test_limiter_gives_no_burst_when_a_rate_is_lowered() -> None:
    limiter = RateLimiter({"relay": Rate(100.0, 5)})
    for _ in range(5):
        assert limiter.take(["relay"], 0.0)
    limiter.turn("relay", Rate(1.0, 5), 0.0)
    assert limiter.wait(["relay"], 0.0) == pytest.approx(1.0)


def test_limiter_frees_a_name_whose_rate_is_taken_away() -> None:
    limiter = RateLimiter({"relay": Rate(0.01)})
    assert limiter.take(["relay"], 0.0)
    limiter.turn("relay", None, 0.0)
    assert limiter.rate("relay") is None
    assert limiter.take(["relay"], 0.0)
    limiter.turn("relay", Rate(1.0), 0.0)
    assert limiter.rate("relay") == Rate(1.0)
    assert limiter.take(["relay"], 0.0)
    assert not limiter.take(["relay"], 0.0)
