"""What the checks found, for people and for programs."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby

import click

from bulkmail.checks.check_finding import Finding, Severity
from bulkmail.model.lazy import lazy_pattern
from bulkmail.model.schedule import Planned
from bulkmail.model.tally import Tally
from bulkmail.report.planned import as_object
from bulkmail.text import printable

WIDTH = 80  # columns
LONGEST_FINDING = 2_000  # characters
_COLORS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
_PLACE = lazy_pattern(r"(?P<file>.+):(?P<line>\d+)")


def reported(findings: Sequence[Finding]) -> Iterator[str]:
    """The lines to print: all findings of one kind together, why and fix said once."""
    for (code, severity), group in groupby(findings, key=lambda finding: (finding.code, finding.severity)):
        same = list(group)
        for finding in same:
            yield from _wrapped(finding)
        fixes = dict.fromkeys(finding.fix for finding in same if finding.fix)
        for text in (same[0].why, *[f"Fix: {fix}" for fix in fixes]):
            if text:
                yield from _indented(text)
        yield f"  [{code}]"
        if severity is not Severity.NOTE:
            yield ""


def _wrapped(finding: Finding) -> list[str]:
    label = f"{finding.severity.value}:"
    where = f"{finding.where}: " if finding.where else ""
    lines = textwrap.wrap(
        f"{label} {printable(where + finding.message, LONGEST_FINDING)}",
        WIDTH, subsequent_indent="  ", break_on_hyphens=False,
    )  # fmt: skip
    if os.environ.get("NO_COLOR"):
        return lines
    return [click.style(label, fg=_COLORS[finding.severity], bold=True) + lines[0][len(label) :], *lines[1:]]


def _indented(text: str) -> list[str]:
    return textwrap.wrap(
        printable(text, LONGEST_FINDING), WIDTH,
        initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False,
    )  # fmt: skip


def to_json(
    name: str,
    findings: Sequence[Finding],
    notices: Sequence[str],
    tally: Tally,
    planned: Planned | None,
    *,
    is_ready: bool,
) -> str:
    """One object; what is not known of a finding is null or empty, as is `planned` without planned times."""
    found = {
        "campaign": name,
        "ready": is_ready,
        "rows": tally.rows,
        "recipients": tally.open_rows,
        "by_status": {status.value: number for status, number in tally.by_status.items()},
        "planned": planned and as_object(planned),
        "notices": list(notices),
        "findings": [_as_json(finding) for finding in findings],
    }
    return json.dumps(found, ensure_ascii=True, indent=2)


def _as_json(finding: Finding) -> dict[str, object]:
    place = _PLACE.fullmatch(finding.where)
    return {
        "code": finding.code,
        "severity": finding.severity.value,
        "message": finding.message,
        "where": finding.where or None,
        "file": place["file"] if place else None,
        "line": int(place["line"]) if place else None,
        "column": finding.column or None,
        "rows": finding.lines,
        "rows_in_all": finding.times,
        "why": finding.why,
        "fix": finding.fix,
    }
