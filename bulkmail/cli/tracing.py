"""`--trace`: the whole conversation with the relay, written beside the sending."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bulkmail.cli.progress import MODES
from bulkmail.model.errors import ConfigError
from bulkmail.model.relay import Kind, Relay
from bulkmail.settings.dating import dated
from bulkmail.text import printable

if TYPE_CHECKING:
    from bulkmail.smtp.trace import Trace

F = TypeVar("F", bound=Callable[..., Any])


def trace_option(function: F) -> F:
    """Adds `--trace` to a command."""
    return click.option(
        "--trace",
        "trace_to",
        metavar="FILE",
        callback=lambda ctx, param, value: None if value is None else dated(value),
        help='Log the SMTP conversation to this file, without passwords; "-": to the screen.',
    )(function)


def progress_option(function: F) -> F:
    """Adds `--progress` to a command."""
    return click.option(
        "--progress",
        "mode",
        type=click.Choice(MODES),
        default="auto",
        show_default=True,
        help="How to show progress on standard error: a bar, plain lines, JSON lines for programs, or none.",
    )(function)


def progress_mode(mode: str, trace_to: str | None) -> str:
    """How progress is shown: where the conversation is on the same screen, only on request."""
    return "none" if trace_to == "-" and mode == "auto" else mode


@contextmanager
def tracing(target: str | None, relay: Relay | None) -> Iterator[Trace | None]:
    """The trace as long as the context lasts, None if there is no `target`.  To be used outside the event loop."""
    if target is None:
        yield None
        return
    if relay is not None and relay.kind in (Kind.MAILDIR, Kind.NULL):
        raise ConfigError(f"--trace: {relay.kind.value}: has no SMTP conversation", hint="leave --trace out")
    from bulkmail.smtp.trace import Trace

    trace = Trace.open(target)
    try:
        with trace:
            yield trace
    finally:
        if trace.fault:
            click.echo(f"note: the trace {printable(target)} is not complete: {printable(trace.fault)}", err=True)
