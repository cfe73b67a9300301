"""Plots as numbers that templates draw: bars beside one another, and bars over time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def stacked_bars(lines: Iterable[tuple[str, Sequence[tuple[str, float]]]]) -> list[dict[str, Any]]:
    """A bar for each label, of parts by kind; the longest is as wide as the column."""
    found = [(label, parts, sum(value for _, value in parts)) for label, parts in lines]
    most = max((total for *_, total in found), default=1) or 1
    return [{"label": label, "number": f"{total:,}", "parts": bar_parts(parts, most)} for label, parts, total in found]


def bars(values: Iterable[tuple[str, int]], *, kind: str) -> list[dict[str, Any]]:
    """The same with one part in each."""
    return stacked_bars((label, [(kind, number)]) for label, number in values)


def bar_parts(values: Iterable[tuple[str, float]], most: float) -> list[dict[str, str]]:
    """The parts of one bar in percent of `most`."""
    return [{"kind": kind, "percent": f"{100 * value / most:.2f}"} for kind, value in values]


def time_bars(buckets: Sequence[Mapping[str, float]], kinds: Iterable[str]) -> list[dict[str, Any]]:
    """A bar for each of `buckets`, bottom up in the order of `kinds`, in a picture 100 high and one wide for each."""
    kinds = tuple(kinds)
    highest = max((sum(bucket.values()) for bucket in buckets), default=0) or 1
    found = []
    for x, bucket in enumerate(buckets):
        top = 100.0
        for kind in kinds:
            height = 100 * bucket.get(kind, 0) / highest
            top -= height
            if height:
                found.append({"kind": kind, "x": x, "y": f"{top:.2f}", "height": f"{height:.2f}"})
    return found
