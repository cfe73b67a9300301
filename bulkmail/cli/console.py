"""`bulkmail console`: a page on this computer to write, rehearse, send and watch campaigns."""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from bulkmail.cli.running import run_async
from bulkmail.cli.web_server import check_installed, make_server, run_server
from bulkmail.model.errors import ConfigError, RelayError
from bulkmail.model.lazy import lazy_pattern

HOST = "127.0.0.1"
MOST_PORTS = 20  # that are tried one after another
GRACE = 1  # seconds for answers under way, at the end
EPILOG = """\b
Examples:
  bulkmail console
  bulkmail console ~/mailings ~/shop/mail
  bulkmail console --no-open --allow-host localhost:9026
"""
_HOST = lazy_pattern(r"([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):\d{1,5}")


@click.command(epilog=EPILOG)
@click.argument(
    "folders", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="[FOLDER]..."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Where to listen; 0: any free port.  [8026 or the next free one, and the same the next time]",
)
@click.option("--no-open", is_flag=True, help="Only print the address, and open no browser.")
@click.option("--new-token", is_flag=True, help="Make a new token; earlier addresses and open tabs stop working.")
@click.option(
    "--allow-host",
    "allowed",
    multiple=True,
    metavar="HOST:PORT",
    help="Answer to this name as well: the near end of an SSH tunnel; repeatable.",
)
def command(
    folders: tuple[Path, ...], port: int | None, no_open: bool, new_token: bool, allowed: tuple[str, ...]
) -> None:
    """Open a page in the browser to write, rehearse, send and watch campaigns.

    Shows the campaigns and runs in FOLDER (default: here), two levels deep. It
    answers only this computer, and only with the token in the address that it
    prints. It starts the ordinary commands as processes of their own: closing
    the page or ending the console with Ctrl-C stops no run.
    """
    check_installed("console", "python_multipart", "starlette", "tomlkit", "uvicorn")
    from bulkmail.cli.browser import show
    from bulkmail.cli.init import KINDS, make_campaign
    from bulkmail.console.access import keep_port, keep_token, kept_port, write_opener
    from bulkmail.console.app import make_app
    from bulkmail.outbox.ledger import state_folder

    for host in allowed:
        if not _HOST.fullmatch(host):
            raise ConfigError(
                f"--allow-host {host!r} is not a name and a port", hint="write --allow-host localhost:9026"
            )
    state = state_folder(os.environ)
    token = keep_token(state, renew=new_token)
    with _listening(kept_port(state) if port is None else port, takes_next=port is None) as listener:
        number = listener.getsockname()[1]
        if port is None:
            keep_port(state, number)
        app = make_app(
            folders or (Path.cwd(),),
            token=token,
            port=number,
            state=state,
            allowed=allowed,
            make_campaign=make_campaign,
            kinds=KINDS,
        )
        address = f"http://{HOST}:{number}/?token={token.reveal()}"
        click.echo(f"The console is at {address}")
        click.echo("Ctrl-C ends it; runs that it started continue.", err=True)
        sys.stdout.flush()
        if not no_open:
            show(write_opener(state, address))
        server = make_server(app, grace=GRACE, keep_alive=30)
        run_async(lambda: run_server(server, listener, log_level=logging.ERROR))


@contextmanager
def _listening(port: int, *, takes_next: bool) -> Iterator[socket.socket]:
    """A socket at the port, or at one of those behind it.  Raises `RelayError` when none can be had."""
    for number in range(port, min(port + (MOST_PORTS if takes_next and port else 1), 65536)):
        try:
            listener = socket.create_server((HOST, number), backlog=128)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and takes_next and number < port + MOST_PORTS - 1:
                continue
            raise RelayError(
                f"cannot listen at {HOST} port {number}: {error.strerror or error}",
                hint="name another with --port PORT",
            ) from None
        with listener:
            yield listener
        return
    raise RelayError(f"no port from {port} on is free", hint="name another with --port PORT")
