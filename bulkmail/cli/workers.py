"""`bulkmail workers`: who sends from a store."""

from __future__ import annotations

import time

import click

from bulkmail.cli.in_store import StorePlace
from bulkmail.cli.program import json_option, note_result
from bulkmail.cli.running import run_async
from bulkmail.cluster.campaigns import Sender, senders
from bulkmail.model.quantities import say_duration
from bulkmail.text import count, printable

EPILOG = """\b
Examples:
  bulkmail workers postgresql://mailer@db.example.com/mail
  BULKMAIL_STORE=postgresql:///mail bulkmail workers --json
"""


@click.command(epilog=EPILOG)
@click.argument("url", required=False)
@json_option
def command(url: str | None) -> None:
    """Show the workers that send from a store.

    URL is postgresql://USER@HOST/DATABASE; without it BULKMAIL_STORE is used.
    """
    place = StorePlace(url or "")

    async def main() -> list[Sender]:
        async with place.opened() as connection:
            return await senders(connection, place.url)

    found = run_async(main)
    if note_result({"workers": [_object(each) for each in found]}):
        return
    if not found:
        click.echo(f"No worker is there for {place.shown}.")
    for each in found:
        campaigns = ", ".join(printable(name, 60) for name in each.campaigns) or "no campaign"
        click.echo(
            f"{printable(each.host, 60)}  process {each.pid}  bulkmail {each.version}"
            f"  for {say_duration(max(0.0, time.time() - each.since))}  {campaigns}"
            f"  {count(each.held, 'shard')} held"
        )


def _object(worker: Sender) -> dict[str, object]:
    return {
        "host": worker.host,
        "pid": worker.pid,
        "version": worker.version,
        "campaigns": list(worker.campaigns),
        "shards_held": worker.held,
        "lease_seconds": round(worker.lease, 1),
    }
