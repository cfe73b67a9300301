"""Plots as numbers: nothing is wider than its column or higher than its picture, and empty ones are none."""

from __future__ import annotations

from bulkmail.pages.plots import bars, stacked_bars, time_bars


def test_longest_bar_fills_its_column_and_the_others_keep_the_scale() -> None:
    long, short = stacked_bars([("a", [("accepted", 3), ("rejected", 1)]), ("b", [("accepted", 1)])])
    assert [part["percent"] for part in long["parts"]] == ["75.00", "25.00"]
    assert (short["number"], short["parts"]) == ("1", [{"kind": "accepted", "percent": "25.00"}])


def test_bars_over_time_stand_on_one_another() -> None:
    low, high, only = time_bars([{"accepted": 1, "rejected": 3}, {"accepted": 2}], ["accepted", "rejected"])
    assert (low["y"], low["height"], high["y"], high["height"]) == ("75.00", "25.00", "0.00", "75.00")
    assert (only["x"], only["y"]) == (1, "50.00")


def test_nothing_to_plot_is_no_bar() -> None:
    assert time_bars([], ["accepted"]) == [] and bars([], kind="other") == []
    assert bars([("none", 0)], kind="other")[0]["parts"] == [{"kind": "other", "percent": "0.00"}]
