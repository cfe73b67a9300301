"""`bulkmail purge`: runs that are old enough are removed, with their reports."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from bulkmail.cli.param_types import AGE
from bulkmail.mailing.operator import find_old, remove
from bulkmail.model.errors import ConfigError, OutboxError
from bulkmail.model.tally import EXIT_SOME_FAILED
from bulkmail.text import count, printable

EPILOG = """\b
Examples:
  bulkmail purge --older-than 90d --dry-run
  bulkmail purge newsletters --older-than 365d --yes
"""


@click.command(epilog=EPILOG)
@click.argument(
    "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), default=".", metavar="[FOLDER]"
)
@click.option("--older-than", "age", required=True, type=AGE, help="Only runs that ended before this long ago: 90d.")
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def command(folder: Path, age: float, dry_run: bool, yes: bool) -> int:
    """Remove old runs below FOLDER (default: this one) with reports and kept mail.

    A run with rows that are open or in doubt is never removed, nor is an
    earlier pass of a campaign whose latest pass stays. The suppression list
    stays as it is.
    """
    old, kept = find_old(folder, before=time.time() - age)
    for run in old:
        said = f", with {count(len(run.others), 'file')} beside it" if run.others else ""
        click.echo(f"{'would be removed' if dry_run else 'to remove'}: {printable(str(run.outbox), 4_000)}{said}")
    for path, why in kept:
        click.echo(f"kept: {printable(str(path), 4_000)}: {printable(why)}", err=True)
    if dry_run or not old:
        click.echo(f"{count(len(old), 'run')} {'would be ' if dry_run else ''}removed")
        return 0
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError(
                "this cannot be undone, and there is no terminal to ask for confirmation",
                hint="add --yes, or --dry-run",
            )
        click.confirm(f"{count(len(old), 'run')} will be removed for good. Go on?", abort=True, err=True)
    removed = 0
    for run in old:
        try:
            remove(run)
            removed += 1
        except OutboxError as error:
            click.echo(f"kept: {printable(str(run.outbox), 4_000)}: {printable(str(error))}", err=True)
    click.echo(f"{count(removed, 'run')} removed")
    return 0 if removed == len(old) else EXIT_SOME_FAILED
