"""`bulkmail inbox`: what a rehearsal or the sandbox kept."""

from __future__ import annotations

import shutil
import tempfile
from itertools import islice
from pathlib import Path

import click
from rich.cells import set_cell_size

from bulkmail.model.delivery import Envelope, Message
from bulkmail.model.errors import BulkmailError
from bulkmail.preview.message_parts import plain_view
from bulkmail.sandbox.inbox import Inbox, Kept
from bulkmail.settings.runs import find_inbox
from bulkmail.text import count

LATEST = 25  # messages of a list that is not asked for whole
EPILOG = """\b
Examples:
  bulkmail inbox spring               the latest that its rehearsal kept
  bulkmail inbox spring 3             the third message as text
  bulkmail inbox spring 3 --open      the same in the browser, with its HTML
  bulkmail inbox spring --open        the latest in the browser
  bulkmail inbox runs/sandbox.inbox --all
"""


@click.command(epilog=EPILOG)
@click.argument("place", metavar="[CAMPAIGN|MAILDIR]", default=".")
@click.argument("number", metavar="[N]", required=False, type=click.IntRange(min=1))
@click.option("--all", "whole", is_flag=True, help=f"List all, not only the latest {LATEST}.")
@click.option("--open", "in_browser", is_flag=True, help="Show message N, or the latest, in the browser.")
def command(place: str, number: int | None, whole: bool, in_browser: bool) -> None:
    """List what a rehearsal or the sandbox kept, or show message N.

    Without a campaign, uses the latest mail folder in ./runs/.
    """
    if number is None and place.isascii() and place.isdigit() and not Path(place).exists():
        place, number = ".", int(place)
    maildir = find_inbox(place)
    inbox = Inbox(maildir)
    if in_browser:
        _open(inbox, number or len(inbox))
    elif number is None:
        _list(inbox, maildir, whole=whole)
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
    room = min(30, (width - 9) // 2)
    path = set_cell_size(kept.forward_path or kept.to, room)
    return f"{kept.number:>5}  {path}  {set_cell_size(kept.subject, width - 9 - room)}".rstrip()


def _open(inbox: Inbox, number: int) -> None:
    """Shows message `number` in the browser, with those around it."""
    from bulkmail.cli.browser import show
    from bulkmail.preview.preview_page import MOST_MESSAGES, Album

    inbox.read(number)  # says what is wrong with the number
    first = max(1, min(number - MOST_MESSAGES // 2, len(inbox) - MOST_MESSAGES + 1))
    album, chosen = Album(), 0
    for other in range(first, len(inbox) + 1):
        if album.is_full and other > number:
            break
        try:
            message = Message(Envelope("", ""), "", [inbox.read(other)])
            album.add(message, f"message {other}")
        except (BulkmailError, RecursionError):  # gone meanwhile, or too many parts within parts
            if other == number:
                raise
            continue
        if other == number:
            chosen = len(album.sheets) - 1
    folder = Path(tempfile.mkdtemp(prefix="bulkmail-"))  # stays: the browser reads it after we are gone
    page = album.write(folder, f"message-{number}", title="Inbox", chosen=chosen)
    show(page)
    click.echo(f"Message {number} is in {page}")
