"""Plots as the numbers that an SVG needs: no text is stretched, and no style is written into an element.

So a page with a strict content security policy can show them, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date

from markupsafe import Markup

from bulkmail.model.lazy import dataclass
from bulkmail.pages.moments import moment

SHORT = 600.0  # seconds of a plot whose axis shows seconds

_GAP = 0.1  # of the width of a bar


@dataclass(frozen=True, slots=True)
class Box:
    """A coloured rectangle; all numbers are percentages of the plot, from its upper left corner."""

    kind: str
    x: str
    y: str
    width: str
    height: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A line of a chart: what it is about, its number and its share in words, and the parts of its bar."""

    label: object  # text, or markup
    number: str
    share: str
    parts: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class Tick:
    """A value beside the axis; `y` is a percentage from the top."""

    label: str
    y: str


@dataclass(frozen=True, slots=True)
class TimePlot:
    """Stacked bars over time.  `moments` are the ends of the axis and the middle, in wall-clock seconds."""

    boxes: tuple[Box, ...]
    ticks: tuple[Tick, ...]
    moments: tuple[float, ...]
    highest: float  # a second

    def shown_moments(self) -> list[Markup]:
        """The moments as short as they can be: the date where it is another one, seconds where the plot is short."""
        first, *others = self.moments
        shown = "clock_second" if self.moments[-1] - first < SHORT else "clock"
        if date.fromtimestamp(first) != date.fromtimestamp(self.moments[-1]):
            shown = "minute"
        return [moment(first, "minute"), *(moment(at, shown) for at in others)]


def time_plot(
    buckets: Sequence[Mapping[str, float]], kinds: Iterable[str], *, start: float, seconds: float
) -> TimePlot | None:
    """What is in each of `buckets`, which are `seconds` long, as numbers a second, `kinds` from the bottom to the top.

    None for a run that was too short to show.
    """
    if len(buckets) < 2:
        return None
    kinds = tuple(kinds)
    highest = max(sum(bucket.values()) for bucket in buckets) / seconds
    ticks = nice_ticks(highest)
    whole, width = ticks[-1] * seconds, 100 / len(buckets)
    boxes = []
    for number, bucket in enumerate(buckets):
        top = 100.0
        for kind in kinds:
            if value := bucket.get(kind, 0):
                height = 100 * value / whole
                top -= height
                boxes.append(_box(kind, number * width, top, width * (1 - _GAP), height))
    length = seconds * len(buckets)
    return TimePlot(
        tuple(boxes),
        tuple(Tick(_number(value), _percent(100 - 100 * value / ticks[-1])) for value in ticks),
        (start, start + length / 2, start + length),
        highest,
    )


def stacked_bar(values: Iterable[tuple[str, float]], whole: float) -> tuple[Box, ...]:
    """One bar from the left, `whole` wide: a part for each kind."""
    boxes, x = [], 0.0
    for kind, value in values:
        width = 100 * value / whole if whole else 0.0
        boxes.append(_box(kind, x, 0.0, width, 100.0))
        x += width
    return tuple(boxes)


def bar(label: object, parts: Iterable[tuple[str, float]], *, widest: float, number: str, share: str = "") -> Bar:
    """A line with a bar of `parts` by kind; one of `widest` in all is as wide as the column."""
    return Bar(label, number, share, stacked_bar(parts, widest))


def bars(values: Sequence[tuple[str, int]], *, kind: str, whole: float = 0) -> list[Bar]:
    """A line for each value, the longest as wide as the column; their shares are of `whole`, or of their sum."""
    widest = max((number for _, number in values), default=1)
    whole = whole or sum(number for _, number in values)
    return [
        bar(label, [(kind, number)], widest=widest, number=f"{number:,}", share=say_share(number, whole))
        for label, number in values
    ]


def nice_ticks(highest: float) -> list[float]:
    """From 0 up to a round number that is not less than `highest`, in three to six equal steps."""
    if not highest > 0 or math.isinf(highest):
        return [0.0, 1.0]
    size = 10.0 ** math.floor(math.log10(highest))
    step = next(size * part for part in (0.2, 0.5, 1.0, 2.0) if highest <= 5 * size * part)
    number = max(1, math.ceil(highest / step - 1e-9))
    return [step * at for at in range(number + 1)]


def say_share(part: float, whole: float) -> str:
    """`"97.6%"`, `"0%"`, `"100%"`; never these two for what is not quite that; empty for a share of nothing."""
    if not whole:
        return ""
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "<0.1%"
    if 99.9 < percent < 100:
        return ">99.9%"
    return f"{percent:.0f}%" if part in (0, whole) else f"{percent:.1f}%"


def _box(kind: str, x: float, y: float, width: float, height: float) -> Box:
    return Box(kind, _percent(x), _percent(y), _percent(width), _percent(height))


def _percent(value: float) -> str:
    return f"{max(0.0, value):.2f}%"


def _number(value: float) -> str:
    return f"{value:,.10g}" if value < 1 else f"{value:,.6g}"
