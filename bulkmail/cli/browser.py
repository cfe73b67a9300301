"""Opening a page in the browser, or saying where it is."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import click


def show(page: Path) -> None:
    """Opens `page` in the browser; says so on standard error when there is none."""
    if not webbrowser.open(page.absolute().as_uri()):
        click.echo("There is no browser here that could be opened.", err=True)
