"""`bulkmail check`: what is wrong with list, letter or settings."""

from __future__ import annotations

import sys
from typing import Any

import anyio
import click

from bulkmail.cli.choices import campaign_options, overrides_from
from bulkmail.cli.progress import Progress, make_progress
from bulkmail.config.keys import find_keys
from bulkmail.config.settings import Settings, load
from bulkmail.mailing.ordering import check
from bulkmail.model.delivery import Status
from bulkmail.model.keys import Keys
from bulkmail.model.reply import printable
from bulkmail.model.tally import EXIT_NOTHING_SENT, EXIT_OK, Tally
from bulkmail.model.units import count
from bulkmail.preflight.finding import Finding, Severity

LONGEST_FINDING = 2_000  # characters
EPILOG = """\b
Examples:
  bulkmail check spring
  bulkmail check spring --where "country == 'AT'"
"""


@click.command(epilog=EPILOG)
@click.argument("campaign", required=False)
@campaign_options
def command(campaign: str | None, **options: Any) -> int:
    """Say what is wrong with list, letter or settings, and send nothing.

    Every row is read and every letter tried.  Exit code: 0 it can be sent, 2
    it would be refused.
    """
    settings = load(campaign, overrides_from(options))
    progress = make_progress("auto" if sys.stderr.isatty() else "none")
    findings, notices, tally = anyio.run(_check, settings, find_keys(settings.campaign), progress)
    for notice in notices:
        click.echo(f"note: {printable(notice, LONGEST_FINDING)}")
    for finding in findings:
        _tell(finding)
    return _conclude(settings, tally, findings)


async def _check(settings: Settings, keys: Keys, progress: Progress) -> tuple[list[Finding], list[str], Tally]:
    with progress:
        return await check(
            settings,
            keys=keys,
            reading=lambda rows: progress.step("reading", done=rows),
            checking=lambda rows: progress.step("checking", done=rows),
        )


def _tell(finding: Finding) -> None:
    where = f"{finding.where}: " if finding.where else ""
    click.echo(f"{finding.severity.value}: {printable(where + finding.message, LONGEST_FINDING)}")
    if finding.mend:
        click.echo(f"  {printable(finding.mend, LONGEST_FINDING)}")


def _conclude(settings: Settings, tally: Tally, findings: list[Finding]) -> int:
    """Says whether it would be sent, and to how many."""
    left_out = ", ".join(
        f"{tally[status]:,} {status.value}" for status in Status if tally[status] and not status.is_eligible
    )
    people = f"{count(tally.open, 'recipient')} of {count(tally.rows, 'row')}" + (f" ({left_out})" if left_out else "")
    if any(finding.severity is Severity.ERROR for finding in findings) or not tally.open:
        click.echo(f"Not ready: {printable(settings.name)} would go to {people}.")
        return EXIT_NOTHING_SENT
    through = f"through {printable(str(settings.relay))}" if settings.relay is not None else "when a relay is named"
    click.echo(f"Ready: {printable(settings.name)} goes to {people}, {through}.")
    return EXIT_OK
