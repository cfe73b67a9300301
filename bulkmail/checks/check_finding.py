"""One thing that the checks found, and what it means for sending."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from enum import Enum

from bulkmail.model.errors import ChecksFailed
from bulkmail.model.lazy import dataclass

SHOWN = 5  # lines of the list named in one finding


class Severity(Enum):
    """ERROR stops the campaign; WARNING concerns some rows or some readers; NOTE is good to know."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"

    @property
    def rank(self) -> int:
        """0 for the gravest."""
        return list(Severity).index(self)


@dataclass(frozen=True, slots=True)
class Finding:
    """`code` is a stable word to refer to it by, `where` a file and line or a column; `fix` says what to do.

    `why` says what happens if nothing is done.  `lines` are the first lines of the list that it is about, `times` is
    how many there are in all.
    """

    code: str
    severity: Severity
    message: str
    where: str = ""
    fix: str = ""
    why: str = ""
    column: str = ""
    lines: tuple[int, ...] = ()
    times: int = 0


@dataclass(slots=True)
class Hits:
    """The lines of the list that something is true of: the first few, and how many."""

    number: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, line: int) -> None:
        """One more."""
        self.number += 1
        if len(self.first) < SHOWN:
            self.first.append(line)

    def __str__(self) -> str:
        """`"line 3"`, `"lines 4, 17, 33 and 9 more"`."""
        shown = ", ".join(f"{line}" for line in self.first)
        more = f", … and {self.number - len(self.first):,} more" if self.number > len(self.first) else ""
        return f"line{'s' if self.number > 1 else ''} {shown}{more}"


def is_refused(findings: Iterable[Finding], *, strict: bool = False) -> bool:
    """Whether nothing may be sent; with `strict` a warning is reason enough."""
    return any(_refuses(finding, strict=strict) for finding in findings)


def refuse(findings: Iterable[Finding], *, strict: bool = False) -> None:
    """Raises `ChecksFailed` with all that `is_refused` counts among `findings`; returns if there is nothing."""
    refusing = [finding for finding in findings if _refuses(finding, strict=strict)]
    if refusing:
        fixes = dict.fromkeys(finding.fix for finding in refusing if finding.fix)
        raise ChecksFailed(
            "nothing was sent: "
            + "; ".join(f"{found.where}: {found.message}".removeprefix(": ") for found in refusing),
            hint="; ".join(fixes),
        )


def _refuses(finding: Finding, *, strict: bool) -> bool:
    return finding.severity is Severity.ERROR or (strict and finding.severity is Severity.WARNING)
