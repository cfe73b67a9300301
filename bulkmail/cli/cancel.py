"""`bulkmail cancel`: a run is over, whatever was left of it."""

from __future__ import annotations

import click

from bulkmail.cli.in_store import StorePlace, store_option
from bulkmail.cli.in_store import cancel as cancel_in_store
from bulkmail.cli.running import run_async
from bulkmail.mailing.operator import CANCEL_WAIT, cancel
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.settings.runs import find_run
from bulkmail.text import count

EPILOG = """\b
Examples:
  bulkmail cancel newsletter
  bulkmail cancel newsletter --store
"""


@click.command(epilog=EPILOG)
@click.argument("run")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0, max=86_400),
    default=CANCEL_WAIT,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for a run that is being sent to end.",
)
@store_option
def command(run: str, yes: bool, wait: float, store: str | None) -> None:
    """Cancel a run. Recipients not yet sent to are skipped.

    RUN is an outbox file, or a campaign (its latest run); with --store the name of a campaign there. A run that is
    being sent is stopped first.
    """
    if store is not None:
        cancel_in_store(StorePlace(store), run, yes=yes, wait=wait)
        return
    path = find_run(run, rehearsals=False)
    with OutboxReader.open(path) as reader:
        left, is_running = reader.tally().open, reader.is_running is not None
    if not left:
        click.echo(f"There is nothing to cancel in {path}.")
        return
    if not yes:
        if is_running:
            click.echo(f"{path} is being sent now, and will be stopped first.", err=True)
        click.confirm(f"{count(left, 'recipient')} will be skipped. Cancel them?", abort=True, err=True)
    number = run_async(lambda: cancel(path, wait=wait))
    click.echo(f"{count(number, 'recipient')} cancelled in {path}.")
