"""Connections to the PostgreSQL that is a store, and its errors in our words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from bulkmail.model.errors import BulkmailError, ConfigError
from bulkmail.model.lazy import lazy_pattern
from bulkmail.text import printable

if TYPE_CHECKING:
    from asyncpg import Connection

SCHEMA = "bulkmail"
LIST_SCHEMA = "bulkmail_suppressions"  # the suppression list: other machines need it than need the campaigns
STORE_VARIABLE = "BULKMAIL_STORE"
CONNECTING = 10.0  # seconds
STATEMENT = 60.0  # seconds
STANDS_STILL = 5.0  # seconds after which a worker in the middle of a transaction loses what it has locked
_SHAPE = "write postgresql://USER@HOST/DATABASE"
_LONE_PERCENT = lazy_pattern(r"%(?![0-9A-Fa-f]{2})")


class StoreError(BulkmailError):
    """The store cannot be reached, read or written."""


def store_url(text: str | None) -> str:
    """The URL of the store from the command line, or from the environment.  Raises `ConfigError`.

    A password on the command line is refused: every user of the machine can read it there.
    """
    if text is not None and _has_password(text):
        raise ConfigError(
            "the URL of the store has a password in it, which every user of this machine could read",
            hint=f"put it into ~/.pgpass, PGPASSWORD or {STORE_VARIABLE}",
        )
    url = text or os.environ.get(STORE_VARIABLE, "")
    if not url:
        raise ConfigError("no store is named", hint=f"write its URL, or set {STORE_VARIABLE}=postgresql://HOST/NAME")
    try:
        is_one = urlsplit(url).scheme in ("postgresql", "postgres")
    except ValueError as error:  # whose text may repeat the password
        raise ConfigError("the URL of the store cannot be read", hint=_SHAPE) from error
    if _is_misquoted(url):  # not shown: any part of it may be the password
        raise ConfigError(
            "the URL of the store has a character in user or password that must be quoted",
            hint=f"write %2F for /, %3F for ?, %23 for #, %40 for @ and %25 for %; {_SHAPE}",
        )
    if not is_one:
        raise ConfigError(f"{printable(shown(url), 80)!r} is not the URL of a store", hint=_SHAPE)
    return url


def _has_password(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.password is not None or "password" in dict(parse_qsl(parts.query))


def _is_misquoted(url: str) -> bool:
    """Whether an unquoted character ends user and password too early, or a percent sign quotes nothing."""
    parts = urlsplit(url)
    return "@" in parts.path + parts.query + parts.fragment or _LONE_PERCENT.search(url) is not None


def shown(url: str) -> str:
    """The URL as it may be shown: without a password."""
    parts = urlsplit(url)
    if _is_misquoted(url):
        return f"{parts.scheme}://***"
    address = parts.netloc
    if parts.password is not None:
        user, _, host = address.rpartition("@")
        address = f"{user.partition(':')[0]}@{host}"
    query = urlencode([pair for pair in parse_qsl(parts.query) if pair[0] != "password"])
    return urlunsplit((parts.scheme, address, parts.path, query, ""))


def with_password(url: str) -> str:
    """`url`, which may have been kept without its password, as the environment has it for the same store."""
    known = os.environ.get(STORE_VARIABLE, "")
    return known if known and shown(known) == url else url


async def connect(
    url: str, *, within: float = CONNECTING, schema: str = SCHEMA, stands_still: float = 0.0
) -> Connection:
    """A connection whose names are those of our schema.  Raises `StoreError`.

    With `stands_still` a transaction is rolled back and its connection ended when nothing was said in it for that
    many seconds: a process that is stopped, or cut off, holds up the others no longer.
    """
    settings = {
        "search_path": schema,
        "application_name": "bulkmail",
        "timezone": "UTC",
        "idle_in_transaction_session_timeout": str(int(stands_still * 1000)),
    }
    with saying(url):
        try:
            return await _asyncpg().connect(url, timeout=within, command_timeout=STATEMENT, server_settings=settings)
        except ValueError as error:  # a port that is no number; several hosts are allowed, so the driver judges
            raise StoreError(f"{printable(shown(url), 200)}: {error}", hint=_SHAPE) from error


def _asyncpg() -> Any:
    """Imported late: sending from one machine does not need it."""
    try:
        import asyncpg
    except ImportError as error:
        raise ConfigError(
            "a store in PostgreSQL needs asyncpg, which is not installed", hint="pip install 'bulkmail[postgres]'"
        ) from error
    return asyncpg


@contextmanager
def saying(url: str) -> Iterator[None]:
    """What the driver raises becomes a `StoreError` that names the store."""
    asyncpg = _asyncpg()
    where = printable(shown(url), 200)
    try:
        yield
    except asyncpg.InvalidPasswordError as error:
        raise StoreError(f"{where}: {error}", hint="put the password into ~/.pgpass or PGPASSWORD") from error
    except asyncpg.InvalidCatalogNameError as error:
        raise StoreError(f"{where}: {error}", hint="createdb makes a database") from error
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError) as error:
        raise StoreError(f"{where} is not a store yet", hint="bulkmail store create") from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise StoreError(f"{where}: {error or 'no answer in time'}") from error


def is_gone(error: BaseException) -> bool:
    """Whether the connection is lost, and another one may do better; whether a commit took effect is not known."""
    asyncpg = _asyncpg()
    kinds = (
        asyncpg.PostgresConnectionError,
        asyncpg.InterfaceError,
        asyncpg.AdminShutdownError,
        asyncpg.CrashShutdownError,
        asyncpg.CannotConnectNowError,
        asyncpg.TooManyConnectionsError,
        asyncpg.IdleInTransactionSessionTimeoutError,
        OSError,
        TimeoutError,
    )
    return isinstance(error, kinds)


def is_to_be_repeated(error: BaseException) -> bool:
    """Whether the transaction was rolled back for another's sake: every statement may be said again."""
    asyncpg = _asyncpg()
    return isinstance(error, asyncpg.DeadlockDetectedError | asyncpg.SerializationError)
