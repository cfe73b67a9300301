"""Plots as numbers: nothing is wider than its column or higher than its picture, and empty ones are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.pages.plots import bars, nice_ticks, say_share, stacked_bar, time_plot


def test_longest_bar_fills_its_column_and_the_others_keep_the_scale() -> None:
    long, short = bars([("a", 4), ("b", 1)], kind="accepted")
    assert [(box.x, box.width) for box in long.parts + short.parts] == [("0.00%", "100.00%"), ("0.00%", "25.00%")]
    assert (short.number, short.share) == ("1", "20.0%")


def test_parts_of_a_bar_stand_side_by_side() -> None:
    first, second = stacked_bar([("accepted", 3), ("rejected", 1)], 8)
    assert (first.width, second.x, second.width) == ("37.50%", "37.50%", "12.50%")


def test_bars_over_time_stand_on_one_another() -> None:
    buckets = [{"accepted": 1, "rejected": 3}, {"accepted": 2}]
    plot = time_plot(buckets, ["accepted", "rejected"], start=100.0, seconds=2.0)
    assert plot is not None
    low, high, only = plot.boxes
    assert (low.y, low.height, high.y, high.height) == ("75.00%", "25.00%", "0.00%", "75.00%")
    assert (only.x, only.y) == ("50.00%", "50.00%")
    assert plot.moments == (100.0, 102.0, 104.0)
    assert [(tick.label, tick.y) for tick in (plot.ticks[0], plot.ticks[-1])] == [("0", "100.00%"), ("2", "0.00%")]


def test_nothing_to_plot_is_no_bar() -> None:
    assert time_plot([{"accepted": 1}], ["accepted"], start=0.0, seconds=1.0) is None
    assert bars([], kind="other") == []
    (none,) = bars([("none", 0)], kind="other")
    assert [box.width for box in none.parts] == ["0.00%"]


@pytest.mark.parametrize(
    ("highest", "ticks"),
    [
        (9.8, [0, 2, 4, 6, 8, 10]),
        (10, [0, 2, 4, 6, 8, 10]),
        (0.03, [0, 0.01, 0.02, 0.03]),
        (1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
    ],
)
def test_axis_ends_at_a_round_number(highest: float, ticks: list[float]) -> None:
    assert nice_ticks(highest) == pytest.approx(ticks)


@given(st.floats(1e-6, 1e9))
def test_axis_is_no_lower_and_not_much_higher_than_what_it_shows(highest: float) -> None:
    ticks = nice_ticks(highest)
    assert highest <= ticks[-1] * (1 + 1e-9) and ticks[-1] <= 2 * highest
    assert 3 <= len(ticks) <= 7


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [(0, 7, "0%"), (7, 7, "100%"), (1, 3, "33.3%"), (1, 10_000, "<0.1%"), (9_999, 10_000, ">99.9%"), (1, 0, "")],
)
def test_share_is_never_rounded_to_none_or_all(part: float, whole: float, said: str) -> None:
    assert say_share(part, whole) == said
