"""`bulkmail send --test ME`: one message to its author, as one row of the list would get it."""

from __future__ import annotations

from pathlib import Path

import click
from anyio import to_thread
from click.core import ParameterSource

from bulkmail.cli.passwords import passwords_for
from bulkmail.cli.program import note_result
from bulkmail.cli.progress import Progress, make_progress
from bulkmail.cli.running import abandoned_on_error, deliver, run_async, tell
from bulkmail.cli.tracing import progress_mode, tracing
from bulkmail.mailing.confirm import TrialMessage, TrialResult, prepare_trial, result_of
from bulkmail.mailing.following import FollowUp
from bulkmail.mailing.run_watch import RunWatch
from bulkmail.model.errors import ConfigError
from bulkmail.model.recipient import Address
from bulkmail.model.tally import Status
from bulkmail.settings.allowed_commands import commands_in, refuse_unallowed
from bulkmail.settings.secrets import find_keys
from bulkmail.settings.settings import Settings
from bulkmail.smtp.trace import Trace
from bulkmail.text import printable

# What is about many rows, or about an outbox, which a test message does not have.
_OTHERS = (
    *("limit", "only", "sample", "redirect_to", "dry_run", "expect", "outbox", "reports", "in_doubt"),
    *("start_over", "only_unreached", "metrics_port", "notify"),
)


def check_test_flags(context: click.Context, to: str | None, row: int | None) -> None:
    """Raises `ConfigError` for `--row` without `--test`, and for flags that say nothing about one message."""
    if to is None:
        if row is not None:
            raise ConfigError("--row names the row of a test message", hint="add --test YOUR-ADDRESS")
        return
    flags = {option.name: option.opts[0] for option in context.command.params}
    for name in _OTHERS:
        if name in flags and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise ConfigError(
                f"--test sends one message, and {flags[name]} is about a whole run", hint=f"leave {flags[name]} out"
            )


def send_test(
    settings: Settings,
    *,
    to: Address,
    row: int | None,
    follow_up: FollowUp | None,
    home: Path,
    from_stdin: bool,
    mode: str,
    trace_to: str | None,
) -> int:
    """Sends it and says what became of it; returns the exit code."""
    refuse_unallowed(home, commands_in(settings.campaign, settings.routes))
    passwords = passwords_for(settings.routes, from_stdin=from_stdin, list_source=settings.list_source)
    keys = find_keys(settings.campaign)

    async def main(trace: Trace | None, progress: Progress) -> int:
        trial = await prepare_trial(settings, to=to, row=row, keys=keys, follow_up=follow_up)
        mailing = trial.mailing
        with abandoned_on_error(mailing):
            tell(mailing)
            watch = await RunWatch.open(mailing, passwords=passwords, wanted=False, say=progress.note)
            with progress:
                ending = await deliver(mailing, passwords=passwords, progress=progress, watch=watch, trace=trace)
            if ending.error is not None:
                raise ending.error
            result = await to_thread.run_sync(result_of, trial)
            code = mailing.tally.exit_code
        mailing.abandon()
        _say(trial, result)
        return code

    with tracing(trace_to, settings.routes[0].relay if settings.routes else None) as trace:
        progress = make_progress(progress_mode(mode, trace_to))
        return run_async(lambda: main(trace, progress))


_SAID = {
    Status.ACCEPTED: "{to} was sent what row {row} ({recipient}) would get.",
    Status.REJECTED: "The message to {to} was rejected.",
    Status.DEFERRED: "The message to {to} was deferred; try again later.",
    Status.EXPIRED: "The message to {to} was deferred until its time was up.",
    Status.IN_DOUBT: "The message to {to} was perhaps sent: the connection broke before the reply.",
}
_NOT_SENT = "The message to {to} was not sent."


def _say(trial: TrialMessage, result: TrialResult) -> None:
    to, recipient = trial.to.readable, trial.recipient.address.readable
    found = {
        "test": to,
        "row": trial.row,
        "recipient": recipient,
        "status": result.status.value,
        "code": result.code or None,
        "reply": result.words,
    }
    if note_result(found):
        return
    said = _SAID.get(result.status, _NOT_SENT)
    click.echo(said.format(to=printable(to), row=f"{trial.row:,}", recipient=printable(recipient)))
    if result.words:
        click.echo(f"  {printable(result.words)}")
