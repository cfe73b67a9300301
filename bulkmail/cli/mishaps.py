"""How each failure of a command is reported: a sentence, what to do next, and an exit code."""

from __future__ import annotations

import os
import sys
import traceback

import click

from bulkmail.cli.program import COMMANDS, DEBUG_VARIABLE, ReaderGone, UnknownCommand
from bulkmail.model.errors import BulkmailError, OutboxError, RelayError, SendingPaused, SuppressionError
from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.model.tally import EXIT_BUG, EXIT_NOTHING_SENT, EXIT_STOPPED
from bulkmail.text import closest


@dataclass(frozen=True, slots=True)
class Mishap:
    """What is said of an error, and the exit code that goes with it.  An empty `message` is not said at all."""

    message: str
    exit_code: int
    hint: str = ""


def tell(error: BaseException, *, outbox: str = "", wants_traceback: bool = False, is_quiet: bool = False) -> Mishap:
    """Says what happened on standard error and returns it.  `outbox` is the one that was at work.

    With `is_quiet` only a traceback is said.
    """
    error = _innermost(error)
    mishap = judge(error, outbox=outbox)
    if isinstance(error, BrokenPipeError | ReaderGone):
        _stop_writing()
        return mishap
    if wants_traceback:
        _say("".join(traceback.format_exception(error)).rstrip())
    if mishap.message and not is_quiet:
        is_help = isinstance(error, click.exceptions.NoArgsIsHelpError)
        _say(mishap.message, label="" if is_help else click.style("error:", fg="red", bold=True))
    if mishap.hint and not is_quiet:
        _say(mishap.hint, label=click.style("hint:", bold=True))
    return mishap


def judge(error: BaseException, *, outbox: str = "") -> Mishap:
    """What to say of `error`."""
    match error:
        case BulkmailError():
            is_stopped = isinstance(error, RelayError | OutboxError | SendingPaused | SuppressionError)
            code = EXIT_STOPPED if is_stopped else EXIT_NOTHING_SENT
            return Mishap(str(error), code, error.hint)
        case click.ClickException():
            return _usage(error)
        case click.Abort() if not isinstance(error.__cause__, KeyboardInterrupt):
            return Mishap("no answer; nothing was done", EXIT_NOTHING_SENT)
        case click.Abort() | KeyboardInterrupt():
            return Mishap("interrupted", EXIT_STOPPED, _how_to_go_on(outbox))
        case BrokenPipeError() | ReaderGone():
            return Mishap("", EXIT_STOPPED)
        case MemoryError():
            again = _how_to_go_on(outbox)
            return Mishap(
                "this computer does not have enough memory for this mailing",
                EXIT_STOPPED if outbox else EXIT_NOTHING_SENT,
                "close other programs, or use smaller attachments: they are held in memory several times"
                + (f"; {again}" if again else ""),
            )
        case OSError(filename=str() | bytes() | os.PathLike() as name, strerror=str() as reason):
            return Mishap(f"{os.fsdecode(name)}: {reason}", EXIT_STOPPED, _how_to_go_on(outbox))
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    again = _how_to_go_on(outbox)
    return Mishap(
        f"bulkmail itself failed, and that is a bug: {what}",
        EXIT_BUG,
        (f"{again}; " if again else "") + f"for a report, {DEBUG_VARIABLE}=1 shows where it happened",
    )


def _how_to_go_on(outbox: str) -> str:
    return f"every row is in {outbox}; type: bulkmail resume {outbox}" if outbox else ""


def _usage(error: click.ClickException) -> Mishap:
    """Click's own errors, in the form of all others."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "bulkmail"
    if isinstance(error, click.exceptions.NoArgsIsHelpError):  # no arguments: show the help, no error
        return Mishap(error.format_message(), EXIT_NOTHING_SENT)
    hint = f"{command} --help lists what is available"
    match error:
        case UnknownCommand(name=name):
            return Mishap(error.message, EXIT_NOTHING_SENT, _meant_command(name) or hint)
        case click.NoSuchOption(option_name=name, possibilities=possibilities):
            if possibilities:
                hint = f"did you mean {' or '.join(sorted(possibilities))}?"
            return Mishap(f"{command} has no option {name}", EXIT_NOTHING_SENT, hint)
    message = error.format_message().rstrip(".")
    return Mishap(message[:1].lower() + message[1:], EXIT_NOTHING_SENT, hint)


def _meant_command(name: str) -> str:
    if os.path.exists(name):
        return f'did you mean "bulkmail send {name}"?'
    close = closest(name, COMMANDS)
    return f'did you mean "bulkmail {close}"?' if close else ""


def _innermost(error: BaseException) -> BaseException:
    """A task group wraps even a single error, and what befalls one sender may befall them all."""
    while isinstance(error, BaseExceptionGroup) and len({type(each) for each in error.exceptions}) == 1:
        error = error.exceptions[0]
    return error


# What could steer a terminal; line ends stay.  Messages name files, cells and servers that others wrote.
_STEERING = lazy_pattern("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def _say(text: str, *, label: str = "") -> None:
    color = False if os.environ.get("NO_COLOR") else None
    try:
        click.echo(
            (f"{label} " if label else "") + _STEERING.sub("\N{REPLACEMENT CHARACTER}", text), err=True, color=color
        )
    except OSError:
        _stop_writing()


def _stop_writing() -> None:
    """Our output was closed: what is still buffered must not fail again when Python ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            try:
                os.dup2(nowhere, stream.fileno())
            except (OSError, ValueError):
                continue
