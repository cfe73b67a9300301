"""Every fault of a campaign at once, each with its place, what was found there and how to fix it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Generic, TypeVar

from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.text import printable

T = TypeVar("T")

LONGEST_VALUE = 60  # characters of a value that are repeated in an error


@dataclass(frozen=True, slots=True)
class Said(Generic[T]):
    """A value as written, where (`"shop/campaign.toml:9: rate"`, `"--rate"`), and the folder its paths start from.

    `is_secret`: the value is not to be repeated in an error.
    """

    value: T
    place: str
    folder: Path
    is_secret: bool = False

    @property
    def is_typed(self) -> bool:
        """Whether a flag says it."""
        return self.place.startswith("--")

    def __str__(self) -> str:
        """The place with the value, as errors begin."""
        if self.is_secret or not isinstance(self.value, str | int | float):
            return self.place
        joint = " " if self.is_typed else " = "
        return f"{self.place}{joint}{show(self.value)}"


def show(value: str | int | float) -> str:
    """`value` as TOML writes it, on one line, cut to what a terminal can show."""
    if isinstance(value, str):
        return json.dumps(printable(value, LONGEST_VALUE), ensure_ascii=False)
    return json.dumps(value)


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault: `text` begins with its place; `fix` says what to do about it, or is empty."""

    text: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.text}; {self.fix}" if self.fix else self.text


class Problems:
    """Collects faults, so that a person fixes them in one go."""

    def __init__(self) -> None:
        self._found: list[Problem] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, text: str, fix: str = "") -> None:
        """Remembers a fault; the same one twice counts once."""
        problem = Problem(text, fix)
        if problem not in self._found:
            self._found.append(problem)

    def raise_if_any(self, *, next_command: str) -> None:
        """Raises one `ConfigError` that lists all faults; `next_command` is what to type then, empty the same again."""
        if not self._found:
            return
        if len(self._found) == 1:
            raise ConfigError(self._found[0].text, hint=self._found[0].fix)
        lines = "".join(f"\n  {problem}" for problem in _by_line(self._found))
        hint = f"fix them, then type: {next_command}" if next_command else "fix them, then type the same again"
        raise ConfigError(f"{len(self._found)} things are wrong; nothing was sent:{lines}", hint=hint)


_PLACE = lazy_pattern(r"([^\n]*?):(\d+): ")


def _by_line(problems: list[Problem]) -> list[Problem]:
    """File by file as they came up, and in each by line; what has no line stays where it is."""
    files: dict[str, int] = {}

    def order(problem: Problem) -> tuple[int, int]:
        found = _PLACE.match(problem.text)
        file = found[1] if found else ""
        return files.setdefault(file, len(files)), int(found[2]) if found else 0

    return sorted(problems, key=order)
