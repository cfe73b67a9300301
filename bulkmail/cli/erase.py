"""`bulkmail erase`: an address taken out of everything that bulkmail keeps."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bulkmail.cli.param_types import ADDRESS
from bulkmail.cli.which_list import list_options
from bulkmail.mailing.operator import erase_everywhere, find_outboxes
from bulkmail.mailing.suppression_list import open_settings
from bulkmail.model.errors import ConfigError
from bulkmail.model.recipient import Address
from bulkmail.model.tally import EXIT_SOME_FAILED
from bulkmail.settings.suppressions import SuppressionSettings
from bulkmail.text import count, printable

EPILOG = """\b
Examples:
  bulkmail erase ann@example.com --dry-run
  bulkmail erase ann@example.com newsletters invoices
"""


@click.command(epilog=EPILOG)
@click.argument("address", type=ADDRESS)
@click.argument(
    "folders", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="[FOLDER]..."
)
@list_options
@click.option("--dry-run", is_flag=True, help="Show what would be erased, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def command(address: Address, folders: tuple[Path, ...], dry_run: bool, yes: bool, chosen: SuppressionSettings) -> int:
    """Erase an address from the suppression list, finished runs and their reports.

    Looks at the runs that the suppression list knows and at those below each
    FOLDER (default: this one). The keyed digest stays on the list, so that the
    address is still skipped. Your own recipient lists are not changed. Exit code
    1: the address is still in the files listed.
    """
    key = address.key
    if not (yes or dry_run):
        if not sys.stdin.isatty():
            raise ConfigError(
                "this cannot be undone, and there is no terminal to ask for confirmation",
                hint="add --yes, or --dry-run",
            )
        click.confirm(f"{key} will be erased for good. Go on?", abort=True, err=True)
    known, records = [], 0
    if chosen.is_there():
        with open_settings(chosen) as store:
            known = [run.outbox for run in store.runs() if run.outbox]
            history = store.history(key)
            records = len(history.entries) + len(history.events)
            if not dry_run:
                store.erase(key)
                store.shrink()
    done = erase_everywhere(key, find_outboxes(folders or (Path("."),), known), dry_run=dry_run)
    would = "would be " if dry_run else ""
    click.echo(f"{count(records, 'record')} of the suppression list {would}blanked")
    for path in (*done.outboxes, *done.reports):
        click.echo(f"{would}erased: {printable(str(path), 4_000)}")
    if done.messages:
        click.echo(f"{count(done.messages, 'message')} of rehearsals {would}removed")
    for path, why in done.left:
        click.echo(f"left: {printable(str(path), 4_000)}: {printable(why)}", err=True)
    return EXIT_SOME_FAILED if done.left else 0
