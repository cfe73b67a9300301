"""Regular expressions that are compiled when they are first used: a run needs a tenth of those that there are."""

from __future__ import annotations

import re
from typing import AnyStr, cast


def lazy_pattern(source: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """What `re.compile` gives, as far as its attributes go: the first use of one compiles.

    For names of a module.  After the first use each method costs what it costs of a compiled pattern.  A `source` that
    is no regular expression raises `re.error` only then.
    """
    return cast("re.Pattern[AnyStr]", _LazyPattern(source, flags))


class _LazyPattern:
    """Takes over each attribute of the compiled pattern, such as `search`, when it is first asked for."""

    def __init__(self, source: str | bytes, flags: int) -> None:
        self.pattern = source
        self._flags = flags

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):  # copying and the like look for methods that no pattern has
            raise AttributeError(name)
        value = getattr(re.compile(self.pattern, self._flags), name)  # which `re` compiles once and keeps
        setattr(self, name, value)
        return value

    def __repr__(self) -> str:
        return f"lazy_pattern({self.pattern!r})"
