"""Times on a page: by the clock of the computer that wrote it, which the script turns into the reader's."""

from __future__ import annotations

from datetime import UTC, datetime

from markupsafe import Markup

_SHOWN = {
    "clock": "%H:%M",
    "clock_second": "%H:%M:%S",
    "minute": "%Y-%m-%d %H:%M",
    "second": "%Y-%m-%d %H:%M:%S",
}


def moment(seconds: float | None, shown: str) -> Markup:
    """`seconds` of the wall clock as a `time` element, as far as `shown` says; empty for none."""
    if seconds is None:
        return Markup()
    exact = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return Markup('<time datetime="{}" data-shown="{}">{}</time>').format(
        exact.replace("+00:00", "Z"), shown, f"{datetime.fromtimestamp(seconds):{_SHOWN[shown]}}"
    )
