"""The send rate: what it reads, what it promises of every window, and that it gets there."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.errors import ConfigError
from bulkmail.model.rate import Rate

BLANK = -math.inf


@pytest.mark.parametrize(
    ("text", "per_second", "shown"),
    [
        ("50/s", 50.0, "50/s"),
        ("50 / s", 50.0, "50/s"),
        (" 50/S ", 50.0, "50/s"),
        ("50 per second", 50.0, "50/s"),
        ("50 per seconds", 50.0, "50/s"),
        ("50/sec", 50.0, "50/s"),
        ("50/secs", 50.0, "50/s"),
        ("2.5/s", 2.5, "2.5/s"),
        ("1/s", 1.0, "1/s"),
        ("30/m", 0.5, "30/min"),
        ("30/min", 0.5, "30/min"),
        ("30/mins", 0.5, "30/min"),
        ("30 per minute", 0.5, "30/min"),
        ("30 per minutes", 0.5, "30/min"),
        ("60/h", 1 / 60, "1/min"),
        ("36/h", 0.01, "36/h"),
        ("36 per hour", 0.01, "36/h"),
        ("36/hours", 0.01, "36/h"),
        ("3000/h", 3000 / 3600, "50/min"),
        ("864/d", 0.01, "36/h"),
        ("864/day", 0.01, "36/h"),
        ("864 per days", 0.01, "36/h"),
        ("1 per 2s", 0.5, "30/min"),
        ("1 per 2.5 s", 0.4, "24/min"),
        ("10/10m", 1 / 60, "1/min"),
        ("100/h", 100 / 3600, "100/h"),
        ("1000/d", 1000 / 86400, "1000/d"),
        ("3000/d", 3000 / 86400, "125/h"),
        ("1 per 8s", 0.125, "7.5/min"),
        ("1 per 7s", 1 / 7, "1 per 7s"),
        ("1 per 7m", 1 / 420, "1 per 7min"),
        ("1 per 2d", 1 / 172_800, "1 per 2d"),
        ("3 per 7s", 3 / 7, "25.7/min"),
        ("1234567/s", 1_234_567.0, "1234567/s"),
    ],
)
def test_rate_is_read_and_shown(text: str, per_second: float, shown: str) -> None:
    rate = Rate.parse(text)
    assert rate.per_second == pytest.approx(per_second)
    assert str(rate) == shown


@pytest.mark.parametrize(("text", "burst"), [("1/h", 1), ("39/s", 1), ("40/s", 2), ("100/s", 5), ("3000/h", 1)])
def test_rate_has_a_burst_of_a_twentieth_of_a_second(text: str, burst: int) -> None:
    assert Rate.parse(text).burst == burst


def test_rate_takes_the_burst_it_is_reported() -> None:
    assert Rate.parse("50/s", burst=7) == Rate(50.0, 7)


@pytest.mark.parametrize(
    "text", ["", "50", "0/s", "0.0/s", "50/0s", "50/w", "50/ms", "-1/s", "1e3/s", "/s", "50/", "x/s", "50/s/s", "5 0/s"]
)
def test_rate_refuses_anything_else(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Rate.parse(text)
    assert str(caught.value) == f"cannot read the rate {text!r}"
    assert caught.value.hint == 'write "50/s", "3000/h" or "1 per 2s"'


def test_rate_lets_the_first_go_at_once() -> None:
    assert Rate(0.001).wait(BLANK, 0.0) == 0.0
    assert Rate(0.001).wait(BLANK, 1e9) == 0.0


def test_rate_spaces_the_next_by_its_interval() -> None:
    rate = Rate(4.0)
    tat = rate.take(BLANK, 100.0)
    assert tat == 100.25
    assert rate.wait(tat, 100.0) == 0.25
    assert rate.wait(tat, 100.125) == 0.125
    assert rate.wait(tat, 100.25) == 0.0
    assert rate.wait(tat, 200.0) == 0.0


def test_rate_lets_a_burst_go_together_and_then_spaces() -> None:
    rate = Rate(4.0, burst=3)
    tat = BLANK
    for _ in range(3):
        assert rate.wait(tat, 100.0) == 0.0
        tat = rate.take(tat, 100.0)
    assert rate.wait(tat, 100.0) == 0.25


def test_rate_saves_nothing_up_while_idle() -> None:
    rate = Rate(4.0)
    tat = rate.take(rate.take(BLANK, 0.0), 1000.0)
    assert rate.wait(tat, 1000.0) == 0.25


RATES = st.builds(
    Rate,
    st.floats(0.01, 10_000).map(lambda number: float(f"{number:.3g}")),
    st.integers(1, 20),
)


@pytest.mark.slow
@given(RATES, st.lists(st.one_of(st.just(0.0), st.floats(0.0, 30.0)), min_size=1, max_size=50))
def test_rate_lets_no_window_exceed_its_burst_and_its_rate(rate: Rate, naps: list[float]) -> None:
    """Askers come whenever they like; anyone who may go at that instant goes."""
    now, tat, went = 1_000.0, BLANK, list[float]()
    for nap in naps:
        now += nap / rate.per_second
        if rate.wait(tat, now) == 0.0:
            tat = rate.take(tat, now)
            went.append(now)
    for first, begin in enumerate(went):
        for last in range(first, len(went)):
            # Only what doubles round at 1,000 s may be over.
            assert (
                last - first + 1 <= rate.burst + rate.per_second * (went[last] - begin) + 1e-9 * rate.per_second + 1e-6
            )


@given(RATES, st.integers(2, 60))
def test_rate_reaches_its_mean_when_all_waits_as_reported(rate: Rate, count: int) -> None:
    now, tat = 1_000.0, BLANK
    for _ in range(count):
        while wait := rate.wait(tat, now):
            # `now + wait` may round to just before the instant meant, but never stands still for long.
            now = max(now + wait, math.nextafter(now, math.inf))
        tat = rate.take(tat, now)
    spaced = max(0, count - rate.burst)
    assert now - 1_000.0 == pytest.approx(spaced / rate.per_second, rel=1e-6, abs=1e-6)


@given(RATES, st.floats(0, 1e6), st.floats(0, 1e6))
def test_rate_never_waits_longer_later(rate: Rate, one: float, other: float) -> None:
    tat = rate.take(BLANK, 500.0)
    assert rate.wait(tat, min(one, other)) >= rate.wait(tat, max(one, other)) >= 0.0
