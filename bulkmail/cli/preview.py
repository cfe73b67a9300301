"""`bulkmail preview`: the messages as they would be sent."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bulkmail.checks.evidence import Found
from bulkmail.cli.choices import campaign_options, follow_up_of, follow_up_options, overrides_from
from bulkmail.cli.groups import GroupedCommand
from bulkmail.cli.param_types import ADDRESS
from bulkmail.cli.words import wrapped
from bulkmail.mailing.ordering import messages
from bulkmail.model.campaign import Keys
from bulkmail.model.delivery import Message
from bulkmail.model.errors import ConfigError, TemplateError
from bulkmail.model.recipient import Address, Recipient
from bulkmail.preview.message_parts import parse, plain_view
from bulkmail.preview.preview_files import write_message
from bulkmail.settings.allowed_commands import commands_in
from bulkmail.settings.secrets import find_keys
from bulkmail.settings.settings import Settings, load
from bulkmail.text import count, printable

if TYPE_CHECKING:
    from bulkmail.preview.preview_page import Album

EPILOG = """\b
Examples:
  bulkmail preview spring                     the first message, here
  bulkmail preview spring --open              the first 200, in the browser
  bulkmail preview spring --row 3 --open      the third
  bulkmail preview spring --sample --open     those that show each branch
  bulkmail preview spring --all --out messages as .eml, .txt and .html files
"""

Shown = tuple[int, Recipient, Message]
_PREVIEWS = "bulkmail-preview-"  # how the folders of pages begin that are shown from the temporary folder
_PREVIEW_KEPT = 86_400.0  # seconds


@click.command(cls=GroupedCommand, epilog=EPILOG)
@click.argument("campaign", required=False)
@click.option("--row", type=click.IntRange(min=1), metavar="N", help="Show the message of row N.")
@click.option("--address", type=ADDRESS, help="Show the message to this address.")
@click.option("--sample", is_flag=True, help="Show a few messages that together cover every branch of the templates.")
@click.option("--all", "whole", is_flag=True, help="Show the messages of all rows.")
@click.option(
    "--out",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write files to this folder.",
)
@click.option("--open", "in_browser", is_flag=True, help="Open a page in the browser, as on a desktop and a phone.")
@campaign_options
@follow_up_options
def command(
    campaign: str | None,
    row: int | None,
    address: Address | None,
    sample: bool,
    whole: bool,
    folder: Path | None,
    in_browser: bool,
    **options: Any,
) -> None:
    """Show the messages as they would be sent, and send nothing.

    Without --row, --address, --sample or --all, shows the first message; in the
    browser, the first 200.
    """
    if sum((row is not None, address is not None, sample, whole)) > 1:
        raise ConfigError("--row, --address, --sample and --all each say which messages are meant", hint="keep one")
    follow_up = follow_up_of(options)
    settings = load(campaign, overrides_from(options), needs_list=follow_up is None)
    found: Iterable[tuple[int, Recipient, Message | TemplateError]] = messages(
        settings,
        keys=_keys(settings),
        row=row,
        address=address.wire if address else "",
        covers=sample,
        doubted=_tell,
        follow_up=follow_up,
    )
    has_several = sample or whole or address is not None or (in_browser and row is None)
    chosen = _good(found if has_several else islice(found, 1), bears_faults=has_several and address is None)
    shown = _open(chosen, settings, folder) if in_browser else _show(chosen, folder)
    if not shown:
        raise _no_one(settings, row=row, address=address)
    if folder is not None and not in_browser:
        click.echo(f"{count(shown, 'message')} written to {folder}")


def _tell(found: Found) -> None:
    click.echo(wrapped(f"error: {printable(f'{found.where}: {found.message}', 1000)}", indent=2), err=True)
    click.echo(wrapped(f"hint: {printable(found.fix, 1000)}; the first of them is shown here", indent=2), err=True)


def _keys(settings: Settings) -> Keys:
    if commands_in(settings.campaign, ()):
        click.echo("note: the messages are signed with a temporary key, not the one that key_command prints", err=True)
    return find_keys(settings.campaign, runs_commands=False)


def _good(found: Iterable[tuple[int, Recipient, Message | TemplateError]], *, bears_faults: bool) -> Iterator[Shown]:
    """The messages; says which rows have none, or raises the reason."""
    for number, recipient, message in found:
        if not isinstance(message, TemplateError):
            yield number, recipient, message
        elif bears_faults:
            click.echo(f"error: row {number}, {printable(f'{recipient.place}: {message}', 1000)}", err=True)
        else:
            raise message


def _show(found: Iterable[Shown], folder: Path | None) -> int:
    """The messages as text, or as files in `folder`; says how many they were."""
    shown = 0
    for number, recipient, message in found:
        shown += 1
        if folder is not None:
            write_message(message, folder, f"{number:05}-{recipient.address.wire}")
        else:
            click.echo(f"── row {number}, {printable(str(recipient.place))} ──")
            click.echo(plain_view(parse(message)))
    return shown


def _open(found: Iterable[Shown], settings: Settings, folder: Path | None) -> int:
    """The messages as a page in the browser; says how many they were."""
    from bulkmail.cli.browser import show
    from bulkmail.preview.preview_page import Album

    album, is_whole = Album(), True
    for number, recipient, message in found:
        if album.is_full:
            is_whole = False
            break
        album.add(message, f"row {number}, {recipient.place}")
    if album.sheets:
        target = folder if folder is not None else _temporary_folder()
        page = album.write(target, f"{settings.name}-preview", title=f"Preview of {settings.name}")
        show(page)
        _say_where(page, album, is_whole=is_whole)
    return len(album.sheets)


def _temporary_folder() -> Path:
    """A folder that stays, since the browser reads it when this process is gone; those of past days are deleted."""
    for old in Path(tempfile.gettempdir()).glob(f"{_PREVIEWS}*"):
        with suppress(OSError):
            found = old.lstat()
            if stat.S_ISDIR(found.st_mode) and _is_mine(found) and found.st_mtime < time.time() - _PREVIEW_KEPT:
                shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=_PREVIEWS))


def _is_mine(found: os.stat_result) -> bool:
    return not hasattr(os, "getuid") or found.st_uid == os.getuid()


def _say_where(page: Path, album: Album, *, is_whole: bool) -> None:
    number = len(album.sheets)
    what = "The message is" if number == 1 and is_whole else f"{count(number, 'message')} are"
    more = "" if is_whole else "; --row, --address and --where show others"
    click.echo(f"{what} in {page}{more}")


def _no_one(settings: Settings, *, row: int | None, address: Address | None) -> ConfigError:
    source = settings.list_source or ("--to" if settings.to else "the run")
    if row is not None:
        what = f"row {row} of {source} is not there or cannot be used"
    elif address is not None:
        what = f"no row of {source} has the address {address.readable}"
    else:
        what = f"no row of {source} can be sent to"
    return ConfigError(what, hint="bulkmail check says what is wrong with each row")
