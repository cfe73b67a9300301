"""`bulkmail cancel`: a run is over, whatever was left of it."""

from __future__ import annotations

import click

from bulkmail.outbox.outbox import Outbox
from bulkmail.settings.runs import find_run
from bulkmail.text import count

EPILOG = """\b
Example:
  bulkmail cancel newsletter
"""


@click.command(epilog=EPILOG)
@click.argument("run")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def command(run: str, yes: bool) -> None:
    """Cancel a run. Recipients not yet sent to are skipped.

    RUN is an outbox file, or a campaign (its latest run).
    """
    path = find_run(run, rehearsals=False)
    outbox = Outbox.open(path)
    try:
        left = outbox.tally().open
        if not left:
            click.echo(f"There is nothing to cancel in {path}.")
            return
        if not yes:
            click.confirm(f"{count(left, 'recipient')} have not been sent to. Cancel them?", abort=True, err=True)
        click.echo(f"{count(outbox.cancel(), 'recipient')} cancelled in {path}.")
        outbox.finish()
    finally:
        outbox.close()
