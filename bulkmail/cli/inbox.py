"""`bulkmail inbox`: what a rehearsal or the sandbox kept."""

from __future__ import annotations

import re
import shutil
import tempfile
import webbrowser
from email.message import EmailMessage
from itertools import islice
from pathlib import Path

import click
from rich.cells import set_cell_size

from bulkmail.config.runs import find_inbox
from bulkmail.model.errors import ConfigError
from bulkmail.model.reply import printable
from bulkmail.model.units import count
from bulkmail.sandbox.inbox import Inbox, Kept

LATEST = 25  # messages of a list that is not asked for whole
HEADERS = ("Date", "From", "Reply-To", "To", "Cc", "Delivered-To", "Return-Path", "Subject")
EPILOG = """\b
Examples:
  bulkmail inbox spring               the latest that its rehearsal wrote
  bulkmail inbox spring 3             the third message as text
  bulkmail inbox spring 3 --open      its HTML in the browser
  bulkmail inbox runs/sandbox.maildir --all
"""


@click.command(epilog=EPILOG)
@click.argument("place", metavar="[CAMPAIGN|MAILDIR]", default=".")
@click.argument("number", metavar="[N]", required=False, type=click.IntRange(min=1))
@click.option("--all", "whole", is_flag=True, help=f"List all, not only the latest {LATEST}.")
@click.option("--open", "in_browser", is_flag=True, help="Show the HTML of message N in the browser.")
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
        _open(inbox.get(number), number)
    else:
        _show(inbox.get(number))


def _list(inbox: Inbox, maildir: Path, *, whole: bool) -> None:
    shown = len(inbox) if whole else min(LATEST, len(inbox))
    click.echo(f"{count(len(inbox), 'message')} in {maildir}")
    if shown < len(inbox):
        click.echo(f"The latest {shown}; --all lists them all.")
    width = max(60, min(shutil.get_terminal_size().columns, 120)) if whole else 80
    for kept in reversed(list(islice(reversed(inbox), shown))):
        click.echo(_row(kept, width))


def _row(kept: Kept, width: int) -> str:
    """Number, forward path, subject; cut by what a terminal shows, where some letters take two places."""
    number, path = f"{kept.number:>5}", set_cell_size(kept.forward_path or kept.to, 30)
    return f"{number}  {path}  {set_cell_size(kept.subject, width - 39)}".rstrip()


def _show(message: EmailMessage) -> None:
    for name in HEADERS:
        for value in message.get_all(name, []):
            click.echo(f"{name + ':':<14}{printable(str(value))}")
    click.echo()
    body = message.get_body(("plain", "html"))
    if body is None:
        click.echo("(no text)")
    else:
        click.echo(_safe(body.get_content().rstrip()))
        if body.get_content_type() == "text/html":
            click.echo("\n(only HTML; --open shows it in the browser)")
    for part in message.iter_attachments():
        content = part.get_payload(decode=True) or b""
        size = len(content) if isinstance(content, bytes) else 0
        click.echo(
            f"\nAttached: {printable(part.get_filename() or 'no name')} ({part.get_content_type()}, {size:,} bytes)"
        )


def _safe(text: str) -> str:
    """Line ends and tabs stay; what could steer the terminal does not."""
    return re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "\N{REPLACEMENT CHARACTER}", text)


def _open(message: EmailMessage, number: int) -> None:
    body = message.get_body(("html",))
    if body is None:
        raise ConfigError(f"message {number} has no HTML", hint="leave --open out to read its text")
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", prefix=f"bulkmail-{number}-", suffix=".html", delete=False
    ) as file:  # stays: the browser reads it after we are gone
        file.write(_without_scripts(body.get_content()))
    path = Path(file.name)
    if not webbrowser.open(path.as_uri()):
        click.echo("No browser is to be found here.", err=True)
    click.echo(f"Message {number} is in {path}")


# UTF-8 for what says nothing; and no scripts, which a mail reader would not run either.
_META = """<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="script-src 'none'">"""


def _without_scripts(html: str) -> str:
    """The page with scripts forbidden, in its head if it has one."""
    changed, found = re.subn(
        r"(<head(?:\s[^>]*)?>)", lambda match: match[1] + _META, html, count=1, flags=re.IGNORECASE
    )
    return changed if found else _META + html
