"""`{date}` in names: a run and its files of their own for each day."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

PLACEHOLDER = "{date}"
_ANY_DATE = r"\d{4}-\d{2}-\d{2}"
_STAND_IN = "0000-00-00"


def dated(name: str, *, now: float | None = None) -> str:
    """`name` with the local date in place of `{date}`: `"news-2026-03-01"`.  `now` is wall-clock seconds."""
    return name.replace(PLACEHOLDER, time.strftime("%Y-%m-%d", time.localtime(now)))


def pattern_of(name: str, stem_of: Callable[[str], str]) -> str:
    """A regular expression for what `stem_of` makes of `name` on any day."""
    return re.escape(stem_of(name.replace(PLACEHOLDER, _STAND_IN))).replace(re.escape(_STAND_IN), _ANY_DATE)
