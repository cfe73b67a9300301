"""`bulkmail worker`: one more machine that sends from a store."""

from __future__ import annotations

import os

import anyio
import click

from bulkmail.cli.choices import metrics_option
from bulkmail.cli.in_store import StorePlace
from bulkmail.cli.metrics import counted
from bulkmail.cli.progress import make_progress
from bulkmail.cli.running import run_async, watch_signals
from bulkmail.cli.tracing import progress_option
from bulkmail.mailing.store_worker import StoreWorker

EPILOG = """\b
Examples:
  bulkmail worker postgresql://mailer@db.example.com/mail
  BULKMAIL_STORE=postgresql:///mail bulkmail worker --drain
"""


@click.command(epilog=EPILOG)
@click.argument("url", required=False)
@click.option("--campaign", metavar="NAME", default="", help="Send from this campaign only.")
@click.option(
    "--connections", type=click.IntRange(min=1), metavar="N", help="Maximum number of connections of this worker."
)
@click.option("--drain", is_flag=True, help="End when no campaign has anything left to send.")
@progress_option
@metrics_option
def command(
    url: str | None, campaign: str, connections: int | None, drain: bool, mode: str, metrics_port: int | None
) -> None:
    """Send from the campaigns in a store, together with other workers.

    URL is postgresql://USER@HOST/DATABASE; without it BULKMAIL_STORE is used. The relays' passwords come from this
    machine, from where each campaign says. Ctrl-C or SIGTERM finishes the messages under way and ends the worker.
    """
    place = StorePlace(url or "")

    async def main() -> None:
        async with place.opened():
            pass  # says what is wrong before anything is begun
        worker = StoreWorker(
            place.url,
            say=progress.note,
            observe=progress.observe,
            only=campaign,
            connections=connections,
            drains=drain,
        )
        progress.note(f"worker {os.getpid()} waits for campaigns in {place.shown}")
        with progress:
            async with anyio.create_task_group() as group:
                await group.start(watch_signals, worker, group.cancel_scope)
                await worker.run()
                group.cancel_scope.cancel()

    with counted(make_progress(mode), metrics_port) as progress:
        run_async(main)
