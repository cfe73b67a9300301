"""`bulkmail stop`: a run that another process is sending ends, as at Ctrl-C there."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from bulkmail.cli.in_store import StorePlace, store_option
from bulkmail.cli.in_store import stop as stop_in_store
from bulkmail.cli.program import json_option, note_result
from bulkmail.cli.running import run_async
from bulkmail.cli.words import step
from bulkmail.mailing.operator import WAIT, is_sending, stop
from bulkmail.model.errors import OutboxError
from bulkmail.model.tally import EXIT_OK, EXIT_STOPPED, Tally
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.report.text_report import say_left
from bulkmail.settings.runs import find_run

EPILOG = """\b
Examples:
  bulkmail stop newsletter
  bulkmail stop newsletter/runs/newsletter.outbox --now
  bulkmail stop newsletter --store
"""


@click.command(epilog=EPILOG)
@click.argument("run")
@click.option("--now", is_flag=True, help="Abort the messages under way; they may be in doubt then.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0, max=86_400),
    default=WAIT,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the run to end.",
)
@json_option
@store_option
def command(run: str, now: bool, wait: float, store: str | None) -> int:
    """Stop a run that another process is sending.

    RUN is an outbox file, or a campaign (its latest run); with --store the name of a campaign there, which all machines
    stop sending then. The messages under way are finished, and no others are begun.
    It works for the run of another terminal, user or container that shares the folder. Exit code: 0 the run is not
    being sent any more, 3 it was asked to stop and has not ended yet.
    """
    if store is not None:
        return stop_in_store(StorePlace(store), run, now=now, wait=wait)
    path = find_run(run, prefers=is_sending)
    was_sending = is_sending(path)
    has_ended = run_async(lambda: stop(path, now=now, wait=wait))
    tally = _tally(path)
    left = tally.open if tally is not None else None
    result = {"outbox": str(path), "was_sending": was_sending, "has_ended": has_ended, "left": left}
    if not note_result(result):
        _say(path, tally, was_sending=was_sending, has_ended=has_ended)
    return EXIT_OK if has_ended else EXIT_STOPPED


def _say(path: Path, tally: Tally | None, *, was_sending: bool, has_ended: bool) -> None:
    quoted = shlex.quote(str(path))
    if not has_ended:
        click.echo(f"{path} is stopping: messages are still under way, and no others are begun.")
        lines = step("To see when it has ended", f"bulkmail status {quoted}")
        lines += step("To abort them", f"bulkmail stop {quoted} --now")
    else:
        click.echo(f"Stopped: {path}." if was_sending else f"{path} is not being sent, so there is nothing to stop.")
        lines = []
        if tally is not None and tally.open:
            lines += step(f"To continue with the {say_left(tally)} left", f"bulkmail resume {quoted}")
            lines += step("To skip them", f"bulkmail cancel {quoted}")
    for line in lines:
        click.echo(line)


def _tally(path: Path) -> Tally | None:
    """Rows by status; None where the outbox is not ours to read."""
    try:
        with OutboxReader.open(path) as reader:
            return reader.tally()
    except OutboxError:
        return None
