"""`bulkmail preview`: the letters as they would go out."""

from __future__ import annotations

import tempfile
import webbrowser
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import click

from bulkmail.cli.choices import campaign_options, overrides_from
from bulkmail.config.keys import find_keys
from bulkmail.config.settings import Settings, load
from bulkmail.mailing.ordering import letters
from bulkmail.model.address import Address
from bulkmail.model.errors import AddressError, ConfigError, TemplateError
from bulkmail.model.message import Message
from bulkmail.model.recipient import Recipient
from bulkmail.model.reply import printable
from bulkmail.model.units import count
from bulkmail.preview.files import write_message, write_page
from bulkmail.preview.parts import parse
from bulkmail.preview.text import plain_view

EPILOG = """\b
Examples:
  bulkmail preview spring                     the first letter, here
  bulkmail preview spring --row 3 --open      the third, in the browser
  bulkmail preview spring --all --out letters as .eml, .txt and .html files
"""


@click.command(epilog=EPILOG)
@click.argument("campaign", required=False)
@click.option("--row", type=click.IntRange(min=1), metavar="N", help="The letter of row N of the list.")
@click.option("--address", metavar="ADDRESS", help="The letter of this address.")
@click.option("--all", "whole", is_flag=True, help="The letters of all rows.")
@click.option(
    "--out", "folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Write files here."
)
@click.option("--open", "in_browser", is_flag=True, help="Show the letter in the browser.")
@campaign_options
def command(
    campaign: str | None,
    row: int | None,
    address: str | None,
    whole: bool,
    folder: Path | None,
    in_browser: bool,
    **options: Any,
) -> None:
    """Show the letters as they would go out, and send nothing.

    Without --row, --address or --all it is the first letter.
    """
    if sum((row is not None, address is not None, whole)) > 1:
        raise ConfigError("--row, --address and --all each say which letters are meant", hint="keep one of them")
    if in_browser and whole:
        raise ConfigError(
            "--open shows one letter, not all", hint="say which with --row N, or write all with --out DIR"
        )
    settings = load(campaign, overrides_from(options))
    found: Iterable[tuple[int, Recipient, Message | TemplateError]] = letters(
        settings, keys=find_keys(settings.campaign), row=row, address=_checked(address)
    )
    if not whole and address is None:
        found = islice(found, 1)
    shown = 0
    for number, recipient, message in found:
        if isinstance(message, TemplateError):
            if not whole:
                raise message
            click.echo(f"error: row {number}, {printable(f'{recipient.place}: {message}', 1000)}", err=True)
            continue
        shown += 1
        if in_browser:
            _open(message, folder, _stem(number, recipient))
        elif folder is not None:
            write_message(message, folder, _stem(number, recipient))
        else:
            click.echo(f"── row {number}, {printable(str(recipient.place))} ──")
            click.echo(plain_view(parse(message)))
    if not shown:
        raise _nobody(settings, row=row, address=address)
    if folder is not None:
        click.echo(f"{count(shown, 'letter')} written to {folder}")


def _checked(address: str | None) -> str:
    if address is None:
        return ""
    try:
        return Address.parse(address).wire
    except AddressError as error:
        raise ConfigError(f"--address {address!r} {error}", hint="write it as ann@example.com") from None


def _stem(number: int, recipient: Recipient) -> str:
    return f"{number:05}-{recipient.address.wire}"


def _open(message: Message, folder: Path | None, stem: str) -> None:
    target = folder if folder is not None else Path(tempfile.mkdtemp(prefix="bulkmail-"))  # the browser reads it later
    page = write_page(message, target, stem)
    if not webbrowser.open(page.absolute().as_uri()):
        click.echo("There is no browser here that could be opened.", err=True)
    click.echo(f"The letter is in {page}")


def _nobody(settings: Settings, *, row: int | None, address: str | None) -> ConfigError:
    source = settings.list_source or "--to"
    if row is not None:
        what = f"row {row} of {source} is not there or cannot be used"
    elif address is not None:
        what = f"nobody in {source} has the address {address}"
    else:
        what = f"nobody in {source} can be written to"
    return ConfigError(what, hint="bulkmail check says what is wrong with each row")
