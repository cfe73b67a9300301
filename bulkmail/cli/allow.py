"""`bulkmail allow`: a campaign or an outbox may run the commands that it names."""

from __future__ import annotations

from pathlib import Path

import click

from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.settings.allowed_commands import LONGEST_SHOWN, VARIABLE, allow, commands_in, forget, home_of
from bulkmail.settings.runs import is_campaign_file
from bulkmail.settings.settings import load
from bulkmail.text import printable

EPILOG = f"""\b
Examples:
  bulkmail allow spring
  bulkmail allow spring/runs/spring.outbox
  bulkmail allow spring --forget

\b
Without a terminal: {VARIABLE} lists the folders and
outboxes that may run their commands, separated as in PATH.
"""


@click.command(epilog=EPILOG)
@click.argument("place", metavar="CAMPAIGN|OUTBOX")
@click.option("--forget", "is_forgotten", is_flag=True, help="Revoke the permission.")
def command(place: str, is_forgotten: bool) -> None:
    """Allow a campaign or an outbox to run the commands it names.

    password_command, key_command and the like run programs. bulkmail runs
    them only for a place that you have allowed, and only the commands that
    were there then; when one changes, it asks for permission again.
    """
    path = Path(place)
    is_outbox = path.is_file() and not is_campaign_file(path)
    where = path if is_outbox else home_of(place)
    if is_forgotten:
        click.echo(f"{where}: " + ("nothing is allowed any more" if forget(where) else "nothing was allowed"))
        return
    commands = _of_outbox(path) if is_outbox else _of_campaign(place)
    if not commands:
        click.echo(f"{where} names no commands.")
        return
    allow(where, commands)
    click.echo(f"{where} may now run:")
    for each in commands:
        click.echo(f"  {printable(each, LONGEST_SHOWN)}")


def _of_campaign(place: str) -> tuple[str, ...]:
    settings = load(place, needs_list=False)
    return commands_in(settings.campaign, settings.routes, settings.notify)


def _of_outbox(path: Path) -> tuple[str, ...]:
    with OutboxReader.open(path) as reader:
        routes, _ = reader.info.read_sending(path)
        return commands_in(reader.campaign, routes, reader.info.notify)
