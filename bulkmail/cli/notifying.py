"""`--notify`, and what commands say and do about runs that were killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from bulkmail.cli.words import wrapped
from bulkmail.outbox.ledger import state_folder
from bulkmail.text import printable

F = TypeVar("F", bound=Callable[..., Any])


def notify_option(function: F) -> F:
    """Adds `--notify/--no-notify` to a command, as `notify`."""
    return click.option(
        "--notify/--no-notify",
        "notify",
        default=None,
        help="Send the notifications of [notify].  [default: yes, except for a rehearsal]",
    )(function)


def say_fault(fault: str) -> None:
    """What could not be notified, on standard error."""
    click.echo(wrapped(f"note: {printable(fault)}", indent=2), err=True)


def notify_if_killed(path: Path) -> None:
    """Notifies of the run in `path` if its process is gone without a word, and says what failed, now or at its end."""
    if not (state_folder() / "notify").is_dir():  # most people are not notified at all
        return
    from bulkmail.cli.running import run_async
    from bulkmail.mailing import run_watch

    run_async(lambda: run_watch.notify_if_killed(path))
    for fault in run_watch.failed_notification(path):
        say_fault(f"could not notify {fault}")
