"""Which suppression list a command uses: the settings' own, that of `--file`, or that of a store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import click

from bulkmail.model.errors import ConfigError
from bulkmail.settings.suppressions import SuppressionSettings, load_suppressions

Command = Callable[..., Any]


def list_store_option(function: Command) -> Command:
    """`--store URL`, as the argument `store`."""
    return click.option(
        "--store", "store", default="", metavar="URL", help="Use the suppression list of a store in PostgreSQL."
    )(function)


def list_options(function: Command) -> Command:
    """`--file FILE` and `--store URL`, as the argument `chosen`: the settings of the list that they name."""

    @wraps(function)
    def with_chosen(*args: Any, file: Path | None, store: str, **named: Any) -> Any:
        return function(*args, chosen=chosen_list(file, store), **named)

    return click.option(
        "--file",
        "file",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="The suppression list to use.",
    )(list_store_option(with_chosen))


def chosen_list(file: Path | None, store: str) -> SuppressionSettings:
    """The settings with the list that the flags name.  Raises `ConfigError`."""
    settings = load_suppressions()
    if not store:
        return replace(settings, file=file) if file is not None else settings
    if file is not None:
        raise ConfigError("--file and --store name two suppression lists", hint="give one of them")
    from bulkmail.cluster.database import store_url

    return replace(settings, store=store_url(store))
