"""The flags that shape a campaign and its checks, the same for `send`, `check` and `preview`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bulkmail.cli.pace_flags import PACE_OPTIONS
from bulkmail.model.errors import ConfigError
from bulkmail.settings.dating import dated
from bulkmail.settings.overrides import Overrides

if TYPE_CHECKING:
    from bulkmail.mailing.following import FollowUp

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--recipients", metavar="FILE", help='The list: CSV, TSV, JSON, JSON lines; "-": standard input.'),
    click.option("--to", metavar="ADDRESS", multiple=True, help="Send to this address instead of a list; repeatable."),
    click.option("--together", is_flag=True, help="Send one message to all --to addresses, which all can see."),
    click.option("--from", "sender", metavar="ADDRESS", help='The From header: "Corner Shop <hello@shop.example>".'),
    click.option("--subject", metavar="TEXT", help='The subject, a template: "Spring is here, {{ name }}".'),
    click.option("--text", metavar="FILE", help='Plain-text body, a template; "-": standard input.'),
    click.option("--html", metavar="FILE", help="HTML body, a template."),
    click.option("--attach", metavar="FILE", multiple=True, help="Attach this file; repeatable."),
    click.option("--header", "headers", metavar='"NAME: VALUE"', multiple=True, help="Add this header; repeatable."),
    click.option("--set", "values", metavar="NAME=VALUE", multiple=True, help="A value for the templates; repeatable."),
    click.option(
        "--relay",
        "relays",
        metavar="URL",
        multiple=True,
        help="smtp://user@host:587, smtps://host, sandbox: …; repeatable.  Default: BULKMAIL_RELAY.",
    ),
    click.option("--where", metavar="EXPR", help="Send only to rows that match: \"country == 'AT'\"."),
    click.option(
        "--suppress", metavar="FILE", multiple=True, help="File of addresses and @domains to skip; repeatable."
    ),
    click.option("--encoding", metavar="NAME", help="The list's encoding.  [default: detected]"),
    click.option("--address-column", metavar="NAME", help="The column with the address.  [default: detected]"),
    click.option("--sheet", metavar="NAME", help="The sheet of a workbook, by name or number.  [default: the first]"),
    click.option(
        "--header-row",
        metavar="N",
        type=click.IntRange(min=1),
        help="The row that names the columns.  [default: the first]",
    ),
    click.option("--keep-space", is_flag=True, help="Keep spaces around cell values."),
    click.option("--allow-duplicates", is_flag=True, help="Send to an address each time it appears on the list."),
    click.option(
        "--group-by", metavar="COLUMN", multiple=True, help="Send one message per distinct value; repeatable."
    ),
    click.option("--allow-empty", is_flag=True, help="Exit with 0 if there is no recipient to send to."),
    click.option(
        "--max-invalid", metavar="PERCENT", help="Refuse to send if more rows than this are invalid.  [default: 10%]"
    ),
    *PACE_OPTIONS,
    click.option(
        "--send-at",
        metavar="TIME",
        help='When to send to each recipient: "2026-12-24 09:00", "09:00" (the next one) or "column:NAME".',
    ),
    click.option("--timezone", metavar="ZONE", help='Time zone of --send-at: "Europe/Vienna" or "column:NAME".'),
    click.option("--connections", metavar="N", type=int, help="Maximum number of connections."),
    click.option("--retry", metavar="STEPS", help='Delays between attempts: "1m, 5m*2, 1h*3".'),
)


def campaign_options(function: F) -> F:
    """Adds the flags to a command, which hands them on to `overrides_from`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


class DatedFile(click.Path):
    """A file whose name may have `{date}` in it."""

    name = "file"

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path with the date of today."""
        return super().convert(dated(value) if isinstance(value, str) else value, param, ctx)


def report_option(function: F) -> F:
    """Adds `--report` to a command, as `reports`."""
    return click.option(
        "--report",
        "reports",
        type=DatedFile(),
        multiple=True,
        metavar="FILE",
        help="Write the delivery report here (.csv, .json or .html; {date} is today; repeatable).",
    )(function)


_FOLLOW_UP = (
    click.option(
        "--follow-up", metavar="RUN", help="Reply to the messages of this run; send only to recipients it reached."
    ),
    click.option(
        "--unless", metavar="WHAT", help="With --follow-up: skip those who since bounced,complained,unsubscribed."
    ),
)


def follow_up_options(function: F) -> F:
    """Adds the flags of a follow-up, which the command hands on to `follow_up_of`."""
    for option in reversed(_FOLLOW_UP):
        function = option(function)
    return function


def follow_up_of(options: dict[str, Any]) -> FollowUp | None:
    """Takes the flags of a follow-up out of `options`.  Raises `ConfigError`."""
    from bulkmail.mailing.following import FollowUp, parse_unless
    from bulkmail.settings.runs import find_run

    run, unless = options.pop("follow_up"), options.pop("unless")
    if run is None:
        if unless is not None:
            raise ConfigError("--unless is about the recipients of another run", hint="add --follow-up RUN")
        return None
    return FollowUp(find_run(run, rehearsals=False), parse_unless(unless) if unless is not None else frozenset())


_GATE = (
    click.option("--strict", is_flag=True, help="Treat warnings as errors."),
    click.option(
        "--ignore", "ignored", metavar="CODE", multiple=True, help="Ignore findings with this code; repeatable."
    ),
)


def gate_options(function: F) -> F:
    """Adds the flags that say which findings stop a campaign."""
    for option in reversed(_GATE):
        function = option(function)
    return function


def overrides_from(options: Mapping[str, Any]) -> Overrides:
    """What the flags said.  `options` are those of `campaign_options`, and may have `limit` too."""
    return Overrides(**options)


def metrics_option(function: F) -> F:
    """Adds `--metrics` to a command."""
    return click.option(
        "--metrics",
        "metrics_port",
        type=click.IntRange(1, 65535),
        metavar="PORT",
        help="Serve Prometheus metrics at http://127.0.0.1:PORT/metrics while running.",
    )(function)
