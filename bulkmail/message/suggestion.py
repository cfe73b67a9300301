"""What somebody who mistyped a name may have meant."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

_MOST_NAMES = 200
_LONGEST_NAME = 100


def suggest(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'name'?"`, or nothing when no known name is like it."""
    found = closest(name, known)
    return f"; did you mean {found!r}?" if found else ""


def closest(name: str, known: Iterable[str]) -> str:
    """The known name that is most like `name`, or nothing.

    Case, spaces and signs count as equal: somebody who writes `first_name` means the column `First name`.
    """
    spelled: dict[str, str] = {}
    for candidate in islice(known, _MOST_NAMES):
        if 0 < len(candidate) <= _LONGEST_NAME:
            spelled.setdefault(_plain(candidate), candidate)
    close = get_close_matches(_plain(name[:_LONGEST_NAME]), spelled, n=1)
    return spelled[close[0]] if close else ""


def _plain(name: str) -> str:
    return re.sub(r"\W+", "_", name.strip().casefold())
