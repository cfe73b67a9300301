"""`bulkmail inbox`: what a rehearsal or the sandbox kept."""

from __future__ import annotations

import shutil
import tempfile
import webbrowser
from itertools import islice
from pathlib import Path

import click
from rich.cells import set_cell_size

from bulkmail.config.runs import find_inbox
from bulkmail.model.errors import ConfigError
from bulkmail.model.message import Envelope, Message
from bulkmail.model.units import count
from bulkmail.preview.files import write_page
from bulkmail.preview.text import plain_view
from bulkmail.sandbox.inbox import Inbox, Kept

LATEST = 25  # messages of a list that is not asked for whole
EPILOG = """\b
Examples:
  bulkmail inbox spring               the latest that its rehearsal kept
  bulkmail inbox spring 3             the third message as text
  bulkmail inbox spring 3 --open      the same in the browser, with its HTML
  bulkmail inbox runs/sandbox.inbox --all
"""


@click.command(epilog=EPILOG)
@click.argument("place", metavar="[CAMPAIGN|MAILDIR]", default=".")
@click.argument("number", metavar="[N]", required=False, type=click.IntRange(min=1))
@click.option("--all", "whole", is_flag=True, help=f"List all, not only the latest {LATEST}.")
@click.option("--open", "in_browser", is_flag=True, help="Show message N in the browser.")
def command(place: str, number: int | None, whole: bool, in_browser: bool) -> None:
    """List what a rehearsal or the sandbox kept, or show message N.

    Without a campaign the latest mail folder in runs/ here is meant.
    """
    if number is None and place.isascii() and place.isdigit() and not Path(place).exists():
        place, number = ".", int(place)
    maildir = find_inbox(place)
    inbox = Inbox(maildir)
    if number is None:
        if in_browser:
            raise ConfigError("--open shows one message", hint=f"name its number: bulkmail inbox {place} 1 --open")
        _list(inbox, maildir, whole=whole)
    elif in_browser:
        _open(inbox.read(number), number)
    else:
        click.echo(plain_view(inbox.get(number)), nl=False)


def _list(inbox: Inbox, maildir: Path, *, whole: bool) -> None:
    shown = len(inbox) if whole else min(LATEST, len(inbox))
    click.echo(
        f"{count(len(inbox), 'message')} in {maildir}" + ("" if shown == len(inbox) else f", the latest {shown}:")
    )
    width = max(40, min(80, shutil.get_terminal_size().columns))
    for kept in reversed(list(islice(reversed(inbox), shown))):
        click.echo(_row(kept, width))


def _row(kept: Kept, width: int) -> str:
    """Number, forward path and subject, cut to what a terminal shows: some letters take two places, some none."""
    path = set_cell_size(kept.forward_path or kept.to, 30)
    return f"{kept.number:>5}  {path}  {set_cell_size(kept.subject, width - 39)}".rstrip()


def _open(content: bytes, number: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="bulkmail-"))  # stays: the browser reads it after we are gone
    page = write_page(Message(Envelope("", ""), "", [content]), folder, f"message-{number}")
    if not webbrowser.open(page.absolute().as_uri()):
        click.echo("There is no browser here that could be opened.", err=True)
    click.echo(f"Message {number} is in {page}")
