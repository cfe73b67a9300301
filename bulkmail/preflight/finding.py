"""One thing that the preflight found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from bulkmail.model.errors import GateClosed


class Severity(Enum):
    """ERROR keeps the gate shut; WARNING concerns some rows or some readers; NOTE is good to know."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """`code` is a stable word to refer to it by; `where` is a file and line or a column; `mend` says what to do."""

    code: str
    severity: Severity
    message: str
    where: str = ""
    mend: str = ""


def refuse(findings: Iterable[Finding]) -> None:
    """Raises `GateClosed` with all errors among `findings`; returns if there is none."""
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if errors:
        mends = dict.fromkeys(finding.mend for finding in errors if finding.mend)
        raise GateClosed(
            "nothing was sent: " + "; ".join(f"{error.where}: {error.message}".removeprefix(": ") for error in errors),
            hint="; ".join(mends),
        )
