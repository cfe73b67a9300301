"""`bulkmail init`: a campaign to start from."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import click

from bulkmail.model.errors import ConfigError
from bulkmail.settings.allowed_commands import allow, commands_in
from bulkmail.settings.settings import load

KINDS = {
    "newsletter": "news to many, as text and HTML",
    "mail-merge": "a plain personal message",
    "invoice": "a bill with its items, from JSON",
}
EPILOG = """\b
Examples:
  bulkmail init spring
  bulkmail init reminders --kind invoice
"""


@click.command(epilog=EPILOG)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--kind",
    type=click.Choice(list(KINDS)),
    default="newsletter",
    show_default=True,
    help="; ".join(f"{kind}: {what}" for kind, what in KINDS.items()) + ".",
)
def command(folder: Path, kind: str) -> None:
    """Create a campaign to start from: settings, a message and a small list.

    It works as it is, and rehearses: no mail is sent to recipients before you name a relay.
    """
    files = make_campaign(kind, folder)
    name = shlex.quote(str(folder))
    click.echo(f"{folder} is now a campaign to start from: {kind}")
    for file in files:
        click.echo(f"  {file}")
    click.echo(f"\nRead {folder / 'campaign.toml'}, change what you like, then type:")
    click.echo(f"  bulkmail check {name}       checks it")
    click.echo(f"  bulkmail preview {name}     shows the messages")
    click.echo(f"  bulkmail send {name}        rehearses: no mail is sent to recipients")


def make_campaign(kind: str, folder: Path) -> list[str]:
    """Makes a campaign of a kind in a new folder; returns the names of its files.  Raises `ConfigError`."""
    _refuse_occupied(folder)
    files = copy_template(kind, folder)
    settings = load(str(folder))
    allow(folder, commands_in(settings.campaign, settings.routes))  # they are ours
    return files


def _refuse_occupied(folder: Path) -> None:
    try:
        occupied = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be looked into: {error.strerror}") from None
    if occupied:
        raise ConfigError(
            f"{folder}: already exists and was not changed",
            hint=f"name a new folder: bulkmail init {shlex.quote(str(folder))}-2",
        )


def copy_template(kind: str, folder: Path) -> list[str]:
    """Copies a working campaign into `folder`, which it makes; returns the names of its files."""
    source = templates_folder() / kind
    names = sorted(str(path.relative_to(source)) for path in source.rglob("*") if _is_part(path.relative_to(source)))
    try:
        for name in names:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target)  # not its mode: a package's files may be read-only
    except OSError as error:
        raise ConfigError(f"{error.filename or folder}: cannot be written: {error.strerror}") from None
    return names


def _is_part(path: Path) -> bool:
    """Not what a rehearsal in the checkout left behind."""
    return (
        path.suffix != "" and path.parts[0] != "runs" and not any(part.startswith((".", "__")) for part in path.parts)
    )


def templates_folder() -> Path:
    """In an installed package beside the code; in a checkout, that is an editable install, at its root."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "data" / "templates", package.parent / "templates"):
        if folder.is_dir():
            return folder
    raise ConfigError("this installation lacks its templates", hint="type: pip install --force-reinstall bulkmail")
