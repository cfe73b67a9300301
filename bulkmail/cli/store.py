"""`bulkmail store`: the tables of a store in PostgreSQL."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import anyio
import click

from bulkmail.cluster import store_schema
from bulkmail.cluster.database import connect, shown, store_url
from bulkmail.text import count

if TYPE_CHECKING:
    from asyncpg import Connection

T = TypeVar("T")

EPILOG = """\b
Examples:
  bulkmail store create postgresql://mailer@db.example.com/mail
  BULKMAIL_STORE=postgresql:///mail bulkmail store check
"""


@click.group(epilog=EPILOG)
def command() -> None:
    """Make, upgrade and check the tables of a store in PostgreSQL.

    A campaign is loaded and sent from it by bulkmail send NAME --store.

    The password is looked for in ~/.pgpass and PGPASSWORD; a URL on the command
    line may not hold one. Needs the extra "postgres".
    """


_url = click.argument("url", required=False)


@command.command(epilog="")
@_url
def create(url: str | None) -> None:
    """Make the tables of a store in a PostgreSQL database.

    URL is postgresql://USER@HOST/DATABASE; without it BULKMAIL_STORE is used.
    """
    where = store_url(url)
    _with(where, lambda connection: store_schema.create(connection, where))
    click.echo(f"{shown(where)} is a store now.")


@command.command(epilog="")
@_url
def upgrade(url: str | None) -> None:
    """Bring the tables of a store up to this bulkmail.

    URL is postgresql://USER@HOST/DATABASE; without it BULKMAIL_STORE is used.
    """
    where = store_url(url)
    before, after = _with(where, lambda connection: store_schema.upgrade(connection, where))
    if before == after:
        click.echo(f"{shown(where)} is up to date (version {after}).")
    else:
        click.echo(f"{shown(where)} is upgraded from version {before} to {after}.")


@command.command(epilog="")
@_url
def check(url: str | None) -> int:
    """Say whether a store can be used: version, rights, durability, clock.

    URL is postgresql://USER@HOST/DATABASE; without it BULKMAIL_STORE is used.
    """
    where = store_url(url)
    remarks = _with(where, lambda connection: store_schema.check(connection, where))
    errors = sum(remark.is_error for remark in remarks)
    for remark in remarks:
        click.echo(f"{'error' if remark.is_error else 'warning'}: {remark.text}")
        if remark.fix:
            click.echo(f"  Fix: {remark.fix}")
    if errors:
        click.echo(f"{shown(where)} cannot be used: {count(errors, 'error')}.")
        return 2
    click.echo(f"{shown(where)} can be used.")
    return 0


def _with(url: str, work: Callable[[Connection], Awaitable[T]]) -> T:
    async def run() -> T:
        connection = await connect(url)
        try:
            return await work(connection)
        finally:
            await connection.close(timeout=5)

    return anyio.run(run)
